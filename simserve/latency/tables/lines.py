"""Times that are piecewise linear in one size, with the source of every piece."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from simserve.latency.tables.answers import Answer, worse


@dataclass(frozen=True, slots=True)
class Lines:
    """Piece ``i`` starts at ``starts[i]`` with ``times[i]`` and rises by ``slopes[i]``.

    The first starts at 0, the last never ends; pieces join. ``exact`` are the sizes that were
    measured as they are.
    """

    starts: tuple[float, ...]
    times: tuple[float, ...]
    slopes: tuple[float, ...]
    sources: tuple[str, ...]
    exact: frozenset[float] = frozenset()

    def seconds(self, size: float) -> float:
        """Return the time at ``size``."""
        piece = bisect_right(self.starts, size) - 1
        return self.times[piece] + self.slopes[piece] * (size - self.starts[piece])

    def answer(self, size: float) -> Answer:
        """Return the time at ``size`` and its source."""
        source = self.sources[bisect_right(self.starts, size) - 1]
        return Answer(self.seconds(size), "exact" if size in self.exact else source)


def through(
    sizes: Sequence[float],
    times: Sequence[float],
    tail_slope: float,
    sources: Sequence[str],
    exact: frozenset[float] = frozenset(),
) -> Lines:
    """Return the lines through points, flat before the first and ``tail_slope`` after the last.

    ``sources`` are one more than the points: before the first, between, after the last.
    """
    slopes = [(times[i + 1] - times[i]) / (sizes[i + 1] - sizes[i]) for i in range(len(sizes) - 1)]
    return Lines(
        (0.0, *sizes),
        (times[0], *times),
        (0.0, *slopes, tail_slope),
        tuple(sources),
        exact,
    )


def total(parts: Sequence[Lines], fixed_s: float, factor: float) -> Lines:
    """Return ``factor`` times the sum of ``parts`` and ``fixed_s``."""
    starts = sorted({start for part in parts for start in part.starts} | {0.0})
    times, slopes, sources = [], [], []
    for start in starts:
        pieces = [(part, bisect_right(part.starts, start) - 1) for part in parts]
        times.append(factor * (fixed_s + sum(part.seconds(start) for part in parts)))
        slopes.append(factor * sum(part.slopes[piece] for part, piece in pieces))
        source = "exact"
        for part, piece in pieces:
            source = worse(source, part.sources[piece])
        sources.append(source)
    return Lines(tuple(starts), tuple(times), tuple(slopes), tuple(sources))


def at_least(lines: Lines, floor_s: float, added_s: float) -> Lines:
    """Return ``max(lines, floor_s) + added_s`` for lines that never fall."""
    pieces = list(zip(lines.starts, lines.times, lines.slopes, lines.sources, strict=True))
    below = bisect_left(lines.times, floor_s) - 1  # the last piece that starts below the floor
    if below >= 0:
        start, time, slope, source = pieces[below]
        rest = pieces[below + 1 :]
        pieces = [(0.0, floor_s, 0.0, source)]
        if slope > 0:
            crossing = start + (floor_s - time) / slope
            if not rest or crossing < rest[0][0]:
                pieces.append((crossing, floor_s, slope, source))
        pieces += rest
    starts, times, slopes, sources = zip(*pieces, strict=True)
    return Lines(starts, tuple(time + added_s for time in times), slopes, sources)
