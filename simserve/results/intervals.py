"""Intervals of means and percentiles, or the reason why a sample cannot carry one.

The mean gets Student's t over batch means, widened by the correlation left between them and
stretched towards the longer tail of the latencies. A percentile gets the interval of the share
of requests beyond it, read back at the ordered sample (Woodruff, JASA 1952): that needs no
density, and is as lopsided as the tail is.

What a sample can carry is decided by how often the series rises above its median. A busy spell
is one rise, however many requests it holds, so rises count what is independent of each other.
Runs that rise often by chance have short spells and low means (the two correlate at -0.7 to
-0.85 in queues), and it is these that pass first where runs are about as long as is asked for.
So the stretch is largest there. An estimated variance would be a worse judge: a sample that
missed the long spell has a small one, and would be let pass because it is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from simserve.results.batch_means import (
    Batches,
    Series,
    correlation_factor,
    independent_batches,
)
from simserve.results.critical_values import student_t
from simserve.results.samples import FloatArray

# Chosen on queues with known answers, by seeds that docs/statistics.md does not report: with
# fewer rises of the series, or of the share of them that a percentile leaves, intervals hold the
# truth less often than 92 times in 100.
FEWEST_RISES_OF_MEAN = 100
FEWEST_RISES = 150
FEWEST_RISES_BEYOND = 10
# A mean is worth so many independent requests at least, by its batches and by its rises.
SMALLEST_SIZE = 20
SMALLEST_TAIL = 2
# Of what a mean is worth, so much may be the luck of a run that rose more often than others.
_LUCK = 16
# A queue wanders like a random walk between two bounds: by a step it moves a share s of its
# range, so n requests are worth n s^2 independent ones, and rise n s times. Hence rises^2 / n,
# times 4 to 5 for single servers at loads from 0.5 to 0.95, and more where less is correlated.
_WORTH_OF_RISES = 4.0
# A share of requests beyond is worth at most so many times what the mean is (in queues, 1.3
# times): where it looks like more, the long spells that decide the tail may not have been seen.
# With so many independent requests beyond, they have.
_MOST_WORTH = 1.5
_SEEN_TAIL = 30
# Beyond, a stretch covers no more and grows without bound: so few spells do not show their tail.
_MOST_LOPSIDED = 1.0
_PARTS = 100
# Whole runs as batches: with fewer, Student's t is too wide to be read.
FEWEST_RUNS = 5

NOTHING_MEASURED = "nothing was measured"
FEW_RUNS = f"whole runs need at least {FEWEST_RUNS} replications"
NOT_INDEPENDENT = "too short, or still drifting: no ten independent batches"
_TOO_FEW_RISES = "too short: it rises above its median fewer than {} times"
FEW_RISES_OF_MEAN = _TOO_FEW_RISES.format(FEWEST_RISES_OF_MEAN)
FEW_RISES = _TOO_FEW_RISES.format(FEWEST_RISES)
SHORT_TAIL = "too short for values this rare"
FEW_REQUESTS = f"worth fewer than {SMALLEST_SIZE} independent requests"

_NO_SKEW = 1e-6  # below, the stretch is smaller than rounding
_ROUNDING = 1e-12  # of a share that came from the same sums


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A number and where it lies with 95 % confidence, or why that cannot be said.

    ``low`` and ``high`` are None together, and ``reason`` then says why. ``effective_size`` is
    how many independent requests the sample is worth for this number.
    """

    value: float
    low: float | None = None
    high: float | None = None
    reason: str | None = None
    effective_size: float | None = None

    @property
    def half_width(self) -> float | None:
        """The larger of the distances from the value to both ends; None without an interval."""
        if self.low is None or self.high is None:
            return None
        return max(self.high - self.value, self.value - self.low)

    @property
    def relative_half_width(self) -> float | None:
        """``half_width`` over the value; None without an interval, or at 0."""
        half = self.half_width
        return half / abs(self.value) if half is not None and self.value else None

    def as_dict(self, factor: float = 1.0) -> dict[str, float | str]:
        """Return the interval as JSON-able data, times ``factor``; what is None is left out."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        entry: dict[str, float | str] = {
            name: number * factor for name, number in numbers.items() if number is not None
        }
        if self.reason is not None:
            entry["reason"] = self.reason
        if self.effective_size is not None:
            entry["effective_size"] = self.effective_size
        return entry


class Estimates:
    """One quantity over one or more runs: its mean and percentiles, each with an interval.

    With ``whole_runs`` every run is one batch, for runs that have no steady state. ``is_rate``
    says that weights are seconds, not requests; a rate has a mean only.
    """

    def __init__(
        self, runs: Sequence[Series], *, whole_runs: bool = False, is_rate: bool = False
    ) -> None:
        self.runs = tuple(run for run in runs if len(run.weights))
        self._whole_runs, self._is_rate = whole_runs, is_rate

    @cached_property
    def batches(self) -> Batches | None:
        """The batches that count as independent; None where there are none."""
        if not self._whole_runs:
            return independent_batches(self.runs) if self.runs else None
        if len(self.runs) < FEWEST_RUNS:
            return None
        return Batches(edges=tuple(run.edges(1) for run in self.runs), per_run=1)

    @property
    def reason(self) -> str | None:
        """Why there are no intervals at all, if so."""
        if not self.runs:
            return NOTHING_MEASURED
        if self.batches is None:
            return FEW_RUNS if self._whole_runs else NOT_INDEPENDENT
        return None

    def mean(self) -> Interval | None:
        """Return the mean; None if there is nothing to average."""
        if not self.runs:
            return None
        if self.batches is None:
            return Interval(value=self._mean, reason=self.reason)
        error = _standard_error(self.batches.means(self.runs))
        size, lopsided = self._size(error), 0.0
        if size is not None:
            if self._rises < FEWEST_RISES_OF_MEAN:
                return Interval(value=self._mean, reason=FEW_RISES_OF_MEAN, effective_size=size)
            worth = min(size, _WORTH_OF_RISES * self._rises**2 / self._entries)
            if worth < SMALLEST_SIZE:
                return Interval(value=self._mean, reason=FEW_REQUESTS, effective_size=size)
            if not self._whole_runs:
                lopsided = 2 * self._skewness / math.sqrt(worth - _LUCK)
        below, above = _reach(student_t(self.batches.count - 1), lopsided)
        low, high = self._mean - below * error, self._mean + above * error
        return Interval(value=self._mean, low=low, high=high, effective_size=size)

    def percentile(self, q: float) -> Interval | None:
        """Return percentile ``q``; None if there is nothing to order."""
        if not self.runs:
            return None
        value = self.at_share(q / 100)
        if self.batches is None:
            return Interval(value=value, reason=self.reason)
        ordered, _ = self._ordered
        if ordered[0] == ordered[-1]:
            return Interval(value=value, low=value, high=value)
        beyond = [
            Series(np.where(run.values > value, run.weights, 0.0), run.weights) for run in self.runs
        ]
        share = _ratio(beyond)
        worth = self._worth_of_share(beyond)
        size = min(worth, self.weight)
        if self._rises < FEWEST_RISES:
            return Interval(value=value, reason=FEW_RISES, effective_size=size)
        rarer = min(share, 1 - share)
        if self._rises * rarer < FEWEST_RISES_BEYOND or size * rarer < SMALLEST_TAIL:
            return Interval(value=value, reason=SHORT_TAIL, effective_size=size)
        reach = student_t(self.batches.count - 1) * math.sqrt(share * (1 - share) / worth)
        low, high = self.at_share(1 - share - reach), self.at_share(1 - share + reach)
        return Interval(value=value, low=low, high=high, effective_size=size)

    def share_error(self, marked: Sequence[Series]) -> float:
        """Return the standard error of the share of entries in ``marked``, whose amounts count.

        That of batches; that of independent entries where there are no batches, or all agree.
        """
        error = 0.0
        if self.batches is not None:
            error = _standard_error(self.batches.means(marked))
        if error:
            return error
        share = _ratio(marked)
        return math.sqrt(share * (1 - share) / self.weight)

    def _worth_of_share(self, marked: Sequence[Series]) -> float:
        """Return how many independent requests the share of entries in ``marked`` is worth.

        By chance that may be more than there are; held down to these, intervals of independent
        requests would be too wide half of the time.
        """
        share, error = _ratio(marked), self.share_error(marked)
        size = share * (1 - share) / error**2 if error else 0.0
        of_mean = self.mean_size or size
        if of_mean * min(share, 1 - share) < _SEEN_TAIL:
            size = min(size, _MOST_WORTH * of_mean)
        return size

    @cached_property
    def _rises(self) -> float:
        """How often the series goes from its median or below to above it.

        No number of them is too small for whole runs, which are independent as they are. Where
        many values are the median itself, they count as either side.
        """
        if self._whole_runs:
            return math.inf
        middle = self.at_share(1 / 2)
        sides = (
            [run.values > middle for run in self.runs],
            [run.values >= middle for run in self.runs],
        )
        return max(sum(int((~one[:-1] & one[1:]).sum()) for one in side) for side in sides)

    @cached_property
    def slow_rises(self) -> float:
        """How often means over a hundredth of a run go from their median or below to above it.

        Quick noise is averaged out of these, so they show how slowly what is beneath it wanders.
        """
        parts_per_run = min(_PARTS, *(len(run.weights) for run in self.runs))
        edges = tuple(run.edges(parts_per_run) for run in self.runs)
        parts = Batches(edges=edges, per_run=parts_per_run).means(self.runs)
        if not np.ptp(parts):
            return math.inf
        above = parts > np.median(parts)
        return float((~above[:, :-1] & above[:, 1:]).sum())

    @cached_property
    def _entries(self) -> int:
        """How many entries the runs have, however often each counts."""
        return sum(len(run.weights) for run in self.runs)

    @cached_property
    def _skewness(self) -> float:
        """The skewness of single entries."""
        around = [run.values - self._mean for run in self.runs]
        square, cube = (
            sum(
                float(np.dot(run.weights, one**power))
                for run, one in zip(self.runs, around, strict=True)
            )
            / self.weight
            for power in (2, 3)
        )
        return cube / square**1.5 if square else 0.0

    @cached_property
    def mean_size(self) -> float | None:
        """How many independent requests the mean is worth; None if unknown or exact."""
        if self.batches is None:
            return None
        return self._size(_standard_error(self.batches.means(self.runs)))

    def _size(self, error: float) -> float | None:
        """Return how many independent values would give the mean this error."""
        if self._is_rate or not error:
            return None
        squares = [np.dot(run.weights, (run.values - self._mean) ** 2) for run in self.runs]
        return min(float(sum(squares)) / self.weight / error**2, self.weight)

    @cached_property
    def _mean(self) -> float:
        return _ratio(self.runs)

    @cached_property
    def weight(self) -> float:
        """How many entries there are, repeats included; of a rate, over how many seconds."""
        return float(sum(run.weights.sum() for run in self.runs))

    @cached_property
    def _ordered(self) -> tuple[FloatArray, FloatArray]:
        """All values in rising order, and how much weight lies at or below each."""
        values = np.concatenate([run.values for run in self.runs])
        order = np.argsort(values, kind="stable")
        weights = np.concatenate([run.weights for run in self.runs])
        return values[order], np.cumsum(weights[order])

    def at_share(self, share: float) -> float:
        """Return the smallest value that ``share`` of the weight does not exceed."""
        ordered, upto = self._ordered
        wanted = share * float(upto[-1]) * (1 - _ROUNDING)
        place = int(np.searchsorted(upto, wanted, side="left"))
        return float(ordered[min(max(place, 0), len(ordered) - 1)])


def _ratio(runs: Sequence[Series]) -> float:
    return float(sum(run.amounts.sum() for run in runs) / sum(run.weights.sum() for run in runs))


def _standard_error(means: FloatArray) -> float:
    """Return the standard error of the mean of batches, with what correlation is left."""
    return (
        float(np.std(means, ddof=1)) / math.sqrt(means.size) * math.sqrt(correlation_factor(means))
    )


def _reach(t: float, lopsided: float) -> tuple[float, float]:
    """Return how many standard errors the interval reaches down and up.

    A mean that missed the long tail is low, and so is its standard error: t is skewed to the
    other side. So the interval is stretched towards the tail, to second order by as much as in
    Hall (JRSS B 1992) if ``lopsided`` is two thirds of the skewness of the mean. That skewness is
    not taken from twenty batch means, which show half of it: the longest spells are those that a
    run has not seen. In queues a mean worth n independent requests is some three times as
    skewed as that of n independent draws, hence ``2 * skewness / sqrt(n)``.
    """
    if abs(lopsided) < _NO_SKEW:
        return t, t
    bounded = min(abs(lopsided), _MOST_LOPSIDED)
    stretched = math.expm1(bounded * t) / bounded
    return (t, stretched) if lopsided > 0 else (stretched, t)
