"""What every kernel must compute, in float64: slow, obvious, and on any device.

Nothing here is launched in a measurement. All functions return new float64 tensors.
"""

from __future__ import annotations

import torch

from calibrate.kernels.interface import AttentionShape, PagedBatch


def paged_rows(cache: torch.Tensor, block_ids: torch.Tensor, tokens: int) -> torch.Tensor:
    """Return the first ``tokens`` rows of a sequence whose blocks are ``block_ids``."""
    block_size = cache.shape[1]
    blocks = -(-tokens // block_size)
    chosen = block_ids[:blocks].long()
    if cache.dtype.itemsize == 1:  # not every device gathers float8; its bytes it does
        gathered = cache.view(torch.uint8)[chosen].view(cache.dtype).float()
    else:
        gathered = cache[chosen]
    return gathered.flatten(0, 1)[:tokens].double()


def visible(query_tokens: int, context_tokens: int, device: torch.device) -> torch.Tensor:
    """Return the causal mask ``bool[query_tokens, context_tokens]``: queries come last."""
    past = context_tokens - query_tokens
    rows = torch.arange(query_tokens, device=device)[:, None]
    columns = torch.arange(context_tokens, device=device)[None, :]
    return columns <= rows + past


def attention(
    shape: AttentionShape,
    batch: PagedBatch,
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
) -> torch.Tensor:
    """Return ``float64[tokens, heads, head_size]``: causal paged attention, head by head.

    Lengths are read from the tensors of ``batch``, not from its host copy.
    """
    starts, contexts = batch.query_start.tolist(), batch.context_lens.tolist()
    group = shape.heads // shape.kv_heads
    out = torch.empty(query.shape, dtype=torch.float64, device=query.device)
    for seq, context in enumerate(contexts):
        rows = slice(starts[seq], starts[seq + 1])
        mask = visible(rows.stop - rows.start, context, query.device)
        keys = paged_rows(key_cache, batch.block_table[seq], context)
        values = paged_rows(value_cache, batch.block_table[seq], context)
        for head in range(shape.heads):
            logits = query[rows, head].double() @ keys[:, head // group].T * shape.scale
            weights = logits.masked_fill(~mask, -torch.inf).softmax(dim=-1)
            out[rows, head] = weights @ values[:, head // group]
    return out


def latent_attention(
    batch: PagedBatch,
    query: torch.Tensor,
    latent_cache: torch.Tensor,
    value_size: int,
    scale: float,
) -> torch.Tensor:
    """Return ``float64[tokens, heads, value_size]``: absorbed multi-head latent attention.

    ``query`` is ``[tokens, heads, latent + rope]`` with the key projection already applied;
    every head reads the same ``latent_cache`` ``[num_blocks, block_size, latent + rope]``, whose
    first ``value_size`` values are also what is summed (DeepSeek-V2, arXiv 2405.04434).
    """
    starts, contexts = batch.query_start.tolist(), batch.context_lens.tolist()
    out = torch.empty(*query.shape[:2], value_size, dtype=torch.float64, device=query.device)
    for seq, context in enumerate(contexts):
        rows = slice(starts[seq], starts[seq + 1])
        mask = visible(rows.stop - rows.start, context, query.device)
        latents = paged_rows(latent_cache, batch.block_table[seq], context)
        for head in range(query.shape[1]):
            logits = query[rows, head].double() @ latents.T * scale
            weights = logits.masked_fill(~mask, -torch.inf).softmax(dim=-1)
            out[rows, head] = weights @ latents[:, :value_size]
    return out


def gemm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return ``float64[M, N]``: ``x @ weight.T``."""
    return x.double() @ weight.double().T


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Return the rows of ``x`` over their root mean square, times ``weight``."""
    wide = x.double()
    mean_square = (wide * wide).mean(dim=-1, keepdim=True)
    return wide / (mean_square + eps).sqrt() * weight.double()


def rope(x: torch.Tensor, cos_sin: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return ``x`` ``[tokens, heads, head_size]`` rotated: halves are the pairs (NeoX style).

    ``cos_sin`` is ``[positions, head_size]``: the cosines, then the sines, of one half.
    """
    cos, sin = cos_sin.double()[positions.long()][:, None, :].chunk(2, dim=-1)
    first, second = x.double().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def silu_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """Return ``silu(gate) · up`` of rows that hold gate, then up."""
    gate, up = gate_up.double().chunk(2, dim=-1)
    return gate / (1 + (-gate).exp()) * up


def greedy(logits: torch.Tensor) -> torch.Tensor:
    """Return the first position of the largest logit of every row."""
    wide = logits.double()
    return (wide == wide.amax(dim=-1, keepdim=True)).int().argmax(dim=-1)


def sampled(logits: torch.Tensor, temperature: float, noise: torch.Tensor) -> torch.Tensor:
    """Return the token whose probability over its exponential noise is largest.

    That is a draw from ``softmax(logits / temperature)`` (the exponential race).
    """
    return ((logits.double() / temperature).softmax(dim=-1) / noise.double()).argmax(dim=-1)


def experts(
    x: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
    expert_ids: torch.Tensor,
    expert_weights: torch.Tensor,
) -> torch.Tensor:
    """Return ``float64[tokens, hidden]``: a mixture of gated experts, token by token.

    ``gate_up`` is ``[experts, 2 · inter, hidden]``, ``down`` ``[experts, hidden, inter]``,
    ids and weights ``[tokens, top_k]``.
    """
    out = torch.zeros(x.shape, dtype=torch.float64, device=x.device)
    for token in range(x.shape[0]):
        for choice in range(expert_ids.shape[1]):
            expert = int(expert_ids[token, choice])
            inner = silu_mul(gemm(x[token : token + 1], gate_up[expert]))
            share = expert_weights[token, choice].double()
            out[token] += share * gemm(inner, down[expert])[0]
    return out
