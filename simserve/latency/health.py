"""How far a profile's tables can be trusted: rows left out, and where a run leans on them.

Three answers. How well each table answers for a row that is left out. Which points of which
operator a run spent its simulated time on, and where their times come from. Which points,
measured, would take most doubt out of that run: share of time times how far off its source
tends to be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simserve.inputs.hardware_profile import GpuSpec
from simserve.latency.roofline_gemm import flops_per_s
from simserve.latency.tables.answers import EXACT, HOST, INTERP, ROOFLINE
from simserve.latency.tables.attention_rows import Points
from simserve.latency.tables.csv_file import Row
from simserve.latency.tables.curve import Curve
from simserve.latency.tables.left_out import (
    SizePoints,
    ask_chunks,
    ask_decodes,
    points_left_out,
    sizes_left_out,
)
from simserve.latency.tables.limits import (
    AttentionLimit,
    Heads,
    collective_limit,
    elementwise_limit,
    gemm_limit,
)
from simserve.latency.tables.profile import Profile
from simserve.latency.tables.source_shares import sampled_steps
from simserve.latency.tables.table_model import TableModel
from simserve.records.step import StepShape
from simserve.records.step_log import StepLog

PERCENT = 100.0
# What no table has: how far off rooflines are for small kernels and odd shapes; an assumption
# that only orders the points.
_ROOFLINE_PCT = 25.0
_BYTES = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0}
_PACKED_BYTES = 0.5
_FEWEST_SIZES = 4
_FP8 = "fp8"


@dataclass(frozen=True, slots=True)
class TableHealth:
    """The sizes of a table's errors on rows left out one at a time, in percent.

    ``rows`` is all of the table, ``asked`` the rows that have others on either side.
    """

    table: str
    rows: int
    asked: int
    p50_pct: float
    p90_pct: float


@dataclass(frozen=True, slots=True)
class Use:
    """One point of an operator: the share of a run's time, its source, and how far to trust it.

    ``doubt_pct`` is the share times the error that the source tends to have, in percent of the
    run's time.
    """

    operator: str
    point: str
    share: float
    source: str
    doubt_pct: float


def table_health(profile: Profile, gpu: GpuSpec) -> list[TableHealth]:
    """Return the health of every table whose rows can be left out one at a time."""
    found = []
    for name, asked in _ASKED.items():
        table = profile.tables.get(name)
        if table is None:
            continue
        pairs = list(asked(table.rows, gpu))
        if pairs:
            predicted, measured = np.array(pairs).T
            sizes = np.abs(predicted / measured - 1) * PERCENT
            p50, p90 = np.percentile(sizes, (50, 90)).tolist()
            found.append(TableHealth(name, len(table.rows), len(pairs), p50, p90))
    return found


def uses_of_run(
    model: TableModel, logs: Sequence[StepLog], health: Sequence[TableHealth]
) -> list[Use]:
    """Return the points that a run was priced at, the most doubtful first.

    Steps are sampled as for the shares by source; neighbours are told as one point, to the
    nearest of four per doubling.
    """
    by_table = {one.table: one for one in health}
    found: dict[tuple[str, str, str], float] = {}
    for shape, weight in sampled_steps(logs):
        parts = [part for part in model.parts(shape) if part.source != HOST]
        total_s = sum(part.seconds for part in parts)
        for part in parts:
            key = part.operator, _point(model, part.operator, shape), part.source
            found[key] = found.get(key, 0.0) + weight * part.seconds / total_s
    uses = [
        Use(operator, point, share, source, share * _error_pct(operator, source, by_table))
        for (operator, point, source), share in found.items()
    ]
    return sorted(uses, key=lambda one: (-one.doubt_pct, one.operator, one.point))


def next_measurements(uses: Sequence[Use], most: int = 10) -> list[Use]:
    """Return the points to measure next: those not measured yet, the most doubtful first."""
    return [one for one in uses if one.source != EXACT][:most]


def _error_pct(operator: str, source: str, health: Mapping[str, TableHealth]) -> float:
    """Return how far off a source tends to be: between rows the table's median, beyond its p90."""
    if source == ROOFLINE:
        return _ROOFLINE_PCT
    table = health.get(_TABLE_OF.get(operator, "gemm"))
    if table is None or source == EXACT:
        return 0.0
    return table.p50_pct if source == INTERP else table.p90_pct


_TABLE_OF = {
    "attn_decode": "attn_decode",
    "attn_prefill": "attn_prefill",
    "attn_mixed": "attn_mixed",
    "all_reduce": "comm",
    "all_gather": "comm",
    "experts": "moe",
} | dict.fromkeys(("norm", "rope_store", "act", "embed", "sample", "qk_norm"), "pointwise")


def _point(model: TableModel, operator: str, shape: StepShape) -> str:
    """Return where on its table an operator of a step stands, in words."""
    decodes = shape.decode_seqs
    context = _near(shape.decode_context_tokens / decodes) if decodes else 0
    chunk = f"{_near(shape.prefill[0][0])} on {_near(shape.prefill[0][1])}" if shape.prefill else ""
    if operator == "attn_decode":
        return f"{_near(decodes)} decodes of {context} tokens"
    if operator == "attn_prefill":
        return f"chunk of {chunk}"
    if operator == "attn_mixed":
        return f"chunk of {chunk} beside {_near(decodes)} decodes of {context}"
    if operator in model.by_sequences:
        return f"{_near(shape.seqs)} sequences"
    return f"{_near(model.padded_tokens(shape))} tokens"


def _near(size: float) -> int:
    """Return the nearest of four sizes per doubling."""
    return round(2 ** (round(4 * np.log2(size)) / 4)) if size > 0 else 0


def _gemm_pairs(rows: Sequence[Row], gpu: GpuSpec) -> Iterator[tuple[float, float]]:
    for (dtype, _, n, k), points in _by(rows, ("dtype", "backend", "n", "k"), "m").items():
        name = str(dtype)
        rate = flops_per_s(gpu, name if name in gpu.flops_per_s else "bf16")
        limit = gemm_limit(int(n), int(k), _BYTES.get(name, _PACKED_BYTES), rate, gpu)
        if len(points) >= _FEWEST_SIZES:
            yield from sizes_left_out(points, limit)


def _pointwise_pairs(rows: Sequence[Row], gpu: GpuSpec) -> Iterator[tuple[float, float]]:
    for (_, width, _), points in _by(rows, ("op", "width", "dtype"), "tokens").items():
        yield from _curve_pairs(points, elementwise_limit(int(width), gpu))


def _comm_pairs(rows: Sequence[Row], gpu: GpuSpec) -> Iterator[tuple[float, float]]:
    for (op, _, gpus, _), points in _by(rows, ("op", "impl", "gpus", "graph"), "bytes").items():
        yield from _curve_pairs(points, collective_limit(str(op), int(gpus), gpu))


def _moe_pairs(rows: Sequence[Row], gpu: GpuSpec) -> Iterator[tuple[float, float]]:
    del gpu
    keys = ("dtype", "experts", "topk", "hidden", "inter", "tp", "ep", "routing")
    for points in _by(rows, keys, "tokens").values():
        yield from _curve_pairs(points, lambda _: 0.0)


def _curve_pairs(
    points: SizePoints, limit: Callable[[float], float]
) -> Iterator[tuple[float, float]]:
    sizes = sorted(points)
    for size in sizes[1:-1]:
        others = [one for one in sizes if one != size]
        yield Curve(others, [points[one] for one in others], limit).seconds(size), points[size]


def _decode_pairs(rows: Sequence[Row], gpu: GpuSpec) -> Iterator[tuple[float, float]]:
    even = [row for row in rows if row.keys["shape"] == "uniform"]
    for limit, points in _attention(even, ("batch", "ctx"), gpu):
        yield from points_left_out(points, limit, ask_decodes, 0)


def _prefill_pairs(rows: Sequence[Row], gpu: GpuSpec) -> Iterator[tuple[float, float]]:
    alone = [row for row in rows if row.keys["n_req"] == 1]
    for limit, points in _attention(alone, ("q", "past"), gpu):
        whole_axis = 0 if len({past for _, past in points}) > 1 else 1
        yield from points_left_out(points, limit, ask_chunks, whole_axis)


def _attention(
    rows: Sequence[Row], axes: tuple[str, str], gpu: GpuSpec
) -> Iterator[tuple[AttentionLimit, Points]]:
    """Yield the points of every kind of heads in every regime, and their bound."""
    alike = ("backend", "q_dtype", "kv_dtype", "hq", "hkv", "d", "regime", "window")
    found: dict[tuple[object, ...], Points] = {}
    for row in rows:
        key = tuple(row.keys[name] for name in alike)
        point = row.number(axes[0]), row.number(axes[1])
        found.setdefault(key, {})[point] = row.seconds
    for heads_key, points in found.items():
        _, _, kv_dtype, queries, keys, size, _, _ = heads_key
        kv_bytes = 1.0 if kv_dtype == _FP8 else 2.0
        heads = Heads(int(str(queries)), int(str(keys)), int(str(size)))
        yield AttentionLimit(heads, kv_bytes, gpu), points


def _by(
    rows: Sequence[Row], keys: tuple[str, ...], size: str
) -> dict[tuple[str | int | float, ...], SizePoints]:
    found: dict[tuple[str | int | float, ...], SizePoints] = {}
    for row in rows:
        key = tuple(row.keys[name] for name in keys)
        found.setdefault(key, {})[row.number(size)] = row.seconds
    return found


_ASKED: Mapping[str, Callable[[Sequence[Row], GpuSpec], Iterator[tuple[float, float]]]] = {
    "gemm": _gemm_pairs,
    "attn_decode": _decode_pairs,
    "attn_prefill": _prefill_pairs,
    "moe": _moe_pairs,
    "pointwise": _pointwise_pairs,
    "comm": _comm_pairs,
}
