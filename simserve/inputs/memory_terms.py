"""What stands in a GPU's memory beside the KV blocks: weights, activations, reserves.

vLLM measures these when it starts, on a full batch of dummy requests; here each is estimated
from shapes and from the engine's dated figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from simserve.inputs.engine_defaults import EngineDefaults
from simserve.inputs.model_spec import ModelSpec

# Activations are kept in 16 bits.
ACTIVATION_BYTES_PER_VALUE = 2
# Live at the peak of a layer: its input and the residual, then the gated FFN's gate, up and
# their product (two tensors fewer if it is not gated).
_HIDDEN_TENSORS, _FFN_TENSORS = 2, 3
# vLLM expands the latent of a prefill: queries, keys and padded values of the query's size.
_EXPANDED_TENSORS = 3


@dataclass(frozen=True, slots=True)
class MemoryTerm:
    """Bytes on each GPU that something takes, and how far to trust the figure."""

    name: str
    bytes: int
    kind: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KvRequest:
    """The settings that the KV pool of one replica depends on.

    ``reserves`` replaces estimated terms by name; ``num_gpu_blocks`` and
    ``kv_cache_memory_bytes`` fix the pool itself.
    """

    tp: int
    block_size: int
    gpu_memory_utilization: float
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    num_gpu_blocks: int | None = None
    kv_cache_memory_bytes: int | None = None
    reserves: Mapping[str, int] | None = None


def reserved_terms(
    model: ModelSpec, engine: EngineDefaults, request: KvRequest
) -> list[MemoryTerm]:
    """Return what stands in the memory fraction beside the KV blocks."""
    weights = model.weight_bytes(request.tp)
    form = f" in {model.weights.method}" if model.weights else ""
    terms = [MemoryTerm("weights", weights, model.kind, f"{model.parameters} parameters{form}")]
    terms.append(_activation_peak(model, engine, request))
    state = engine.memory["sampler_state_bytes_per_logit"]
    kept = round(request.max_num_seqs * model.vocab_size * state.value)
    terms.append(MemoryTerm("sampler_state", kept, state.kind, state.source))
    for name in ("context", "cuda_graph_pool", "nccl_buffers"):
        reserve = engine.memory[name]
        used = name != "nccl_buffers" or request.tp > 1
        size = round(reserve.value) if used else 0
        terms.append(MemoryTerm(name, size, reserve.kind, reserve.source))
    given = request.reserves or {}
    return [
        MemoryTerm(term.name, given[term.name], "given", f"{term.name}_bytes")
        if term.name in given
        else term
        for term in terms
    ]


def _activation_peak(model: ModelSpec, engine: EngineDefaults, request: KvRequest) -> MemoryTerm:
    """Return the larger of the peaks in a layer and in the sampler, both at full batch."""
    hidden = _HIDDEN_TENSORS * model.hidden_size
    tokens = request.max_num_batched_tokens
    widest, name = max(
        (_ffn_values(model, request.tp), "feed-forward"),
        (_expert_values(model, request.tp), "experts"),
        (_latent_values(model, request.tp), "latent attention"),
    )
    layer = tokens * (hidden + widest) * ACTIVATION_BYTES_PER_VALUE
    seqs = min(request.max_num_seqs, tokens)
    per_logit = engine.memory["sampler_bytes_per_logit"]
    logits = round(seqs * model.vocab_size * per_logit.value)
    sampler = logits + tokens * hidden * ACTIVATION_BYTES_PER_VALUE
    if sampler > layer:
        text = f"sampler at {seqs} sequences × {model.vocab_size} logits × {per_logit.value:g} B"
        return MemoryTerm("activation_peak", sampler, "assumed", f"{text}; {per_logit.source}")
    text = f"one layer at {tokens} tokens: {_HIDDEN_TENSORS} hidden tensors and the {name}'s"
    return MemoryTerm("activation_peak", layer, "assumed", text)


def _ffn_values(model: ModelSpec, tp: int) -> int:
    """Return the values per token that the dense FFN holds at its peak."""
    tensors = _FFN_TENSORS if model.ffn_matrices == _FFN_TENSORS else 1
    return tensors * (model.ffn_size // tp)


def _expert_values(model: ModelSpec, tp: int) -> int:
    """Return the values per token that fused experts hold, one row per expert it is sent to.

    Two workspaces and the sum (vLLM, fused_moe.py): the larger of gate-and-up and of the
    output, the product, and the hidden state they are added into.
    """
    if model.experts is None:
        return 0
    size = model.experts.ffn_size // tp
    up = (model.ffn_matrices - 1) * size
    shared = _FFN_TENSORS * (model.experts.shared_ffn_size // tp)
    rows = model.experts.per_token * (max(up, model.hidden_size) + size)
    return rows + model.hidden_size + shared


def _latent_values(model: ModelSpec, tp: int) -> int:
    """Return the values per token of a latent that is expanded for a prefill."""
    if model.mla is None:
        return 0
    heads = model.attention_heads // tp
    expanded = model.mla.nope_size + model.mla.value_size
    return heads * (_EXPANDED_TENSORS * model.mla.query_size + expanded)
