"""Paged attention in plain torch: gather the pages, then scaled-dot-product attention.

It runs on any device. On a CPU it is also what is measured, so decodes go together in groups of
similar length whose gathered pages stay in the cache, and their cost is that of the tokens they
hold, hardly that of the longest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch.nn import functional

from calibrate.kernels.interface import AttentionShape, PagedBatch

# Tokens gathered at once. A CPU: 2,048 tokens of 2 heads of 64 floats are 1 MiB, about the L2 of
# a server core; larger gathers were slower. A GPU: bounds the memory, 0.5 GiB for 8 heads of 128.
GATHER_TOKENS: Final = {"cpu": 2_048, "cuda": 131_072}
# A group of decodes ends where padding would add more tokens than this: as many as take the time
# of one more group's calls (about 45 µs, measured 2026-11-20 with 2 heads of 64 on one core).
PADDING_TOKENS: Final = 256


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Decodes gathered together, each padded to ``blocks`` blocks."""

    seqs: torch.Tensor  # int64[n], on the device
    rows: torch.Tensor  # int64[n]: their packed queries
    blocks: int


@dataclass(frozen=True, slots=True)
class Prefill:
    """A sequence with several new tokens."""

    seq: int
    rows: slice
    blocks: int


@dataclass(frozen=True, slots=True)
class TorchPlan:
    """What the host decided for one call."""

    shape: AttentionShape
    batch: PagedBatch
    decodes: tuple[DecodeGroup, ...]
    prefills: tuple[Prefill, ...]
    keys: torch.Tensor  # [blocks, block_size, kv_heads, head_size], scratch
    values: torch.Tensor


def groups_of_similar_size(blocks: Sequence[int], limit: int, padding: int) -> Iterator[list[int]]:
    """Yield indices in ascending order of ``blocks``, in groups with little padding.

    A group padded to its largest member holds at most ``limit`` blocks, unless it is one member,
    and at most ``padding`` blocks more than its members do.
    """
    group: list[int] = []
    held = 0
    for index in sorted(range(len(blocks)), key=lambda i: (blocks[i], i)):
        padded = blocks[index] * (len(group) + 1)
        held += blocks[index]
        if group and (padded > limit or padded - held > padding):
            yield group
            group, held = [], blocks[index]
        group.append(index)
    if group:
        yield group


class TorchAttention:
    """Gather, then ``scaled_dot_product_attention`` (accumulates in float32)."""

    name = "torch"

    def __init__(self) -> None:
        self._scratch: dict[tuple[AttentionShape, torch.device], torch.Tensor] = {}

    def missing(self) -> str | None:
        """Torch is always there."""
        return None

    def refuses(self, shape: AttentionShape, batch: PagedBatch) -> str | None:
        """Every shape is served whose query heads divide evenly."""
        if shape.heads % shape.kv_heads:
            return f"{shape.heads} query heads do not divide by {shape.kv_heads} KV heads"
        return None

    def replayable(self, batch: PagedBatch) -> bool:
        """Tell that a graph gathers as much as it was planned for: of no use with other lengths."""
        return bool(batch.block_table.device.type == "cpu")  # which has no graphs

    def plan(self, shape: AttentionShape, batch: PagedBatch) -> TorchPlan:
        """Group the decodes and find the scratch memory."""
        device = batch.block_table.device
        blocks = [-(-context // shape.block_size) for context in batch.context_tokens]
        starts = [0]
        for tokens in batch.query_tokens:
            starts.append(starts[-1] + tokens)
        single = [seq for seq, tokens in enumerate(batch.query_tokens) if tokens == 1]
        limit = GATHER_TOKENS["cpu" if device.type == "cpu" else "cuda"] // shape.block_size
        decodes = []
        padding = PADDING_TOKENS // shape.block_size
        for group in groups_of_similar_size([blocks[seq] for seq in single], limit, padding):
            seqs = [single[member] for member in group]
            decodes.append(
                DecodeGroup(
                    torch.tensor(seqs, device=device),
                    torch.tensor([starts[seq] for seq in seqs], device=device),
                    blocks[seqs[-1]],
                )
            )
        prefills = tuple(
            Prefill(seq, slice(starts[seq], starts[seq + 1]), blocks[seq])
            for seq, tokens in enumerate(batch.query_tokens)
            if tokens > 1
        )
        held = [len(group.seqs) * group.blocks for group in decodes]
        held += [prefill.blocks for prefill in prefills]
        keys, values = self._scratch_for(shape, max(held), device)
        return TorchPlan(shape, batch, tuple(decodes), prefills, keys, values)

    def run(
        self,
        planned: TorchPlan,
        query: torch.Tensor,
        key_cache: torch.Tensor,
        value_cache: torch.Tensor,
        out: torch.Tensor,
    ) -> None:
        """Write the attention of every query token into ``out``."""
        for group in planned.decodes:
            _decode(planned, group, query, key_cache, value_cache, out)
        for prefill in planned.prefills:
            _prefill(planned, prefill, query, key_cache, value_cache, out)

    def _scratch_for(
        self, shape: AttentionShape, blocks: int, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return room for the keys and values of some blocks; kept, as allocating it is slow."""
        key = (shape, device)
        held = self._scratch.get(key)
        if held is None or held.shape[1] < blocks:
            size = (2, blocks, shape.block_size, shape.kv_heads, shape.head_size)
            held = self._scratch[key] = torch.empty(size, dtype=shape.kv_dtype, device=device)
        return held[0], held[1]


def _gathered(cache: torch.Tensor, block_ids: torch.Tensor, scratch: torch.Tensor) -> torch.Tensor:
    """Return the blocks ``block_ids`` of the cache, copied into the scratch memory."""
    into = scratch[: block_ids.numel()]
    if cache.dtype.itemsize == 1:  # float8 has no index_select everywhere; its bytes have
        torch.index_select(cache.view(torch.uint8), 0, block_ids, out=into.view(torch.uint8))
    else:
        torch.index_select(cache, 0, block_ids, out=into)
    return into


def _decode(
    planned: TorchPlan,
    group: DecodeGroup,
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """Attend for one query token of each sequence; the heads of a group are its query rows."""
    shape, seqs = planned.shape, len(group.seqs)
    limit = group.blocks * shape.block_size
    block_ids = planned.batch.block_table[group.seqs, : group.blocks].flatten()
    keyed = (seqs, limit, shape.kv_heads, shape.head_size)
    keys = _gathered(key_cache, block_ids, planned.keys).view(keyed).to(query.dtype)
    values = _gathered(value_cache, block_ids, planned.values).view(keyed).to(query.dtype)
    contexts = planned.batch.context_lens[group.seqs]
    mask = torch.arange(limit, device=out.device) < contexts[:, None]
    packed = (seqs, shape.kv_heads, shape.heads // shape.kv_heads, shape.head_size)
    attended = functional.scaled_dot_product_attention(
        query[group.rows].view(packed),
        keys.transpose(1, 2),
        values.transpose(1, 2),
        attn_mask=mask[:, None, None, :],
        scale=shape.scale,
    )
    out[group.rows] = attended.reshape(seqs, shape.heads, shape.head_size)


def _prefill(
    planned: TorchPlan,
    prefill: Prefill,
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """Attend for the new tokens of one sequence, causally."""
    shape, tokens = planned.shape, prefill.rows.stop - prefill.rows.start
    limit = prefill.blocks * shape.block_size
    block_ids = planned.batch.block_table[prefill.seq, : prefill.blocks]
    group = shape.heads // shape.kv_heads
    keyed = (limit, shape.kv_heads, shape.head_size)
    spread = (shape.kv_heads, group, limit, shape.head_size)
    keys = _gathered(key_cache, block_ids, planned.keys).view(keyed).to(query.dtype)
    values = _gathered(value_cache, block_ids, planned.values).view(keyed).to(query.dtype)
    past = planned.batch.context_lens[prefill.seq] - tokens
    last = torch.arange(tokens, device=out.device)[:, None] + past
    attended = functional.scaled_dot_product_attention(
        query[prefill.rows]
        .reshape(tokens, shape.kv_heads, group, shape.head_size)
        .permute(1, 2, 0, 3),
        keys.transpose(0, 1)[:, None].expand(spread),
        values.transpose(0, 1)[:, None].expand(spread),
        attn_mask=torch.arange(limit, device=out.device) <= last,
        scale=shape.scale,
    )
    out[prefill.rows] = attended.permute(2, 0, 1, 3).reshape(tokens, shape.heads, shape.head_size)
