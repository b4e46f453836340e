"""Routed experts from ``moe.csv``: both of their matrices and what is between them, by tokens.

Rows are of one layer on one GPU. A shape is hidden size, an expert's size on one GPU, experts,
and experts per token; one that was not measured takes the utilisation of the nearest two.
How tokens spread over experts is part of a row (``routing``): rows of one kind are used, those
that the profile names (``use.moe``), else ``balanced``, which routers are trained for.
"""

from __future__ import annotations

from pathlib import Path

from simserve.errors import InputError
from simserve.inputs.model_matrices import GATED_MATRICES
from simserve.inputs.model_shape import Experts
from simserve.latency.roofline_gemm import flops_per_s
from simserve.latency.tables.answers import Answer
from simserve.latency.tables.csv_file import Row, Table
from simserve.latency.tables.curve import (
    MOST_OCTAVES,
    Curve,
    Limit,
    Shape,
    nearest_shapes,
    transferred,
)
from simserve.latency.tables.gemms import Operator
from simserve.latency.tables.profile import HEAD
from simserve.latency.tables.selection import Setting

TABLE, BALANCED = "moe", "balanced"
_MULTIPLY_ADD = 2.0
_SIXTEEN_BITS = ("bf16", "fp16")


def routed_experts(setting: Setting) -> Operator | None:
    """Return the answer of all layers' routed experts, by tokens; None if no table has any.

    Raises:
        InputError: if the table has not the experts' dtype, or none within two octaves.
    """
    table, experts = setting.profile.tables.get(TABLE), setting.model.experts
    if table is None or experts is None:
        return None
    method, gemm_dtype = _dtype(setting)
    rows = setting.of_dtype(table, "dtype", *((method,) if method else _SIXTEEN_BITS))
    rows = _of_routing(setting, table, [row for row in rows if row.keys["ep"] == 1])
    by_shape: dict[Shape, dict[int, float]] = {}
    for row in rows:
        if row.number("inter") % row.number("tp") == 0:
            by_shape.setdefault(_shape(row), {})[row.number("tokens")] = row.seconds
    if not by_shape:
        return None
    rate = flops_per_s(setting.gpu, gemm_dtype)
    per_value = _bytes_per_value(setting)
    curves = {
        shape: Curve(
            sorted(points),
            [points[m] for m in sorted(points)],
            _limit(shape, per_value, rate, setting),
        )
        for shape, points in by_shape.items()
    }
    wanted = _wanted(setting, experts)
    curve = curves.get(wanted)
    if curve is None:
        distance, near = nearest_shapes(wanted, curves)[0]
        if distance > MOST_OCTAVES and not setting.allow_extrapolation:
            allowed = (
                f"a shape within {MOST_OCTAVES:g} octaves of a measured one; the nearest, "
                f"{' × '.join(map(str, near))}, is {distance:.1f} away (or --allow-extrapolation)"
            )
            got = " × ".join(map(str, wanted))
            raise InputError(table.where, "hidden × inter / tp × experts × topk", got, allowed)
        curve = transferred(wanted, _limit(wanted, per_value, rate, setting), curves)
    layers, found = experts.layers, curve

    def answer(tokens: int) -> Answer:
        seconds, source = found.answer(tokens)
        return Answer(layers * seconds, source)

    return answer


def _dtype(setting: Setting) -> tuple[str, str]:
    """Return the table's name of the experts' weights, "" for 16 bits, and their GEMM's dtype."""
    weights = setting.model.weights
    if weights is not None:
        return weights.method, weights.gemm_dtype
    return "", "bf16"


def _bytes_per_value(setting: Setting) -> float:
    model = setting.model
    return model.weights.bits / 8 if model.weights else model.weight_bytes_per_value


def _of_routing(setting: Setting, table: Table, rows: list[Row]) -> list[Row]:
    """Return the rows of one routing: the profile's, else the balanced, else the only one."""
    kinds = sorted({row.text("routing") for row in rows})
    use = setting.profile.use.get(TABLE)
    if use is None:
        if len(kinds) > 1 and BALANCED not in kinds:
            allowed = f"one routing, or use.{TABLE} in {HEAD}: {', '.join(kinds)}"
            raise InputError(table.where, "routing", "several", allowed)
        use = BALANCED if BALANCED in kinds else "".join(kinds)
    chosen = [row for row in rows if row.keys["routing"] == use]
    if rows and not chosen:
        where = str(Path(setting.profile.where) / HEAD)
        raise InputError(where, f"use.{TABLE}", use, ", ".join(kinds))
    return chosen


def _shape(row: Row) -> Shape:
    return (
        row.number("hidden"),
        row.number("inter") // row.number("tp"),
        row.number("experts"),
        row.number("topk"),
    )


def _wanted(setting: Setting, experts: Experts) -> Shape:
    return (
        setting.model.hidden_size,
        max(1, experts.ffn_size // setting.tp),
        experts.count,
        experts.per_token,
    )


def _limit(shape: Shape, per_value: float, rate: float, setting: Setting) -> Limit:
    """Return the bound over the tokens: a token's share of flops, and its experts' weights."""
    hidden, inter, count, per_token = shape
    values = GATED_MATRICES * hidden * inter
    compute_s = _MULTIPLY_ADD * values * per_token / rate
    weights_s = values * per_value * min(per_token, count) / setting.gpu.hbm_bytes_per_s
    return lambda tokens: max(tokens * compute_s, weights_s)
