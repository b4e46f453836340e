"""The loop that decode and prefill share: pages of keys and values into a running softmax.

The method is FlashAttention-2's (arXiv 2307.08691).
"""

# Triton has no types, and a kernel's arguments are pointers, numbers and constants.
# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def"
from __future__ import annotations

from typing import Final

import torch
import triton
import triton.language as tl

LOG2_E: Final = 1.4426950408889634


@triton.jit
def attend(
    q, best, total, summed, begin, end, key_base, value_base, table, last_visible,
    scale_log2, key_block, key_token, value_block, value_token, real_dim,
    BLOCK_SIZE: tl.constexpr, BLOCK_N: tl.constexpr, MASKED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Take the KV tokens from ``begin`` to ``end`` into the running softmax.

    ``last_visible`` is the last token that each row may see; only ``MASKED`` asks for it, else
    every token is visible to every row.
    """
    tokens = tl.arange(0, BLOCK_N)
    for first in range(begin, end, BLOCK_N):
        at = first + tokens
        real = at < end
        block = tl.load(table + at // BLOCK_SIZE, mask=real, other=0).to(tl.int64)
        inside = at % BLOCK_SIZE
        loaded = real[:, None] & real_dim[None, :]
        k = tl.load(
            key_base + (block * key_block + inside * key_token)[:, None], mask=loaded, other=0.0
        ).to(q.dtype)
        v = tl.load(
            value_base + (block * value_block + inside * value_token)[:, None],
            mask=loaded, other=0.0,
        ).to(q.dtype)  # fmt: skip
        logits = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale_log2
        if MASKED:
            visible = (at[None, :] <= last_visible[:, None]) & real[None, :]
            logits = tl.where(visible, logits, float("-inf"))
        peak = tl.maximum(best, tl.max(logits, 1))
        weights = tl.exp2(logits - peak[:, None])
        decay = tl.exp2(best - peak)
        total = total * decay + tl.sum(weights, 1)
        summed = summed * decay[:, None]
        summed = tl.dot(weights.to(q.dtype), v, summed, input_precision=PRECISION)
        best = peak
    return best, total, summed


def dot_precision(dtype: torch.dtype) -> str:
    """Return how Triton multiplies: float32 exactly, not in the rounded tf32 format."""
    return "ieee" if dtype == torch.float32 else "tf32"
