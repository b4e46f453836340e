"""Paged decode attention in Triton: the KV of a sequence is split among programs, then combined.

One program streams one share of the keys and values of one KV head, for all query heads that
read it (packed as the rows of one matrix product). Lengths and pages are read on the device, and
the grid depends on the number of sequences alone: a captured launch serves any lengths.
The method is flash decoding (Dao et al., 2023).
"""

# Triton has no types, and a kernel's arguments are pointers, numbers and constants.
# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def"
from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Final

import torch
import triton
import triton.language as tl

from calibrate.kernels.interface import AttentionShape, PagedBatch
from calibrate.kernels.triton_softmax import LOG2_E, attend, dot_precision

ROWS: Final = 16  # the least rows of a matrix product in Triton; heads beyond the group are idle
BLOCK_N: Final = 64  # KV tokens of one product: 16 KiB of keys at 128 bf16 values a head
SHARE_STEP: Final = 128  # a share of a context is a multiple of this many tokens
NUM_WARPS: Final = 4
NUM_STAGES: Final = 3
COMBINED: Final = 16  # shares that the second kernel reads at a time
MAX_SPLITS: Final = 256
# Programs that one multiprocessor of an H100 or H200 holds: four take all its 65,536 registers, of
# which the compiler gives this kernel 128 a thread at heads of 128.
PROGRAMS_PER_SM: Final = 4
H200_SMS: Final = 132  # for plans without a GPU (compile checks, the interpreter)
GOOD_ENOUGH: Final = 0.85  # of the best wave efficiency, as FlashAttention-2's heuristic has it


@triton.jit
def share_of(context, splits, STEP: tl.constexpr):
    """Return the tokens of one share: equal shares, in steps, of one sequence's context."""
    return tl.cdiv(tl.cdiv(context, splits), STEP) * STEP


# Not specialised: what changes with the batch, so that no new batch compiles anew.
@triton.jit(do_not_specialize=["table_row"])
def decode_kernel(
    query, key_cache, value_cache, out, partial, log_sums,
    block_table, context_lens, query_start,
    scale_log2, query_row, query_head, out_row, table_row,
    key_block, key_token, key_head, value_block, value_token, value_head,
    HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_SIZE: tl.constexpr, PADDED_SIZE: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, ROWS: tl.constexpr, BLOCK_N: tl.constexpr, STEP: tl.constexpr,
    SPLIT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Attend over one share of one sequence for one KV head.

    The grid is (sequences, KV heads, shares). With ``SPLIT`` the share's unscaled result and
    the log2 of its sum of weights go to ``partial`` and ``log_sums``, else the result to ``out``.
    """
    seq = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    splits = tl.num_programs(2)
    first_row = tl.load(query_start + seq)
    if tl.load(query_start + seq + 1) - first_row != 1:
        return  # a prefill: another kernel's
    context = tl.load(context_lens + seq)
    share = share_of(context, splits, STEP)
    start = split * share
    if start >= context:
        return
    rows = tl.arange(0, ROWS)
    dims = tl.arange(0, PADDED_SIZE)
    real_row = rows < GROUP
    real_dim = dims < HEAD_SIZE
    heads = kv_head * GROUP + rows
    row = first_row.to(tl.int64)
    q = tl.load(
        query + row * query_row + heads[:, None] * query_head + dims[None, :],
        mask=real_row[:, None] & real_dim[None, :], other=0.0,
    )  # fmt: skip
    best, total, summed = attend(
        q,
        tl.full([ROWS], float("-inf"), tl.float32),
        tl.zeros([ROWS], tl.float32),
        tl.zeros([ROWS, PADDED_SIZE], tl.float32),
        start, tl.minimum(start + share, context),
        key_cache + kv_head * key_head + dims[None, :],
        value_cache + kv_head * value_head + dims[None, :],
        block_table + seq.to(tl.int64) * table_row,
        tl.zeros([ROWS], tl.int32) + context,  # every row sees the whole share
        scale_log2, key_block, key_token, value_block, value_token, real_dim,
        BLOCK_SIZE, BLOCK_N, True, PRECISION,
    )  # fmt: skip
    result = summed / total[:, None]
    written = real_row[:, None] & real_dim[None, :]
    if SPLIT:
        place = (seq.to(tl.int64) * HEADS + heads) * splits + split
        tl.store(partial + place[:, None] * HEAD_SIZE + dims[None, :], result, mask=written)
        tl.store(log_sums + place, best + tl.log2(total), mask=real_row)
    else:
        target = out + row * out_row + heads[:, None] * HEAD_SIZE + dims[None, :]
        tl.store(target, result.to(out.dtype.element_ty), mask=written)


@triton.jit(do_not_specialize=["splits"])
def combine_kernel(
    partial, log_sums, out, context_lens, query_start, splits, out_row,
    HEADS: tl.constexpr, HEAD_SIZE: tl.constexpr, PADDED_SIZE: tl.constexpr,
    STEP: tl.constexpr, COMBINED: tl.constexpr,
):  # fmt: skip
    """Combine the shares of one head of one sequence. The grid is (sequences, heads)."""
    seq = tl.program_id(0)
    head = tl.program_id(1)
    first_row = tl.load(query_start + seq)
    if tl.load(query_start + seq + 1) - first_row != 1:
        return
    context = tl.load(context_lens + seq)
    shares = tl.cdiv(context, share_of(context, splits, STEP))
    dims = tl.arange(0, PADDED_SIZE)
    real_dim = dims < HEAD_SIZE
    row = first_row.to(tl.int64)
    first = (seq.to(tl.int64) * HEADS + head) * splits
    best = tl.full([1], float("-inf"), tl.float32)
    total = tl.zeros([1], tl.float32)
    summed = tl.zeros([PADDED_SIZE], tl.float32)
    for begin in range(0, shares, COMBINED):
        split = begin + tl.arange(0, COMBINED)
        real = split < shares
        log_sum = tl.load(log_sums + first + split, mask=real, other=float("-inf"))
        values = tl.load(
            partial + (first + split)[:, None] * HEAD_SIZE + dims[None, :],
            mask=real[:, None] & real_dim[None, :], other=0.0,
        )  # fmt: skip
        peak = tl.maximum(best, tl.max(log_sum, 0))
        weights = tl.exp2(log_sum - peak)
        decay = tl.exp2(best - peak)
        total = total * decay + tl.sum(weights, 0)
        summed = summed * decay + tl.sum(values * weights[:, None], 0)
        best = peak
    result = summed / total
    tl.store(
        out + row * out_row + head * HEAD_SIZE + dims,
        result.to(out.dtype.element_ty), mask=real_dim,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """The grid of one decode launch and the memory for its shares."""

    shape: AttentionShape
    batch: PagedBatch
    splits: int
    partial: torch.Tensor  # float32[seqs, heads, splits, head_size]
    log_sums: torch.Tensor  # float32[seqs, heads, splits]


@functools.cache
def choose_splits(decodes: int, kv_heads: int, sms: int) -> int:
    """Return into how many shares each context is cut, at most: a share is never below a step.

    The fewest whose programs fill whole waves of the GPU nearly as well as any number does
    (FlashAttention-2's rule). The lengths have no say: an engine captures a graph for a number
    of sequences, whatever their lengths will be, and what is measured must be what it launches.
    vLLM's Triton backend decides by the number of sequences, too.
    """
    slots = sms * PROGRAMS_PER_SM

    def filled(splits: int) -> float:
        waves = decodes * kv_heads * splits / slots
        return waves / -(-waves // 1)

    efficiencies = [filled(splits) for splits in range(1, MAX_SPLITS + 1)]
    goal = GOOD_ENOUGH * max(efficiencies)
    return next(n for n, reached in enumerate(efficiencies, start=1) if reached >= goal)


def plan_decode(shape: AttentionShape, batch: PagedBatch) -> DecodePlan:
    """Choose the splits and allocate the memory for their results."""
    device = batch.block_table.device
    sms = H200_SMS
    if device.type == "cuda":
        sms = torch.cuda.get_device_properties(device).multi_processor_count
    splits = choose_splits(batch.query_tokens.count(1), shape.kv_heads, sms)
    rows = batch.seqs if splits > 1 else 0
    partial = torch.empty(
        (rows, shape.heads, splits, shape.head_size), dtype=torch.float32, device=device
    )
    log_sums = torch.empty((rows, shape.heads, splits), dtype=torch.float32, device=device)
    return DecodePlan(shape, batch, splits, partial, log_sums)


def run_decode(
    planned: DecodePlan,
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """Launch the decode, and the combination if contexts are split."""
    shape, batch = planned.shape, planned.batch
    common: dict[str, Any] = {
        "HEADS": shape.heads,
        "HEAD_SIZE": shape.head_size,
        "PADDED_SIZE": triton.next_power_of_2(shape.head_size),
        "STEP": SHARE_STEP,
    }
    group = shape.heads // shape.kv_heads
    decode_kernel[(batch.seqs, shape.kv_heads, planned.splits)](
        query, key_cache, value_cache, out, planned.partial, planned.log_sums,
        batch.block_table, batch.context_lens, batch.query_start,
        shape.scale * LOG2_E, query.stride(0), query.stride(1), out.stride(0),
        batch.block_table.stride(0), *key_cache.stride()[:3], *value_cache.stride()[:3],
        GROUP=group, BLOCK_SIZE=shape.block_size, ROWS=max(ROWS, triton.next_power_of_2(group)),
        BLOCK_N=BLOCK_N, SPLIT=planned.splits > 1, PRECISION=dot_precision(shape.dtype),
        num_warps=NUM_WARPS, num_stages=NUM_STAGES, **common,
    )  # fmt: skip
    if planned.splits > 1:
        combine_kernel[(batch.seqs, shape.heads)](
            planned.partial, planned.log_sums, out, batch.context_lens, batch.query_start,
            planned.splits, out.stride(0), COMBINED=COMBINED, num_warps=NUM_WARPS, **common,
        )  # fmt: skip
