"""The table of docs/statistics.md: how often intervals are right, and how wide, queue by queue.

python -m tests.results.coverage_table
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence

import numpy as np

from simserve.results.intervals import Interval
from tests.results.queues import Queue, coverage, estimates_of

RUNS = 400
# The rules were chosen on M/M/1 and others that are not here, with other seeds.
LENGTHS: dict[tuple[str, float], Sequence[int]] = {
    ("M/M/1", 0.5): (700, 1000, 3000, 10_000, 20_000, 30_000),
    ("M/M/1", 0.8): (1000, 1500, 2000, 3000, 5000, 10_000, 20_000, 30_000, 150_000),
    ("M/M/1", 0.9): (5000, 8000, 12_000, 20_000, 40_000),
    ("M/D/1", 0.5): (500, 1000, 3000, 10_000, 30_000),
    ("M/D/1", 0.8): (1000, 1500, 2000, 3000, 10_000, 20_000, 30_000, 80_000),
    ("M/D/1", 0.9): (3000, 5000, 8000, 20_000),
    ("M/lognormal/1", 0.5): (800, 1000, 3000, 10_000),
    ("M/lognormal/1", 0.8): (3000, 5000, 8000, 20_000, 40_000),
    ("bursty/M/1", 0.5): (1000, 1500, 3000, 10_000),
    ("bursty/M/1", 0.7): (2000, 3000, 5000, 20_000),
}


def cells(found: Sequence[Interval | None], truth: float) -> str:
    """Return how many of ``found`` have ends, how many of these are right, and how wide they are.

    The width is half the distance of the ends over the truth: its mean, and its median.
    """
    covered = coverage(found, truth)
    wrong = (covered.printed - covered.holding) / covered.runs
    if not covered.printed:
        return f"0 | – | – | {wrong:.1%}"
    widths = [
        (one.high - one.low) / 2 / truth
        for one in found
        if one is not None and one.low is not None and one.high is not None
    ]
    width = f"{np.mean(widths):.1%}, {np.median(widths):.1%}"
    return f"{covered.printed} | {covered.share:.1%} | {width} | {wrong:.1%}"


def rows(say: Callable[[str], object]) -> None:
    """Say every row of the table; p99 where it has a known answer."""
    for (kind, load), lengths in LENGTHS.items():
        queue = Queue(kind, load)
        p99 = math.nan if kind == "M/lognormal/1" else queue.percentile(99)
        for requests in lengths:
            drawn = [estimates_of(queue.sojourn_times(requests, seed)) for seed in range(RUNS)]
            mean = cells([one.mean() for one in drawn], queue.mean)
            row = f"| {kind} | {load} | {requests:,} | {mean} |"
            if not math.isnan(p99):
                tail = coverage([one.percentile(99) for one in drawn], p99)
                right = f"{tail.share:.1%}" if tail.printed else "–"
                row += f" {tail.printed} | {right} |"
            else:
                row += " – | – |"
            say(row.replace("%", " %"))


if __name__ == "__main__":
    rows(lambda row: sys.stdout.write(f"{row}\n"))
    sys.stdout.flush()
