"""Rows of a table left out in turn, and asked for: how well it answers for what it has not.

Only rows with others on either side are asked for: beyond the last it would be extrapolation.
Everything is priced by the very code that prices steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from simserve.latency.roofline_attention import AttentionCost
from simserve.latency.tables.attention import TabledChunks, TabledDecodes
from simserve.latency.tables.attention_rows import MeasuredAttention, Points, decode_grid
from simserve.latency.tables.chunk_grids import chunk_grid
from simserve.latency.tables.curve import Curve, Limit, Shape, transferred
from simserve.latency.tables.gemms import surcharged
from simserve.latency.tables.limits import AttentionLimit
from simserve.latency.tables.schema import is_aligned

# Nothing is asked of the roofline here.
_NO_COST = AttentionCost(None, 0.0, 0.0, 0.0, 0.0, 0.0)

SizePoints = dict[int, float]
"""Seconds by size, of one shape."""
Point = tuple[float, float]
Asked = Callable[[Points, AttentionLimit], Callable[[float, float], float]]


def is_inner(shape: Shape, shapes: Mapping[Shape, SizePoints]) -> bool:
    """Return whether smaller and larger shapes were measured along every axis."""
    return all(
        min(other[axis] for other in shapes) < size < max(other[axis] for other in shapes)
        for axis, size in enumerate(shape)
    )


def sizes_left_out(points: SizePoints, limit: Limit) -> Iterator[tuple[float, float]]:
    """Yield (predicted, measured) of every inner point of one shape, left out in turn."""
    sizes = sorted(points)
    for size in sizes[1:-1]:
        others = {m: seconds for m, seconds in points.items() if m != size}
        yield _priced(_curves(others, limit), size), points[size]


def shapes_left_out(
    shapes: Mapping[Shape, SizePoints], inner: Sequence[Shape], limits: Mapping[Shape, Limit]
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


def _curves(points: SizePoints, limit: Limit) -> tuple[Curve, Curve]:
    """Return the curves of aligned and of other rows; one curve twice if there is one kind."""
    kinds = [
        sorted(size for size in points if is_aligned(size) is wanted) for wanted in (True, False)
    ]
    smooth, rough = (
        Curve(sizes, [points[size] for size in sizes], limit)
        for sizes in (kinds[0] or kinds[1], kinds[1] or kinds[0])
    )
    return smooth, rough


def _priced(curves: tuple[Curve, Curve], size: int) -> float:
    """Return the seconds at ``size``, by the rule of ``latency.tables.gemms``."""
    smooth, rough = curves
    if is_aligned(size) or smooth.sizes == rough.sizes:
        return smooth.seconds(size)
    return max(smooth.seconds(size), surcharged(smooth, rough).seconds(size))


def points_left_out(
    points: Points, limit: AttentionLimit, ask: Asked, left_out: int
) -> Iterator[Point]:
    """Yield (predicted, measured) of inner points; 0 leaves one out, 1 its row, 2 its column."""
    inner = [point for point in points if _has_both_sides(point, points, left_out)]
    groups: dict[object, list[Point]] = {}
    for point in inner:
        groups.setdefault(point if not left_out else point[left_out - 1], []).append(point)
    for key, asked in groups.items():
        others = {
            point: seconds
            for point, seconds in points.items()
            if (point != key if not left_out else point[left_out - 1] != key)
        }
        answer = ask(others, limit)
        for point in asked:
            yield answer(*point), points[point]


def _has_both_sides(point: Point, points: Mapping[Point, float], axis: int) -> bool:
    """Return whether there are points on either side, along the axis that is bridged."""
    axes = (0, 1) if not axis else (axis - 1,)
    for moving in axes:
        still = 1 - moving
        line = [other[moving] for other in points if other[still] == point[still]]
        if not min(line) < point[moving] < max(line):
            return False
    return True


def ask_decodes(points: Points, limit: AttentionLimit) -> Callable[[float, float], float]:
    """Return the seconds of decodes over batch and context, as steps are priced."""
    table = MeasuredAttention({"": decode_grid(points, limit)}, limit, None, None)
    decodes = TabledDecodes(table, 1, _NO_COST)
    return lambda batch, context: decodes.decode_lines(int(batch), int(batch)).seconds(
        batch * context
    )


def ask_chunks(points: Points, limit: AttentionLimit) -> Callable[[float, float], float]:
    """Return the seconds of a chunk over new tokens and past, as steps are priced."""
    table = MeasuredAttention({"": chunk_grid(points, limit)}, limit, None, None)
    return TabledChunks(table, 1).seconds
