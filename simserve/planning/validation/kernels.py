"""How well the tables answer for what they have not: every point left out once, and asked for.

On the H200 tables of the installed package, with the interpolation that steps are priced by.
A point at the edge of its grid is not asked for: that would be extrapolation.
"""

from __future__ import annotations

from collections.abc import Sequence

from simserve.inputs.hardware_profile import GpuSpec, load_gpu
from simserve.latency.importers.kernel_package import (
    PACKAGE,
    KernelPackage,
    KernelTable,
    find_package,
)
from simserve.latency.importers.kernel_rows import DTYPES
from simserve.latency.tables.curve import Shape
from simserve.latency.tables.left_out import (
    SizePoints,
    is_inner,
    shapes_left_out,
    sizes_left_out,
)
from simserve.latency.tables.limits import gemm_limit
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


def gemm_points(table: KernelTable) -> dict[Shape, SizePoints]:
    """Return the seconds of every (n, k) by m."""
    found: dict[Shape, SizePoints] = {}
    columns = [table.columns[name].tolist() for name in ("n", "k", "m", "latency")]
    for n, k, m, latency_ms in zip(*columns, strict=True):
        found.setdefault((n, k), {})[m] = latency_ms * _S_PER_MS
    return found


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [predicted for predicted, _ in pairs], [measured for _, measured in pairs]


def _newest(package: KernelPackage, family: str, name: str) -> KernelTable | None:
    path = package.newest(package.system(_GPU), family, _ENGINE, name)
    return package.read(path) if path else None
