"""What a deployment does under one load: several replications, and whether it keeps its promises.

All loads meet the same replications, so that two loads differ by the load and not by chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from simserve.inputs.scenario import Scenario
from simserve.planning.loads import LoadDial
from simserve.planning.processes import in_order
from simserve.planning.replications import replication_of
from simserve.planning.run_scenario import run
from simserve.results.attainment import Attainment, attainments
from simserve.results.intervals import Estimates, Interval
from simserve.results.run_sample import RunSample
from simserve.results.warmup import DRAIN_PERCENTILE

# A run shorter than this many latencies is mostly its own beginning and end.
LATENCIES_PER_RUN = 20
# ... but not more than this many times what the scenario asks for.
LONGEST_FACTOR = 8
# More replications than this without a steady state, and the load has none.
UNSTEADY_SHARE = 0.5


@dataclass(frozen=True)
class LoadTest:
    """The replications at ``load``, and what they say together."""

    load: float
    runs: tuple[RunSample, ...]
    attainments: tuple[Attainment, ...]

    @property
    def unsteady_runs(self) -> int:
        """Replications that say nothing of the load: without a steady state, or too short.

        Where the rate changes by design there is none, and an overload counts instead.
        """
        return sum(
            _is_overload_or_short(run) if run.changes else run.unsteady is not None
            for run in self.runs
        )

    @property
    def steady(self) -> bool:
        """Whether most replications are steady."""
        return self.unsteady_runs <= UNSTEADY_SHARE * len(self.runs)

    @property
    def met(self) -> bool:
        """Whether the replications keep every promise."""
        return self.steady and all(one.met for one in self.attainments)

    @property
    def surely_met(self) -> bool:
        """Whether every promise is kept beyond chance."""
        return not self.unsteady_runs and all(one.surely_met for one in self.attainments)

    @property
    def surely_missed(self) -> bool:
        """Whether a promise is broken beyond chance, or the load has no steady state."""
        return not self.steady or any(one.surely_missed for one in self.attainments)

    @property
    def worst(self) -> Attainment:
        """The promise that is kept worst."""
        return max(self.attainments, key=lambda one: one.misses_per_allowed)

    @cached_property
    def goodput_per_s(self) -> Interval | None:
        """Requests per second that are within the limits of all objectives."""
        served = self.served_per_s
        finished = sum(float(run.latencies["e2el"].weights.sum()) for run in self.runs)
        if not finished or served is None:
            return None
        return _times(served, sum(float(run.within.amounts.sum()) for run in self.runs) / finished)

    @cached_property
    def served_per_s(self) -> Interval | None:
        """Requests per second that finish."""
        return self._rate("requests")

    @cached_property
    def output_tokens_per_s(self) -> Interval | None:
        """Tokens per second that are generated."""
        return self._rate("output_tokens")

    @cached_property
    def latency_s(self) -> Interval | None:
        """The mean time from arrival to last token."""
        return self._estimates("e2el").mean()

    def percentile_s(self, metric: str, q: float) -> Interval | None:
        """Return a percentile of a latency."""
        return self._estimates(metric).percentile(q)

    def _estimates(self, metric: str) -> Estimates:
        series = [run.latencies[metric] for run in self.runs if metric in run.latencies]
        return Estimates(series, whole_runs=self.runs[0].changes)

    def _rate(self, name: str) -> Interval | None:
        series = [run.rates[name] for run in self.runs]
        return Estimates(series, whole_runs=self.runs[0].changes, is_rate=True).mean()


class LoadTester:
    """Tests loads of one scenario; each load once."""

    def __init__(
        self, dial: LoadDial, *, replications: int, good_share: float, workers: int
    ) -> None:
        self.dial = dial
        self.tested: dict[float, LoadTest] = {}
        self._numbers = range(replications)
        self._good_share, self._workers = good_share, workers
        self.on_progress: Callable[[int], None] | None = None

    def test(self, load: float) -> LoadTest:
        """Return the test of one load."""
        return self.test_all([load])[0]

    def test_all(self, loads: Sequence[float]) -> list[LoadTest]:
        """Return the tests of several loads, on all processes at once."""
        todo = sorted({load for load in loads if load not in self.tested})
        lengths = {load: self.dial.requests_at(load) for load in todo}
        found = self._run(todo, lengths)
        longer = {
            load: count
            for load in todo
            if (count := self._needed(load, found[load], lengths[load])) is not None
        }
        found |= self._run(sorted(longer), longer)
        for load, runs in found.items():
            kept = attainments(runs, self._good_share)
            self.tested[load] = LoadTest(load=load, runs=tuple(runs), attainments=kept)
        if self.on_progress is not None:
            self.on_progress(len(self.tested))
        return [self.tested[load] for load in loads]

    def _run(
        self, loads: Sequence[float], lengths: dict[float, int] | dict[float, int | None]
    ) -> dict[float, list[RunSample]]:
        tasks = [
            replication_of(self.dial.at(load, lengths[load]), number)
            for load in loads
            for number in self._numbers
        ]
        samples = iter(in_order(_sample, tasks, self._workers))
        return {load: [next(samples) for _ in self._numbers] for load in loads}

    def _needed(self, load: float, runs: Sequence[RunSample], requests: int | None) -> int | None:
        """Return how many requests it takes for runs of enough latencies; None if these do."""
        if requests is None or all(run.verdict == "overloaded" for run in runs):
            return None
        latencies = [run.latencies["e2el"].values for run in runs]
        if not all(map(len, latencies)):
            return None
        latency_s = float(np.mean([values.mean() for values in latencies]))
        spans_s = [run.rates["requests"].weights.sum() for run in runs]
        entries = [len(run.rates["requests"].weights) for run in runs]
        if not sum(spans_s):
            return None
        per_s = sum(entries) / sum(spans_s)
        wanted = math.ceil(per_s * latency_s * LATENCIES_PER_RUN)
        wanted = max(wanted, self.dial.requests_of_conversations(load, latency_s))
        return min(wanted, requests * LONGEST_FACTOR) if wanted > requests else None


def _sample(scenario: Scenario) -> RunSample:
    result = run(scenario)
    return RunSample.of(result.record, result.verdict, result.facts, gaps=False)


def _is_overload_or_short(run: RunSample) -> bool:
    """Return whether a run is overloaded, or half of its arrivals are already its drain.

    The same is asked of steady runs (``SteadyWindow.settled``).
    """
    latencies_s = run.latencies["e2el"].values
    if run.verdict == "overloaded" or not len(latencies_s):
        return True
    lasting_s = float(np.percentile(latencies_s, DRAIN_PERCENTILE))
    return float(run.rates["requests"].weights.sum()) < 2 * lasting_s


def _times(interval: Interval, factor: float) -> Interval:
    low, high = interval.low, interval.high
    return Interval(
        value=interval.value * factor,
        low=None if low is None else low * factor,
        high=None if high is None else high * factor,
        reason=interval.reason,
    )
