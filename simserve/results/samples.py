"""A sample of durations whose statistics are numpy's, with or without repeat counts.

A run holds millions of inter-token gaps but far fewer steps, and all sequences of a step
share one gap. So a sample may carry a count beside each value; its statistics are those of
the list in which each value is repeated that often, without building that list.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Sample:
    """Durations in seconds, each with a count; the statistics of an empty one are None."""

    def __init__(self, values_s: FloatArray, counts: IntArray | None = None) -> None:
        self.values_s = values_s
        self.counts = counts

    @cached_property
    def size(self) -> int:
        """How many durations there are, repeats included."""
        return len(self.values_s) if self.counts is None else int(self.counts.sum())

    @cached_property
    def _ordered(self) -> tuple[FloatArray, IntArray | None]:
        """Values in rising order and, with counts, how many lie at or below each."""
        if self.counts is None:
            return np.sort(self.values_s), None
        order = np.argsort(self.values_s)
        return self.values_s[order], np.cumsum(self.counts[order])

    @cached_property
    def mean(self) -> float | None:
        """The arithmetic mean in seconds."""
        if not self.size:
            return None
        if self.counts is None:
            return float(np.mean(self.values_s))
        return float(np.dot(self.values_s, self.counts.astype(np.float64)) / self.size)

    @cached_property
    def std(self) -> float | None:
        """The standard deviation in seconds, divided by n (numpy's ddof 0)."""
        if self.mean is None:
            return None
        if self.counts is None:
            return float(np.std(self.values_s))
        squares = (self.values_s - self.mean) ** 2
        return float(np.sqrt(np.dot(squares, self.counts.astype(np.float64)) / self.size))

    @cached_property
    def median(self) -> float | None:
        """The mean of the one or two middle durations, as ``np.median``."""
        if not self.size:
            return None
        middle = (self.size - 1) // 2
        low, high = self._at(middle), self._at(self.size - 1 - middle)
        return low if middle * 2 + 1 == self.size else (low + high) / 2

    def percentile(self, q: float) -> float | None:
        """Return what ``np.percentile(..., method="linear")`` returns for the repeated list."""
        if not self.size:
            return None
        place = (self.size - 1) * (q / 100)
        below = int(place)
        low, high = self._at(below), self._at(min(below + 1, self.size - 1))
        # Both forms below are numpy's: it interpolates from the nearer end.
        share = place - below
        step = high - low
        return high - step * (1 - share) if share >= 0.5 else low + step * share

    def _at(self, rank: int) -> float:
        values, upto = self._ordered
        if upto is None:
            return float(values[rank])
        return float(values[np.searchsorted(upto, rank, side="right")])

    def statistics_ms(self, percentiles: Sequence[float]) -> dict[str, float]:
        """Return mean, median, std and percentiles in ms; empty without a sample."""
        named: dict[str, Any] = {"mean": self.mean, "median": self.median, "std": self.std}
        named |= {percentile_word(q): self.percentile(q) for q in percentiles}
        return {name: value * MS_PER_S for name, value in named.items() if value is not None}


MS_PER_S = 1000
_WHOLE_FROM = 100


def three_digits(value: float) -> str:
    """Return a number to three digits, or whole from a hundred on: 0.0123, 17.9, 1,630."""
    return f"{value:,.0f}" if abs(value) >= _WHOLE_FROM else f"{value:.3g}"


def percentile_word(q: float) -> str:
    """Return vLLM's name of a percentile: ``p99``, ``p99.9``."""
    return f"p{int(q)}" if int(q) == q else f"p{float(q)}"
