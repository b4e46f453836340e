"""The unit of time inside a run: integer picoseconds.

Integers make sums exact (a stretch of a thousand steps ends where a thousand single
steps end) and decide ties the way the real scheduler's cases do. A picosecond is fine
enough that rounding a step's cost per context token loses less than 1 part in 10,000,
and int64 still holds 106 days. See docs/adr/0002-integer-picoseconds.md.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

PS_PER_S = 1_000_000_000_000
PS_PER_MS = 1_000_000_000
PS_PER_NS = 1_000

NEVER_PS = int(np.iinfo(np.int64).min)
"""What an int64 time column holds for an instant that did not happen."""

FAR_PS = 1 << 62
"""Later than anything that happens."""

PsArray = npt.NDArray[np.int64]


def to_ps(seconds: float) -> int:
    """Return ``seconds`` in picoseconds, rounded to the nearest."""
    return round(seconds * PS_PER_S)


def seconds(ps: PsArray) -> npt.NDArray[np.float64]:
    """Return a picosecond column in seconds; ``NEVER_PS`` becomes NaN."""
    out = ps / PS_PER_S
    out[ps == NEVER_PS] = np.nan
    return out
