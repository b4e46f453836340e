"""As many replications as a wanted precision takes, and not more than a limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from simserve.inputs.scenario import Scenario
from simserve.planning.replications import replicate
from simserve.results.run_sample import RunSample
from simserve.results.steady_state import SteadyState, steady_state

PRECISE_METRICS = ("ttft", "tpot", "e2el")
"""Whose 99th percentile a precision is asked of."""
PRECISE_STATISTIC = "p99"
# A first look at the spread; the number is then raised by what the spread asks for.
FIRST_REPLICATIONS = 5
MOST_REPLICATIONS = 100
# Twice as many at a time: the first look may be far too pessimistic.
_GROWTH = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PreciseRuns:
    """What was reached: ``worst_frac`` is the widest relative half-width, None without any."""

    state: SteadyState
    wanted_frac: float
    worst_frac: float | None
    worst_metric: str

    @property
    def reached(self) -> bool:
        """Whether every interval is as narrow as was asked for."""
        return self.worst_frac is not None and self.worst_frac <= self.wanted_frac


def run_until_precise(
    scenario: Scenario,
    wanted_frac: float,
    *,
    begun: Sequence[RunSample] = (),
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> PreciseRuns:
    """Add replications until the p99 of TTFT, TPOT and E2E is known to ``wanted_frac``.

    ``begun`` are the samples of the first replications, if there are any. A deployment without
    a steady state is given up after the first look.
    """
    runs = list(begun)
    wanted = max(FIRST_REPLICATIONS, len(runs))
    while True:
        numbers = range(len(runs), wanted)
        for at in range(0, len(numbers), workers):
            runs += replicate(scenario, numbers[at : at + workers], workers=workers)
            if on_progress is not None:
                on_progress(len(runs), wanted)
        found = _judged(steady_state(runs), wanted_frac)
        if found.reached or found.state.reason is not None or len(runs) >= MOST_REPLICATIONS:
            return found
        wanted = min(_needed(found, len(runs)), MOST_REPLICATIONS)


def _judged(state: SteadyState, wanted_frac: float) -> PreciseRuns:
    widest: tuple[float, str] | None = None
    for metric in PRECISE_METRICS:
        interval = state.interval(metric, PRECISE_STATISTIC)
        if interval is None:  # requests of one token have no TPOT
            continue
        half = interval.relative_half_width
        if half is None and interval.low is None:
            half = math.inf
        if widest is None or (half or 0.0) > widest[0]:
            widest = half or 0.0, metric
    worst, metric = widest if widest is not None else (math.inf, PRECISE_METRICS[0])
    return PreciseRuns(
        state=state,
        wanted_frac=wanted_frac,
        worst_frac=worst if math.isfinite(worst) else None,
        worst_metric=metric,
    )


def _needed(found: PreciseRuns, runs: int) -> int:
    """Return how many replications the spread asks for: half-widths fall with the root."""
    if found.worst_frac is None:
        return runs * _GROWTH
    asked = math.ceil(runs * (found.worst_frac / found.wanted_frac) ** 2)
    return min(max(asked, runs + 1), runs * _GROWTH)
