"""How well the tables answer for what they have not: every point left out once, and asked for.

On the H200 tables of the installed package, with the interpolation that steps are priced by.
A point at the edge of its grid is not asked for: that would be extrapolation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from simserve.inputs.hardware_profile import GpuSpec, load_gpu
from simserve.latency.importers.aiconfigurator import DTYPES
from simserve.latency.importers.kernel_package import (
    PACKAGE,
    KernelPackage,
    KernelTable,
    find_package,
)
from simserve.latency.tables.curve import Curve, Limit, Shape, transferred
from simserve.latency.tables.gemms import surcharged
from simserve.latency.tables.limits import gemm_limit
from simserve.latency.tables.schema import is_aligned
from simserve.planning.validation.attention_kernels import attention_findings
from simserve.planning.validation.findings import Section, median_finding, signed_pct

_GPU, _ENGINE = "h200-sxm", "vllm"
_BYTES = {"bf16": 2.0, "fp8": 1.0}
# The bars: what a good interpolation of such tables should reach (docs/kernel-profiles.md).
_GEMM_BARS_PCT = {"bf16": 4.0, "fp8": 6.0}
_SHAPE_BAR_PCT = 6.0
_S_PER_MS = 1e-3
# The size of heads that the tables cover best, and most models have.
_HEAD_SIZE = 128

Points = dict[int, float]


def kernel_section() -> Section:
    """Return the leave-one-out errors on the installed tables."""
    section = Section("kernel")
    package = find_package()
    if package is None:
        section.skipped.append(f"{PACKAGE} is not installed: pip install 'simserve[kernels]'")
        return section
    gpu = load_gpu(_GPU)
    table = _newest(package, "gemm", "gemm")
    if table is None:
        section.skipped.append(f"gemm: {PACKAGE} {package.version} has no table of {_GPU}")
        return section
    section.notes.append(f"{PACKAGE} {package.version}, {table.name}, raw times as the truth")
    for theirs, ours in DTYPES.items():
        _gemm_findings(table.where(gemm_dtype=theirs), ours, gpu, section)
    decode = _newest(package, "attention", "generation_attention")
    prefill = _newest(package, "attention", "context_attention")
    if decode is None or prefill is None:
        section.skipped.append(f"attention: {PACKAGE} {package.version} has no table of {_GPU}")
    else:
        attention_findings(decode, prefill, gpu, _HEAD_SIZE, section)
    return section


def _gemm_findings(table: KernelTable, dtype: str, gpu: GpuSpec, section: Section) -> None:
    shapes = gemm_points(table)
    inner = [shape for shape in shapes if is_inner(shape, shapes)]
    limits = {
        shape: gemm_limit(shape[0], shape[1], _BYTES[dtype], gpu.flops_per_s[dtype], gpu)
        for shape in shapes
    }
    pairs = [pair for shape in inner for pair in sizes_left_out(shapes[shape], limits[shape])]
    what = f"GEMM {dtype}, one M left out of an inner (N, K)"
    section.findings.append(
        median_finding(what, signed_pct(*_columns(pairs)), _GEMM_BARS_PCT[dtype])
    )
    pairs = list(shapes_left_out(shapes, inner, limits))
    what = f"GEMM {dtype}, a whole inner (N, K) left out"
    section.findings.append(median_finding(what, signed_pct(*_columns(pairs)), _SHAPE_BAR_PCT))


def gemm_points(table: KernelTable) -> dict[Shape, Points]:
    """Return the seconds of every (n, k) by m."""
    found: dict[Shape, Points] = {}
    columns = [table.columns[name].tolist() for name in ("n", "k", "m", "latency")]
    for n, k, m, latency_ms in zip(*columns, strict=True):
        found.setdefault((n, k), {})[m] = latency_ms * _S_PER_MS
    return found


def is_inner(shape: Shape, shapes: Mapping[Shape, Points]) -> bool:
    """Return whether smaller and larger shapes were measured along every axis."""
    return all(
        min(other[axis] for other in shapes) < size < max(other[axis] for other in shapes)
        for axis, size in enumerate(shape)
    )


def sizes_left_out(points: Points, limit: Limit) -> Iterator[tuple[float, float]]:
    """Yield (predicted, measured) of every inner point of one shape, left out in turn."""
    sizes = sorted(points)
    for size in sizes[1:-1]:
        others = {m: seconds for m, seconds in points.items() if m != size}
        yield _priced(_curves(others, limit), size), points[size]


def shapes_left_out(
    shapes: Mapping[Shape, Points], inner: Sequence[Shape], limits: Mapping[Shape, Limit]
) -> Iterator[tuple[float, float]]:
    """Yield (predicted, measured) of every point of every inner shape, left out as a whole."""
    curves = {shape: _curves(points, limits[shape]) for shape, points in shapes.items()}
    for shape in inner:
        smooth, rough = (
            transferred(
                shape,
                limits[shape],
                {other: pair[part] for other, pair in curves.items() if other != shape},
            )
            for part in (0, 1)
        )
        for size, seconds in shapes[shape].items():
            yield _priced((smooth, rough), size), seconds


def _curves(points: Points, limit: Limit) -> tuple[Curve, Curve]:
    """Return the curves of aligned and of other rows."""
    smooth, rough = (
        Curve(sizes, [points[size] for size in sizes], limit)
        for sizes in (
            sorted(size for size in points if is_aligned(size) is wanted)
            for wanted in (True, False)
        )
    )
    return smooth, rough


def _priced(curves: tuple[Curve, Curve], size: int) -> float:
    """Return the seconds at ``size``, by the rule of ``latency.tables.gemms``."""
    smooth, rough = curves
    if is_aligned(size):
        return smooth.seconds(size)
    return max(smooth.seconds(size), surcharged(smooth, rough).seconds(size))


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [predicted for predicted, _ in pairs], [measured for _, measured in pairs]


def _newest(package: KernelPackage, family: str, name: str) -> KernelTable | None:
    path = package.newest(package.system(_GPU), family, _ENGINE, name)
    return package.read(path) if path else None
