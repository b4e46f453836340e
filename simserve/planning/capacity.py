"""The highest load that keeps every promise, with an interval.

Doubling and halving bracket it; bisection narrows the bracket. Every load meets the same
replications, and the loads that are tried do not depend on the limits: so a looser limit never
gives a lower capacity. The interval asks the same question twice more, of loads that keep their
promises beyond chance, and of loads that break one beyond chance (Wilson's interval).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from simserve.errors import InputError
from simserve.inputs.scenario import Scenario
from simserve.planning.load_tests import LoadTest, LoadTester
from simserve.planning.loads import LoadDial, load_dial
from simserve.planning.replications import is_random
from simserve.results.promises import GOOD_SHARE
from simserve.traffic.generate import generate

REPLICATIONS = 4
"""Replications per load: enough to tell chance from load, few enough to wait for."""
PRECISION_FRAC = 0.02
"""How close the loads that are told apart lie, as a share of the load."""
# Users beyond this are not looked for; a rate always ends in overload.
MOST_USERS = 4096
# Loads that are nobody's: on average this many requests in the system.
_IDLE_IN_FLIGHT = 0.02
# As a first guess of such a load, and how many requests are tried at it.
_IDLE_FRAC = 1e-3
# The frontier that is shown: shares of the capacity.
FRONTIER = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1)
# A load that was tested already stands for one this close.
_CLOSE_FRAC = 0.08

Answer = Callable[[LoadTest], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What was found. ``load`` is None where not even ``idle`` keeps every promise.

    ``low`` is the highest load that keeps them beyond chance, ``high`` the lowest that breaks
    one beyond chance, None if there is none. ``above`` is the lowest load that was seen to fail;
    None if every load did well up to a limit. ``knee`` is the load beyond which latency grows
    faster than throughput, None if it was not reached. ``frontier`` are tests by rising load.
    """

    dial: LoadDial
    idle: LoadTest
    load: float | None
    low: float | None = None
    high: float | None = None
    at: LoadTest | None = None
    above: LoadTest | None = None
    knee: float | None = None
    frontier: tuple[LoadTest, ...] = ()
    loads_tested: int = 0
    replications: int = 0
    good_share: float = GOOD_SHARE

    @property
    def refused_frac(self) -> float:
        """The share of requests that are refused at any load: no token of an answer has room."""
        scenario = self.dial.at(self.dial.start, self.dial.requests_at(self.dial.start))
        prompts = generate(scenario.workload, scenario.seed).prompt_tokens
        return float((prompts >= scenario.deployment.engine.max_model_len).mean())


def find_capacity(
    scenario: Scenario,
    *,
    users: bool = False,
    think_time_s: float | None = None,
    replications: int = REPLICATIONS,
    good_share: float = GOOD_SHARE,
    precision_frac: float = PRECISION_FRAC,
    workers: int = 1,
    on_progress: Callable[[int], None] | None = None,
) -> Capacity:
    """Return the highest load of ``scenario`` that meets its SLO.

    ``good_share`` is the share of requests of which per-request objectives are asked.
    ``on_progress`` is told how many loads were tested.

    Raises:
        InputError: if there is no SLO, or none that says anything of a request, or the load is
            not one number.
    """
    if scenario.slo is None and not any(one.slo for one in scenario.workload.classes or ()):
        raise InputError("--slo", None, "no objective", "such as 'ttft_p95:500 tpot_p95:50'")
    dial = load_dial(scenario, users=users, think_time_s=think_time_s)
    count = replications if is_random(dial.at(dial.start, dial.requests_at(dial.start))) else 1
    tester = LoadTester(dial, replications=count, good_share=good_share, workers=workers)
    tester.on_progress = on_progress
    idle = _idle(tester)
    if not idle.attainments:
        allowed = "an objective on a latency that some request has"
        raise InputError("--slo", None, str(scenario.slo), allowed)
    if not idle.met:
        return Capacity(dial=dial, idle=idle, load=None, replications=count, good_share=good_share)
    search = _Search(tester, precision_frac)
    below, above = search.bracket(idle.load)
    below, above = search.narrowed(below, above, lambda test: test.met)
    low, high = search.interval(below, above, idle)
    search.add_frontier(below)
    tests = sorted(tester.tested.values(), key=lambda test: test.load)
    return Capacity(
        dial=dial,
        idle=idle,
        load=below,
        low=low,
        high=high,
        at=tester.tested[below],
        above=None if above is None else tester.tested[above],
        knee=knee(tests),
        frontier=_frontier(tests, below),
        loads_tested=len(tester.tested),
        replications=count,
        good_share=good_share,
    )


class _Search:
    """Looks for the load at which an answer turns from yes to no."""

    def __init__(self, tester: LoadTester, precision_frac: float) -> None:
        self._tester, self._dial = tester, tester.dial
        self._ratio = 1 + precision_frac

    def bracket(self, idle: float) -> tuple[float, float | None]:
        """Return a load that is met and twice as much that is not; None if all are met."""
        load = max(self._dial.start, idle)
        if not self._tester.test(load).met:
            while load > idle and not self._tester.test(load).met:
                above, load = load, max(self._rounded(load / 2), idle)
            return load, above
        while self._tester.test(load).met:
            below, load = load, load * 2
            if self._dial.whole and below >= MOST_USERS:
                return below, None
        return below, load

    def narrowed(
        self, below: float, above: float | None, is_yes: Answer, ratio: float | None = None
    ) -> tuple[float, float | None]:
        """Return the bracket as narrow as is asked for, by bisection."""
        while above is not None and not self._is_narrow(below, above, ratio or self._ratio):
            middle = self._rounded(math.sqrt(below * above))
            if not below < middle < above:
                break
            if is_yes(self._tester.test(middle)):
                below = middle
            else:
                above = middle
        return below, above

    def interval(
        self, below: float, above: float | None, idle: LoadTest
    ) -> tuple[float | None, float | None]:
        """Return the highest load that is surely met, and the lowest that is surely missed.

        They are known to twice the width of the bracket of the capacity itself.
        """
        ratio = self._ratio**2
        low: float | None = None
        if self._tester.test(below).surely_met:
            low = below
        else:
            sure = [load for load, test in self._tester.tested.items() if test.surely_met]
            sure = [load for load in sure if load < below]
            if sure:
                low, _ = self.narrowed(max(sure), below, lambda test: test.surely_met, ratio)
        if above is None:
            return low, None
        top = above
        while not self._tester.test(top).surely_missed:
            if self._dial.whole and top >= MOST_USERS:
                return low, None
            top *= 2
        missed = [load for load, test in self._tester.tested.items() if test.surely_missed]
        _, high = self.narrowed(
            below,
            min(load for load in missed if load > below),
            lambda test: not test.surely_missed,
            ratio,
        )
        return low, high

    def add_frontier(self, capacity: float) -> None:
        """Test the loads of the frontier that no test is close to."""
        wanted = {self._rounded(capacity * share) for share in FRONTIER}
        tested = self._tester.tested
        missing = [
            load
            for load in sorted(wanted)
            if load > 0 and not any(abs(math.log(load / one)) < _CLOSE_FRAC for one in tested)
        ]
        self._tester.test_all(missing)

    def _rounded(self, load: float) -> float:
        return float(max(round(load), 1)) if self._dial.whole else load

    def _is_narrow(self, below: float, above: float, ratio: float) -> bool:
        return above <= below * ratio or (self._dial.whole and above - below <= 1)


def knee(tests: Iterable[LoadTest]) -> float | None:
    """Return the load with the most throughput per latency; None if that is the highest.

    Kleinrock's power (IEEE International Conference on Communications 1979): up to its
    maximum more load buys more throughput than it costs latency, beyond it less. Loads without
    a steady state have neither: what came is not what is served.
    """
    powers = []
    for test in tests:
        served, latency = test.served_per_s, test.latency_s
        if not test.steady:
            continue
        if served is not None and latency is not None and latency.value > 0:
            powers.append((served.value / latency.value, test.load))
    if not powers:
        return None
    _, best = max(powers)
    return best if best < powers[-1][1] else None


def _idle(tester: LoadTester) -> LoadTest:
    """Return the test of a load so low that requests do not meet: one user, or next to no rate."""
    if tester.dial.whole:
        return tester.test(1.0)
    load = tester.dial.start * _IDLE_FRAC
    while True:
        test = tester.test(load)
        latency = test.latency_s
        if latency is None or load * latency.value <= _IDLE_IN_FLIGHT:
            return test
        load = _IDLE_IN_FLIGHT / 2 / latency.value


def _frontier(tests: list[LoadTest], capacity: float) -> tuple[LoadTest, ...]:
    """Return the tests nearest to the shares of the frontier, each once, by load."""
    shown = {
        min(tests, key=lambda test: abs(math.log(test.load / (capacity * share)))).load
        for share in FRONTIER
    }
    return tuple(test for test in tests if test.load in shown)
