"""Which regime a decode was measured in: FlashAttention-2 splits the KV of small batches only.

A call with a prefill chunk has one regime, without a name: there KV is never split. The rule is
that of ``latency.tables.attention_rows``; it takes the GPU's multiprocessors.
"""

from __future__ import annotations

from simserve.latency.tables.attention_rows import SPLIT, UNSPLIT

# FlashAttention-2, num_splits_heuristic: no split once this many of the block slots, of which
# an SM has two, are taken by heads of requests.
_FULL_SHARE, _BLOCKS_PER_SM = 0.8, 2
# Streaming multiprocessors: NVIDIA's data sheets (cores / 128, for A100 cores / 64).
_SMS = {
    "a100-40gb-sxm": 108,
    "a100-80gb-pcie": 108,
    "a100-80gb-sxm": 108,
    "l40s": 142,
    "rtx-4090": 128,
    "rtx-pro-6000-server": 188,
}


def multiprocessors(gpu: str) -> int | None:
    """Return the multiprocessors of a GPU of ours, None if they are not known here."""
    return _SMS.get(gpu)


def flash_attention_2(gpu: str, batch: int, kv_heads: int) -> str:
    """Return the regime of a decode, "" if the GPU's multiprocessors are not known."""
    sms = multiprocessors(gpu)
    if sms is None:
        return ""
    return SPLIT if batch * kv_heads < _FULL_SHARE * _BLOCKS_PER_SM * sms else UNSPLIT
