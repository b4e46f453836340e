"""Leaves out one measured point after the other, and predicts it as the simulator would.

What this tells is the error between rows: of the table's grid, and of the interpolation, with
the noise of the point itself in it. Only inner points count: beyond the last nothing is between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from calibrate.device_spec import spec_of
from calibrate.measure.journal import Entry
from calibrate.plans.kernels_of import VALUE_BYTES
from calibrate.results import Results
from simserve.inputs.hardware_profile import GpuSpec
from simserve.latency.roofline_gemm import flops_per_s
from simserve.latency.tables.attention_rows import decode_grid
from simserve.latency.tables.chunk_grids import chunk_grid
from simserve.latency.tables.curve import Curve, Limit
from simserve.latency.tables.grid import Grid
from simserve.latency.tables.limits import (
    AttentionLimit,
    Heads,
    elementwise_limit,
    gemm_limit,
)
from simserve.latency.tables.mixed import build_surface

_US = 1e-6
_GEMM, _POINTWISE, _MOE = "gemm", "pointwise", "moe"
_DECODE, _PREFILL, _MIXED = "attn_decode", "attn_prefill", "attn_mixed"
_AXES: Mapping[str, tuple[str, ...]] = {
    _GEMM: ("m",),
    _POINTWISE: ("tokens",),
    _MOE: ("tokens",),
    _DECODE: ("batch", "ctx"),
    _PREFILL: ("q", "past"),
    _MIXED: ("n_dec", "ctx", "past", "q"),
}
"""The sizes that each table is interpolated over."""
# Keys that follow from the others, and so do not tell one curve from another.
_DERIVED = ("sum_ctx", "max_ctx", "cv", "active", "max_load")

_NO_INSIDE = 2

Place = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One point, its measured and its predicted time, and its neighbours on each axis."""

    entry: Entry
    predicted_s: float
    between: tuple[tuple[int, int] | None, ...]

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return float(self.predicted_s / (self.entry["us_p50"] * _US) - 1)


def curves(results: Results, table: str) -> Iterator[dict[Place, Entry]]:
    """Yield the points of each curve, grid or surface of a table, by their place."""
    axes = _AXES[table]
    found: dict[tuple[object, ...], dict[Place, Entry]] = {}
    for entry in results.measured(table):
        keys = entry["keys"]
        if keys.get("shape", "uniform") != "uniform" or keys.get("n_req", 1) != 1:
            continue
        rest = tuple(
            (key, value) for key, value in keys.items() if key not in axes and key not in _DERIVED
        )
        found.setdefault(rest, {})[tuple(int(keys[axis]) for axis in axes)] = entry
    yield from found.values()


def left_out(results: Results, table: str, gpu: str) -> list[LeftOut]:
    """Return every inner point of a table with its prediction from the others."""
    spec = spec_of(gpu)
    found = []
    for points in curves(results, table):
        some = next(iter(points.values()))
        predict = _predictor(table, some["keys"], spec)
        sizes = [sorted({place[axis] for place in points}) for axis in range(len(_AXES[table]))]
        for place, entry in points.items():
            between = _between(place, sizes)
            if between is None:
                continue
            others = {other: one["us_p50"] * _US for other, one in points.items() if other != place}
            predicted_s = predict(others, place)
            if predicted_s is not None:
                found.append(LeftOut(entry, predicted_s, between))
    return found


def axes_of(table: str) -> tuple[str, ...]:
    """Return the names of the sizes of a table."""
    return _AXES[table]


TABLES = tuple(_AXES)


def _between(place: Place, sizes: Sequence[list[int]]) -> tuple[tuple[int, int] | None, ...] | None:
    """Return the neighbours on each axis; None for a point on an edge.

    An axis of one or two sizes has no inside: there the others must have.
    """
    found: list[tuple[int, int] | None] = []
    for size, known in zip(place, sizes, strict=True):
        at = known.index(size)
        if len(known) <= _NO_INSIDE:
            found.append(None)
        elif 0 < at < len(known) - 1:
            found.append((known[at - 1], known[at + 1]))
        else:
            return None
    return tuple(found) if any(found) else None


Predict = Callable[[dict[Place, float], Place], float | None]


def _predictor(table: str, keys: Mapping[str, object], spec: GpuSpec) -> Predict:
    if table in (_GEMM, _POINTWISE, _MOE):
        limit = _curve_limit(table, keys, spec)
        return lambda others, place: _on_curve(others, place, limit)
    bound = _attention_limit(keys, spec)
    if table == _MIXED:
        return lambda others, place: _on_surface(others, place, bound)
    grid_of = decode_grid if table == _DECODE else chunk_grid
    return lambda others, place: _on_grid(
        grid_of({(row, column): s for (row, column), s in others.items()}, bound), place
    )


def _on_curve(others: dict[Place, float], place: Place, limit: Limit) -> float:
    sizes = sorted(size for (size,) in others)
    return Curve(sizes, [others[size,] for size in sizes], limit).seconds(place[0])


def _on_grid(grid: Grid, place: Place) -> float | None:
    row, column = place
    if row not in grid.rows or column not in grid.columns:
        return None
    return grid.times[grid.rows.index(row)][grid.columns.index(column)]


def _on_surface(others: dict[Place, float], place: Place, limit: AttentionLimit) -> float | None:
    points = {(n, ctx, past, q): seconds for (n, ctx, past, q), seconds in others.items()}
    surface = build_surface(points, limit)
    if any(size not in axis for size, axis in zip(place, surface.axes, strict=True)):
        return None
    at = tuple(axis.index(size) for size, axis in zip(place, surface.axes, strict=True))
    return float(surface.times[at])


def _curve_limit(table: str, keys: Mapping[str, object], spec: GpuSpec) -> Limit:
    if table == _GEMM:
        dtype = str(keys["dtype"])
        shape = int(str(keys["n"])), int(str(keys["k"]))
        return gemm_limit(*shape, VALUE_BYTES[dtype], flops_per_s(spec, dtype), spec)
    if table == _POINTWISE:
        return elementwise_limit(int(str(keys["width"])), spec)
    return lambda _: 0.0


def _attention_limit(keys: Mapping[str, object], spec: GpuSpec) -> AttentionLimit:
    queries, kv_heads, size = (int(str(keys[key])) for key in ("hq", "hkv", "d"))
    return AttentionLimit(Heads(queries, kv_heads, size), VALUE_BYTES[str(keys["kv_dtype"])], spec)
