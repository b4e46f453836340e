"""One operator's time over one size: exact where measured, linear between, held beyond.

* Measured times are made monotone (``isotonic``), and none is shorter than the datasheet
  allows (``limit``: the roofline at full peak): caches can flatter a kernel that is timed
  alone, not one whose weights or KV come from memory in every step.
* Between two rows time is linear in the raw size: against a public decode table that errs by
  1.4-3.0 % in the median where interpolation of logarithms errs by 1.8-14 %.
* Below the smallest size its time is held. Beyond the largest the utilisation is held,
  ``limit(size) / utilisation``, a utilisation between 0.02 and 1.
* An unmeasured shape takes over the utilisation of the two nearest, by logarithms of its axes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from math import hypot, log2

from simserve.latency.tables.answers import EXACT, EXTRAP, INTERP, TRANSFER, Answer
from simserve.latency.tables.isotonic import isotonic

# No kernel that is worth extrapolating uses less than this share of its limit.
LEAST_UTILISATION = 0.02
MOST_OCTAVES = 2.0
"""Shapes farther than this, in powers of two, lend each other no utilisation."""
_NEIGHBOURS = 2
_ROUNDING = 1e-6

Limit = Callable[[float], float]
Shape = tuple[int, ...]


class Curve:
    """Seconds over a size; ``limit`` is a monotone lower bound of them.

    ``source`` names where all of the curve comes from, if it was not measured itself;
    ``raised`` counts the rows that were quicker than the limit.
    """

    __slots__ = ("_held_from", "limit", "raised", "sizes", "source", "times", "utilisation")

    def __init__(
        self,
        sizes: Sequence[float],
        times: Sequence[float],
        limit: Limit,
        source: str | None = None,
    ) -> None:
        self.sizes, self.limit, self.source = list(sizes), limit, source
        cleaned = isotonic(times)
        self.times = [max(time, limit(size)) for size, time in zip(sizes, cleaned, strict=True)]
        self.raised = sum(map(is_raised, cleaned, self.times))
        last_s, last_limit_s = self.times[-1], limit(self.sizes[-1])
        self.utilisation = min(1.0, max(LEAST_UTILISATION, last_limit_s / last_s))
        # Where the limit, at this utilisation, gives more than the last row.
        self._held_from = max(last_limit_s, self.utilisation * last_s)

    def seconds(self, size: float) -> float:
        """Return the time at ``size``."""
        sizes, times = self.sizes, self.times
        above = bisect_right(sizes, size)
        if above == 0:
            return max(times[0], self.limit(size))
        if above == len(sizes):
            beyond = self.limit(size) - self._held_from
            return times[-1] + beyond / self.utilisation if beyond > 0 else times[-1]
        start, end = sizes[above - 1], sizes[above]
        low, high = times[above - 1], times[above]
        return max(low + (high - low) * ((size - start) / (end - start)), self.limit(size))

    def answer(self, size: float) -> Answer:
        """Return the time at ``size`` and its source."""
        return Answer(self.seconds(size), self.source or self._source(size))

    def _source(self, size: float) -> str:
        if not self.sizes[0] <= size <= self.sizes[-1]:
            return EXTRAP
        return EXACT if self.sizes[bisect_right(self.sizes, size) - 1] == size else INTERP


def is_raised(cleaned_s: float, final_s: float) -> bool:
    """Return whether a time was raised to its limit, by more than rounding."""
    return cleaned_s < final_s * (1 - _ROUNDING)


def octaves(one: Shape, other: Shape) -> float:
    """Return the distance of two shapes, in powers of two."""
    return hypot(*(log2(a / b) for a, b in zip(one, other, strict=True)))


def nearest_shapes(shape: Shape, curves: Mapping[Shape, Curve]) -> list[tuple[float, Shape]]:
    """Return the nearest measured shapes and their distances, the nearest first."""
    near = sorted((octaves(shape, other), other) for other in curves)
    return near[:_NEIGHBOURS]


def transferred(shape: Shape, limit: Limit, curves: Mapping[Shape, Curve]) -> Curve:
    """Return a curve for ``shape``, which has the utilisation of its nearest neighbours.

    The nearer of the two counts more, by the inverse of the distance.
    """
    near = nearest_shapes(shape, curves)
    weights = [1 / distance for distance, _ in near]
    sizes = sorted({size for _, other in near for size in curves[other].sizes})
    times: list[float] = []
    for size in sizes:
        used = 0.0
        for weight, (_, other) in zip(weights, near, strict=True):
            curve = curves[other]
            used += weight * min(1.0, curve.limit(size) / curve.seconds(size))
        time = limit(size) / max(LEAST_UTILISATION, used / sum(weights))
        times.append(max(time, times[-1] if times else 0.0))
    return Curve(sizes, times, limit, TRANSFER)
