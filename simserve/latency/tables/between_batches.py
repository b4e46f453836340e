"""Decodes of a batch between two measured ones, at as much KV: at the same summed context.

KV that is read decides how long balanced decodes take, above all whether it fits into the L2
cache. So the two are asked at the sum of the contexts asked for, and the time is linear from
the smaller batch to the larger. Where the larger is the quicker of the two at that sum, it is
what both take; and no batch is quicker than the smaller, or slower than the larger, with
contexts of its own length. That keeps times monotone in the batch and in the context. Below its
first context the larger batch is continued as the smaller one goes at the same sum.

Found on tables of H100, B200, B300, GB200, L40S and RTX PRO 6000 (aiconfigurator-core 0.12.0),
every batch left out in turn: 2.3-2.7 % in the median where a line at the same context errs by
2.6-4.8 %; with a working set around the size of the L2 cache 4 % on GB200 where it errs by 15 %.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import ceil, floor

from simserve.latency.tables.lines import Lines

# A summed context beyond which no two lines cross: more than any batch has.
_FAR = 1 << 34

_Times = Callable[[float], float]


def at_equal_sums(
    batch: int, small: tuple[float, Lines], large: tuple[float, Lines]
) -> tuple[list[float], list[float], float]:
    """Return summed contexts, seconds of ``batch`` decodes, and the slope beyond the last.

    ``small`` and ``large`` are measured batches around it, with their seconds by the context of
    each decode. Exact at whole sums.
    """
    (fewer, small_line), (more, large_line) = small, large
    share = (batch - fewer) / (more - fewer)
    first = max(small_line.starts[1], large_line.starts[1])  # before it times are held

    def of_small(tokens: float) -> float:
        return small_line.seconds(tokens / fewer)

    def of_large(tokens: float) -> float:
        if tokens >= first * more:
            return large_line.seconds(tokens / more)
        return large_line.seconds(first) - (of_small(first * more) - of_small(tokens))

    def least(tokens: float) -> float:
        return small_line.seconds(tokens / batch)

    def most(tokens: float) -> float:
        return large_line.seconds(tokens / batch)

    def mixed(tokens: float) -> float:
        large_s = of_large(tokens)
        return (1 - share) * min(of_small(tokens), large_s) + share * large_s

    knots = {
        near
        for size, line in (small, large)
        for start in line.starts[1:]
        for tokens in (start * size, start * batch)
        for near in (floor(tokens), ceil(tokens))
    }
    knots |= {ceil(batch * first), max(_FAR, 2 * max(knots))}
    sums = sorted(one for one in knots if one >= batch * first)
    for one, other in ((of_small, of_large), (mixed, least), (mixed, most)):
        sums = _with_crossings(sums, one, other)
    seconds = [min(max(mixed(tokens), least(tokens)), most(tokens)) for tokens in sums]
    last = sums[-1]
    beyond_s = min(max(mixed(2 * last), least(2 * last)), most(2 * last))
    return [float(one) for one in sums], seconds, (beyond_s - seconds[-1]) / last


def _with_crossings(sums: Sequence[int], one: _Times, other: _Times) -> list[int]:
    """Return the sums and those around where two functions cross that are linear between them."""
    found = set(sums)
    for start, end in pairwise(sums):
        before, after = one(start) - other(start), one(end) - other(end)
        if before * after < 0:
            crossing = start + (end - start) * before / (before - after)
            found |= {floor(crossing), ceil(crossing)}
    return sorted(found)
