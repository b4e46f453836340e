"""How well the attention tables answer for what they have not, batch and context left out.

A point is left out alone, and with all of its batch or all of its context: then the table is
asked between rows twice as far apart as they were measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from simserve.inputs.hardware_profile import GpuSpec
from simserve.latency.importers.kernel_package import KernelTable
from simserve.latency.tables.attention_rows import Points
from simserve.latency.tables.left_out import ask_chunks, ask_decodes, points_left_out
from simserve.latency.tables.limits import AttentionLimit, Heads
from simserve.planning.validation.findings import FloatArray, Section, median_finding, signed_pct

_DECODE_BAR_PCT, _PREFILL_BAR_PCT = 2.0, 3.0
_KV = {"bfloat16": ("bf16", 2.0), "fp8": ("fp8", 1.0)}
_S_PER_MS = 1e-3
_WHOLE_AXES = ("a point", "a batch", "a context")


def attention_findings(
    decode: KernelTable, prefill: KernelTable, gpu: GpuSpec, head_size: int, section: Section
) -> None:
    """Add the findings on decode and prefill attention of heads of ``head_size``."""
    for left_out in range(len(_WHOLE_AXES)):
        pairs = [
            pair
            for points, limit in _by_heads(decode, head_size, gpu, "batch_size", "step", 1)
            for pair in points_left_out(points, limit, ask_decodes, left_out)
        ]
        what = f"decode attention, {_WHOLE_AXES[left_out]} left out"
        section.findings.append(median_finding(what, _errors(pairs), _DECODE_BAR_PCT))
    alone = prefill.where(batch_size=1)
    pairs = [
        pair
        for points, limit in _by_heads(alone, head_size, gpu, "isl", "step", 0)
        for pair in points_left_out(points, limit, ask_chunks, 1)
    ]
    what = "prefill attention of one prompt, a length left out"
    section.findings.append(median_finding(what, _errors(pairs), _PREFILL_BAR_PCT))


def _by_heads(
    table: KernelTable, head_size: int, gpu: GpuSpec, first: str, second: str, own_token: int
) -> Iterator[tuple[Points, AttentionLimit]]:
    """Yield the points of each number of heads, and their bound."""
    found: dict[tuple[int, int, float], Points] = {}
    for kv_dtype, (_, kv_bytes) in _KV.items():
        rows = table.where(head_dim=head_size, window_size=0, kv_cache_dtype=kv_dtype)
        names = ("num_heads", "num_key_value_heads", first, second, "latency")
        columns = [rows.columns[name].tolist() for name in names]
        for queries, keys, one, other, latency_ms in zip(*columns, strict=True):
            points = found.setdefault((queries, keys, kv_bytes), {})
            points[one, other + own_token] = latency_ms * _S_PER_MS
    for (queries, keys, kv_bytes), points in found.items():
        yield points, AttentionLimit(Heads(queries, keys, head_size), kv_bytes, gpu)


def _errors(pairs: Sequence[tuple[float, float]]) -> FloatArray:
    return signed_pct([one for one, _ in pairs], [one for _, one in pairs])
