"""Queues whose means and percentiles are known, and how often intervals contain them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal, localcontext

import numpy as np

from simserve.results.batch_means import Series
from simserve.results.intervals import Estimates, Interval
from simserve.results.samples import FloatArray
from simserve.results.warmup import warmup_entries

_DIGITS = 80  # the series for M/D/1 alternates: terms are far larger than their sum


# Squared coefficients of variation of the service, and, of bursty arrivals, of the gaps.
_SERVICE = {"M/M/1": 1.0, "M/D/1": 0.0, "M/lognormal/1": 2.0, "bursty/M/1": 1.0}
_BURSTY = 4.0


@dataclass(frozen=True)
class Queue:
    """One server with mean service 1: ``kind`` is one of ``_SERVICE``.

    Arrivals are Poisson, but for "bursty/M/1": gamma gaps, whose standard deviation is twice
    their mean. Percentiles of "M/lognormal/1" have no closed form.
    """

    kind: str
    load: float

    def sojourn_times(self, requests: int, seed: int) -> FloatArray:
        """Return the times in the system of ``requests`` from an empty start (Lindley)."""
        rng = np.random.default_rng([seed, int(self.load * 100), len(self.kind)])
        if self.kind == "bursty/M/1":
            gaps = rng.gamma(1 / _BURSTY, _BURSTY / self.load, requests)
        else:
            gaps = rng.exponential(1 / self.load, requests)
        arrival, service = np.cumsum(gaps), self._service(rng, requests)
        upto = np.cumsum(service)
        return upto + np.maximum.accumulate(arrival - (upto - service)) - arrival

    def _service(self, rng: np.random.Generator, requests: int) -> FloatArray:
        if self.kind == "M/D/1":
            return np.ones(requests)
        if self.kind == "M/lognormal/1":
            variance = math.log(1 + _SERVICE[self.kind])
            return rng.lognormal(-variance / 2, math.sqrt(variance), requests)
        return rng.exponential(1.0, requests)

    @property
    def mean(self) -> float:
        """The mean time in the system (Pollaczek-Khinchine; of G/M/1, of an exponential)."""
        if self.kind == "bursty/M/1":
            return 1 / self._spare
        return 1 + self.load * (1 + _SERVICE[self.kind]) / (2 * (1 - self.load))

    @property
    def _spare(self) -> float:
        """The rate of the exponential that is the time in the system of M/M/1 and G/M/1.

        Of G/M/1, 1 - x for the x that is the transform of the gaps at 1 - x (Takács, 1962).
        """
        if self.kind == "M/M/1":
            return 1 - self.load
        x = 0.0
        for _ in range(1000):
            x = (1 + _BURSTY * (1 - x) / self.load) ** (-1 / _BURSTY)
        return 1 - x

    def percentile(self, q: float) -> float:
        """Return the percentile of the time in the system."""
        if self.kind in ("M/M/1", "bursty/M/1"):
            return -math.log(1 - q / 100) / self._spare
        low, high = 0.0, 200.0
        while high - low > 1e-9:
            middle = (low + high) / 2
            low, high = (middle, high) if self._md1_wait(middle) < q / 100 else (low, middle)
        return 1 + high

    def _md1_wait(self, t: float) -> float:
        """Return the share that waits at most ``t`` in M/D/1 (Erlang 1909, Crommelin 1932)."""
        with localcontext() as context:
            context.prec = _DIGITS
            load, total, factorial = Decimal(str(self.load)), Decimal(0), Decimal(1)
            for k in range(int(t) + 1):
                factorial *= max(k, 1)
                reach = load * (Decimal(t) - k)
                power = (-reach) ** k if k else Decimal(1)
                total += power / factorial * reach.exp()
            return float((1 - load) * total)


@dataclass(frozen=True)
class Coverage:
    """How many of ``runs`` intervals were printed, and how many of these hold the truth."""

    runs: int
    printed: int
    holding: int

    @property
    def share(self) -> float:
        """The share of printed intervals that hold the truth."""
        return self.holding / self.printed if self.printed else math.nan


def coverage(found: Iterable[Interval | None], truth: float) -> Coverage:
    """Return how well intervals cover ``truth``."""
    intervals = list(found)
    printed = [one for one in intervals if one is not None and one.low is not None]
    holding = sum(
        one.low <= truth <= one.high
        for one in printed
        if one.low is not None and one.high is not None
    )
    return Coverage(len(intervals), len(printed), holding)


def estimates_of(values: FloatArray) -> Estimates:
    """Return the estimates of one run's values, its warm-up left out."""
    cut, _ = warmup_entries(values)
    return Estimates([Series.of_values(values[cut:])])


def coverages(
    draw: Callable[[int], FloatArray], mean: float, p99: float, runs: int
) -> tuple[Coverage, Coverage]:
    """Return the coverage of the mean and of p99 over ``runs`` seeds."""
    found = [estimates_of(draw(seed)) for seed in range(runs)]
    means = coverage([one.mean() for one in found], mean)
    return means, coverage([one.percentile(99) for one in found], p99)
