"""Paged prefill attention in Triton: one launch for packed sequences of any lengths.

One program computes a tile of query tokens of one sequence for all query heads of one KV head.
Which sequence a program serves is searched on the device, so the grid depends on the numbers of
tokens and sequences alone. The method is FlashAttention-2 (arXiv 2307.08691); the search and
the packing of query heads are those of vLLM's Triton backend (arXiv 2511.11581).
"""

# Triton has no types, and a kernel's arguments are pointers, numbers and constants.
# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def"
from __future__ import annotations

from typing import Final

import torch
import triton
import triton.language as tl

from calibrate.kernels.interface import AttentionShape, PagedBatch
from calibrate.kernels.triton_softmax import LOG2_E, attend, dot_precision

TILE_ROWS: Final = 128  # query tokens times query heads of a group
BLOCK_N: Final = 64  # KV tokens of one product
NUM_WARPS: Final = 8
NUM_STAGES: Final = 3


@triton.jit
def sequence_of(query_start, tile, seqs, TILE: tl.constexpr):
    """Return the last sequence whose first tile is not above ``tile``, by bisection.

    Sequence i starts at tile query_start[i] // TILE + i: room for its last, partial tile.
    """
    low = 0
    high = seqs
    while low < high:
        middle = (low + high) // 2
        if tl.load(query_start + middle) // TILE + middle <= tile:
            low = middle + 1
        else:
            high = middle
    return low - 1


@triton.jit(do_not_specialize=["seqs", "table_row"])
def prefill_kernel(
    query, key_cache, value_cache, out, block_table, context_lens, query_start, seqs,
    scale_log2, query_row, query_head, out_row, table_row,
    key_block, key_token, key_head, value_block, value_token, value_head,
    GROUP: tl.constexpr, HEAD_SIZE: tl.constexpr, PADDED_SIZE: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, TILE_ROWS: tl.constexpr, BLOCK_N: tl.constexpr,
    SKIP_DECODES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Attend for one tile. The grid is (tokens // TILE + seqs, KV heads)."""
    TILE: tl.constexpr = TILE_ROWS // GROUP  # query tokens
    kv_head = tl.program_id(1)
    # Late tiles see the most keys: they start first.
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    seq = sequence_of(query_start, tile, seqs, TILE)
    first_row = tl.load(query_start + seq)
    new = tl.load(query_start + seq + 1) - first_row
    first = (tile - (first_row // TILE + seq)) * TILE  # within the new tokens
    if first >= new:
        return
    if SKIP_DECODES and new == 1:
        return
    past = tl.load(context_lens + seq) - new

    rows = tl.arange(0, TILE_ROWS)
    dims = tl.arange(0, PADDED_SIZE)
    token = first + rows // GROUP
    heads = kv_head * GROUP + rows % GROUP
    real_row = (token < new) & (rows < TILE * GROUP)
    real_dim = dims < HEAD_SIZE
    both = real_row[:, None] & real_dim[None, :]
    row = (first_row + token).to(tl.int64)
    q = tl.load(
        query + (row * query_row + heads * query_head)[:, None] + dims[None, :],
        mask=both, other=0.0,
    )  # fmt: skip
    # Idle rows see what the first row sees, so that no softmax is over nothing.
    last_visible = past + tl.where(real_row, token, first)
    end = past + tl.minimum(first + TILE, new)
    shared = (past + first + 1) // BLOCK_N * BLOCK_N  # visible to every row

    table = block_table + seq.to(tl.int64) * table_row
    key_base = key_cache + kv_head * key_head + dims[None, :]
    value_base = value_cache + kv_head * value_head + dims[None, :]
    best = tl.full([TILE_ROWS], float("-inf"), tl.float32)
    total = tl.zeros([TILE_ROWS], tl.float32)
    summed = tl.zeros([TILE_ROWS, PADDED_SIZE], tl.float32)
    best, total, summed = attend(
        q, best, total, summed, 0, shared, key_base, value_base, table, last_visible,
        scale_log2, key_block, key_token, value_block, value_token, real_dim,
        BLOCK_SIZE, BLOCK_N, False, PRECISION,
    )  # fmt: skip
    best, total, summed = attend(
        q, best, total, summed, shared, end, key_base, value_base, table, last_visible,
        scale_log2, key_block, key_token, value_block, value_token, real_dim,
        BLOCK_SIZE, BLOCK_N, True, PRECISION,
    )  # fmt: skip
    result = (summed / total[:, None]).to(out.dtype.element_ty)
    tl.store(out + (row * out_row + heads * HEAD_SIZE)[:, None] + dims[None, :], result, mask=both)


def run_prefill(
    shape: AttentionShape,
    batch: PagedBatch,
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    out: torch.Tensor,
    skip_decodes: bool,
) -> None:
    """Launch for all sequences, or for those with more than one new token."""
    group = shape.heads // shape.kv_heads
    tiles = batch.tokens // (TILE_ROWS // group) + batch.seqs
    prefill_kernel[(tiles, shape.kv_heads)](
        query, key_cache, value_cache, out,
        batch.block_table, batch.context_lens, batch.query_start, batch.seqs,
        shape.scale * LOG2_E, query.stride(0), query.stride(1), out.stride(0),
        batch.block_table.stride(0), *key_cache.stride()[:3], *value_cache.stride()[:3],
        GROUP=group, HEAD_SIZE=shape.head_size,
        PADDED_SIZE=triton.next_power_of_2(shape.head_size), BLOCK_SIZE=shape.block_size,
        TILE_ROWS=TILE_ROWS, BLOCK_N=BLOCK_N, SKIP_DECODES=skip_decodes,
        PRECISION=dot_precision(shape.dtype), num_warps=NUM_WARPS, num_stages=NUM_STAGES,
    )  # fmt: skip
