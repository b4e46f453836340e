"""Matrices from ``gemm.csv``: a curve over the rows for every shape, aligned and not.

8-bit kernels pad their rows: 17, 65 or 129 rows cost 1.3-1.8 times as much as 16, 64 or 128
in a public H200 table. So rows up to 16 and multiples of 16 are priced from the aligned rows
of the table; others from the unaligned ones, whose surcharge is held beyond them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from simserve.errors import InputError
from simserve.inputs.model_matrices import Matrix
from simserve.latency.roofline_gemm import flops_per_s, gemm
from simserve.latency.tables.answers import ROOFLINE, TRANSFER, Answer
from simserve.latency.tables.csv_file import Row
from simserve.latency.tables.curve import (
    MOST_OCTAVES,
    Curve,
    Limit,
    Shape,
    nearest_shapes,
    transferred,
)
from simserve.latency.tables.limits import gemm_limit
from simserve.latency.tables.schema import is_aligned
from simserve.latency.tables.selection import Setting

_TABLE = "gemm"
_FP8_BYTES, _FP32_BYTES = 1.0, 4.0
# Formats whose GEMMs do the same work on as many bytes, and lend their times (``transfer``).
_LENDERS = {"fp8-block": "fp8"}

Operator = Callable[[int], Answer]
"""The answer of all of an operator's kernels in a step, by a count."""


class Gemms:
    """The matrices of one deployment; experts are left to the roofline."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._curves = lru_cache(maxsize=None)(self._curves_of)
        self._used: dict[int, Curve] = {}

    def operator(self, matrix: Matrix) -> Operator:
        """Return the answer of ``matrix`` in all its layers, by the rows.

        Raises:
            InputError: if the table has not its dtype, or no shape within two octaves, unless
                extrapolation is allowed.
        """
        setting = self._setting
        of_roofline = gemm(matrix, setting.model, setting.gpu)
        dtypes, rate = self._dtype(matrix)
        table = setting.profile.tables.get(_TABLE)
        if table is None or matrix.part == "experts":
            return lambda rows: Answer(of_roofline(rows), ROOFLINE)
        per_value = setting.model.matrix_bytes(matrix) / matrix.values
        aligned, unaligned = self._curves(dtypes, per_value, rate)
        if not aligned:
            return lambda rows: Answer(of_roofline(rows), ROOFLINE)
        shape = matrix.outputs, matrix.inputs
        limit = gemm_limit(*shape, per_value, rate, setting.gpu)
        smooth = self._curve(shape, limit, aligned)
        rough = surcharged(smooth, self._curve(shape, limit, unaligned)) if unaligned else smooth
        times = matrix.layers * matrix.copies

        def answer(rows: int) -> Answer:
            seconds, source = smooth.answer(rows)
            if rough is not smooth and not is_aligned(rows):
                padded = rough.answer(rows)
                seconds, source = max(seconds, padded.seconds), padded.source
            return Answer(times * seconds, source)

        return answer

    @property
    def raised(self) -> int:
        """Rows of the curves in use that were quicker than the datasheet allows."""
        return sum(curve.raised for curve in self._used.values())

    def _dtype(self, matrix: Matrix) -> tuple[tuple[str, ...], float]:
        """Return the table's names of the matrix's dtype, and the peak rate of its GEMM."""
        model, gpu = self._setting.model, self._setting.gpu
        weights = model.format_of(matrix)
        if weights is not None:
            lender = _LENDERS.get(weights.method)
            dtypes = (weights.method, lender) if lender else (weights.method,)
            return dtypes, flops_per_s(gpu, weights.gemm_dtype)
        if model.weight_bytes_per_value == _FP8_BYTES:
            return ("fp8",), flops_per_s(gpu, "fp8")
        if model.weight_bytes_per_value == _FP32_BYTES:
            return ("fp32",), flops_per_s(gpu, "bf16")  # fp32 is nowhere quicker
        return ("bf16", "fp16"), flops_per_s(gpu, "bf16")

    def _curves_of(
        self, dtypes: tuple[str, ...], per_value: float, rate: float
    ) -> tuple[dict[Shape, Curve], dict[Shape, Curve]]:
        """Return the curves of a dtype by shape: of aligned rows, and of the others."""
        setting = self._setting
        table = setting.profile.tables[_TABLE]
        rows = setting.of_backend(table, setting.of_dtype(table, "dtype", *dtypes))
        is_lent = any(row.keys["dtype"] == _LENDERS.get(dtypes[0]) for row in rows)
        source = TRANSFER if is_lent else None
        found: tuple[dict[Shape, Curve], dict[Shape, Curve]] = {}, {}
        for curves, wanted in zip(found, (True, False), strict=True):
            for shape, points in _by_shape(rows, wanted).items():
                limit = gemm_limit(shape[0], shape[1], per_value, rate, setting.gpu)
                sizes = sorted(points)
                curves[shape] = Curve(sizes, [points[m] for m in sizes], limit, source)
        if not found[0]:  # a table of unaligned rows alone: no two curves to tell apart
            return found[1], {}
        return found

    def _curve(self, shape: tuple[int, int], limit: Limit, curves: dict[Shape, Curve]) -> Curve:
        found = curves.get(shape)
        if found is not None:
            self._used[id(found)] = found
            return found
        distance, near = nearest_shapes(shape, curves)[0]
        if distance > MOST_OCTAVES and not self._setting.allow_extrapolation:
            where = self._setting.profile.tables[_TABLE].where
            allowed = (
                f"a shape within {MOST_OCTAVES:g} octaves of a measured one; the nearest, "
                f"{near[0]} × {near[1]}, is {distance:.1f} away (or --allow-extrapolation)"
            )
            raise InputError(where, "n × k", f"{shape[0]} × {shape[1]}", allowed)
        return transferred(shape, limit, curves)


def surcharged(smooth: Curve, rough: Curve) -> Curve:
    """Return the unaligned curve, its surcharge on ``smooth`` held before and beyond it."""
    first, last = rough.sizes[0], rough.sizes[-1]
    times = [
        max(time, smooth.seconds(size)) for size, time in zip(rough.sizes, rough.times, strict=True)
    ]
    points = dict(zip(rough.sizes, times, strict=True))
    for size, time in zip(smooth.sizes, smooth.times, strict=True):
        if size < first:
            points[size] = time * times[0] / smooth.seconds(first)
        elif size > last:
            points[size] = time * times[-1] / smooth.seconds(last)
    sizes = sorted(points)
    return Curve(sizes, [points[size] for size in sizes], rough.limit, rough.source)


def _by_shape(rows: list[Row], aligned: bool) -> dict[Shape, dict[int, float]]:
    found: dict[Shape, dict[int, float]] = {}
    for row in rows:
        if bool(row.keys["aligned"]) is aligned:
            shape = row.number("n"), row.number("k")
            found.setdefault(shape, {})[row.number("m")] = row.seconds
    return found
