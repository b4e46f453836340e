"""Points about the machine itself: bandwidth, peak rates, and what it costs to start a kernel."""

from __future__ import annotations

from collections.abc import Iterator

from calibrate.plans.kernels_of import VALUE_BYTES
from calibrate.plans.point import CEILING, LAUNCH, Cell, Point, Work

_MIB = 1 << 20
# Seconds that a sustained GEMM runs before it is timed: power limits act within one.
_SUSTAINED_S = 3.0


def ceiling_points(
    dtypes: tuple[str, ...],
    sizes_mib: tuple[int, ...],
    cubes: tuple[int, ...],
    gemms: dict[str, str],
    sustained: bool,
) -> Iterator[Point]:
    """Yield copies and reads of ``sizes_mib``, and square GEMMs, cold and after seconds of them."""
    for what in ("copy", "read"):
        for size in sizes_mib:
            moved = size * _MIB * (2 if what == "copy" else 1)
            work = Work(bytes_moved=moved, dtype=dtypes[0], cold_bytes=moved)
            yield Point(
                block="ceilings",
                table=CEILING,
                work=work,
                tier=0,
                keys={"what": what, "bytes": size * _MIB},
            )
    for dtype in dtypes:
        for cube in cubes:
            weights = cube * cube * VALUE_BYTES[dtype]
            work = Work(
                bytes_moved=3.0 * weights, flops=2.0 * cube**3, dtype=dtype, cold_bytes=weights
            )
            how: dict[str, Cell] = {"kernel": gemms[dtype]}
            yield Point(
                block="ceilings",
                table=CEILING,
                work=work,
                tier=0,
                how=how,
                keys={"what": f"{dtype}-burst", "size": cube},
            )
        if sustained:
            how = {"kernel": gemms[dtype], "run_s": _SUSTAINED_S, "seconds": _SUSTAINED_S + 1}
            yield Point(
                block="ceilings",
                table=CEILING,
                work=work,
                tier=0,
                how=how,
                keys={"what": f"{dtype}-sustained", "size": cubes[-1]},
            )


def launch_points(dtype: str, graph_nodes: tuple[int, ...]) -> Iterator[Point]:
    """Yield an eager kernel, and replays of graphs of ever more empty kernels."""
    for nodes in (0, *graph_nodes):
        work = Work(bytes_moved=0.0, dtype=dtype)
        keys: dict[str, Cell] = {"what": "graph" if nodes else "kernel", "nodes": nodes}
        yield Point(
            block="launch", table=LAUNCH, work=work, tier=0, keys=keys, how={"seconds": 0.2}
        )
