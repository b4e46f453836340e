"""The shortest time that the datasheet allows each kernel: its roofline at full peak.

Per layer, in seconds. Every byte is moved once and every multiply-add done once, at the
datasheet's rates; measured ceilings are not used, so that no measurement is cut by another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from simserve.inputs.hardware_profile import GpuSpec
from simserve.latency.roofline_gemm import ACTIVATION_BYTES, SIXTEEN_BITS, flops_per_s

# A multiply-add is two operations; a pair of a query and a context token two per value of a
# head in QKᵀ and two in PV (FlashAttention-2, arXiv:2307.08691, section 3.1).
_MULTIPLY_ADD = 2.0
_ATTENTION_FLOPS = 4.0
# An elementwise kernel reads and writes each value at least once.
_READ_AND_WRITE = 2.0


@dataclass(frozen=True, slots=True)
class Heads:
    """The attention that one GPU computes: query heads, KV heads, and the size of a head."""

    queries: int
    keys: int
    size: int

    @property
    def shape(self) -> tuple[int, int]:
        """What decides how alike two of one size are: work and bytes."""
        return self.queries, self.keys


class AttentionLimit:
    """Lower bounds of the attention of one layer; KV of ``kv_bytes`` per value."""

    __slots__ = ("context_s", "heads", "kv_read_s", "pair_s", "query_s")

    def __init__(self, heads: Heads, kv_bytes: float, gpu: GpuSpec) -> None:
        bytes_per_s = gpu.hbm_bytes_per_s
        self.heads = heads
        self.pair_s = _ATTENTION_FLOPS * heads.queries * heads.size / flops_per_s(gpu, SIXTEEN_BITS)
        self.kv_read_s = 2 * heads.keys * heads.size * kv_bytes / bytes_per_s
        self.query_s = 2 * heads.queries * heads.size * ACTIVATION_BYTES / bytes_per_s
        self.context_s = max(self.kv_read_s, self.pair_s)

    def decode_s(self, batch: float, context: float) -> float:
        """Return the bound for ``batch`` decodes of ``context`` tokens each."""
        return batch * context * self.context_s

    def chunk_s(self, new: float, past: float) -> float:
        """Return the bound for a chunk of ``new`` tokens on top of ``past``."""
        return max(self.chunk_shares_s(new, past))

    def chunk_shares_s(self, new: float, past: float) -> tuple[float, float]:
        """Return what a chunk computes and what it moves, each as its bound."""
        compute_s = new * (past + 0.5 * (new + 1)) * self.pair_s
        memory_s = (past + new) * self.kv_read_s + new * self.query_s
        return compute_s, memory_s

    def mixed_s(self, decodes: float, context: float, past: float, new: float) -> float:
        """Return the bound for a chunk and decodes of ``context`` tokens each, in one call."""
        compute_s, memory_s = self.chunk_shares_s(new, past)
        tokens = decodes * context
        return max(compute_s + tokens * self.pair_s, memory_s + tokens * self.kv_read_s)


def gemm_limit(
    outputs: int, inputs: int, bytes_per_value: float, rate: float, gpu: GpuSpec
) -> Callable[[float], float]:
    """Return the bound of a GEMM over its rows, with ``rate`` in FLOP/s."""
    compute_s = _MULTIPLY_ADD * outputs * inputs / rate
    weights_s = outputs * inputs * bytes_per_value / gpu.hbm_bytes_per_s
    activations_s = (outputs + inputs) * ACTIVATION_BYTES / gpu.hbm_bytes_per_s
    return lambda rows: max(rows * compute_s, weights_s + rows * activations_s)


def elementwise_limit(width: int, gpu: GpuSpec) -> Callable[[float], float]:
    """Return the bound of an elementwise kernel over its tokens of ``width`` values."""
    token_s = _READ_AND_WRITE * width * ACTIVATION_BYTES / gpu.hbm_bytes_per_s
    return lambda tokens: tokens * token_s


def collective_limit(op: str, gpus: int, gpu: GpuSpec) -> Callable[[float], float]:
    """Return the bound of a collective over the bytes of its message.

    A ring moves ``2·(gpus − 1)/gpus`` of an all-reduce over each link, half of that for an
    all-gather (Patarasu and Yuan, JPDC 2009).
    """
    share = (2 if op == "all_reduce" else 1) * (gpus - 1) / gpus
    byte_s = share / gpu.link_bytes_per_s if gpu.link_bytes_per_s else 0.0
    return lambda message: message * byte_s
