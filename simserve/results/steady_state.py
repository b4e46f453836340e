"""The numbers of a deployment, not of one run: every latency and rate with its interval.

One run long enough gives them by batches; more runs of the same scenario, with other seeds,
add theirs. A workload whose rate changes by design has no steady state: then whole runs are
the sample, and several are needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from simserve.results.intervals import Estimates, Interval
from simserve.results.metrics import LATENCY_METRICS
from simserve.results.run_sample import RATES, RunSample

STATISTICS = ("mean", "p50", "p90", "p95", "p99")
# Of runs that are steady a few look otherwise by chance; more than this share is no chance.
UNSTEADY_SHARE = 0.1
# What contains the time of decode steps. Where the batch wanders slowly, that time does, and other
# requests' lengths hide it from the batches of E2E and from the rises of ITL; TPOT shows it.
_PACED = ("tpot", "itl", "e2el")
# Of 100 parts of a run, 25 rises are pure chance. Chosen on the engine at 10 to 26 requests/s.
FEWEST_SLOW_RISES = 10
SLOW_PACE = f"too short: decoding slows down fewer than {FEWEST_SLOW_RISES} times"


@dataclass(frozen=True, slots=True, kw_only=True)
class SteadyState:
    """Intervals by metric and statistic (seconds), and by rate (per second).

    ``reason`` says in one sentence why there are none, if so; both mappings are then empty.
    ``whole_runs`` says that nothing was left out, because the rate changes by design.
    """

    runs: tuple[RunSample, ...]
    latencies: Mapping[str, Mapping[str, Interval]]
    rates: Mapping[str, Interval]
    reason: str | None
    whole_runs: bool

    def interval(self, metric: str, statistic: str) -> Interval | None:
        """Return one interval, None if nothing was measured."""
        return self.latencies.get(metric, {}).get(statistic)


def steady_state(runs: Sequence[RunSample]) -> SteadyState:
    """Return what ``runs`` of one scenario say together."""
    whole_runs = runs[0].changes
    reason = _no_steady_state(runs)
    latencies: Mapping[str, Mapping[str, Interval]] = {}
    rates: dict[str, Interval] = {}
    if reason is None:
        latencies = _latencies(runs, whole_runs)
        for rate in RATES:
            series = [run.rates[rate] for run in runs]
            mean = Estimates(series, whole_runs=whole_runs, is_rate=True).mean()
            if mean is not None:
                rates[rate] = mean
    return SteadyState(
        runs=tuple(runs), latencies=latencies, rates=rates, reason=reason, whole_runs=whole_runs
    )


def _latencies(runs: Sequence[RunSample], whole_runs: bool) -> dict[str, dict[str, Interval]]:
    """Return every statistic of every latency; without ends where decoding wanders too slowly."""
    estimates = {
        metric: Estimates(
            [run.latencies[metric] for run in runs if metric in run.latencies],
            whole_runs=whole_runs,
        )
        for metric in LATENCY_METRICS
    }
    pace = estimates["tpot"]
    wanders = bool(pace.runs) and not whole_runs and pace.slow_rises < FEWEST_SLOW_RISES
    found = {}
    for metric, one in estimates.items():
        statistics = _statistics(one)
        if wanders and metric in _PACED:
            statistics = {
                name: Interval(value=known.value, reason=known.reason or SLOW_PACE)
                for name, known in statistics.items()
            }
        if statistics:
            found[metric] = statistics
    return found


def point_statistics(run: RunSample) -> dict[str, dict[str, float]]:
    """Return the values of one run, by metric and statistic, in seconds."""
    found = {}
    for metric, series in run.latencies.items():
        statistics = _statistics(Estimates([series], whole_runs=True))
        if statistics:
            found[metric] = {name: one.value for name, one in statistics.items()}
    return found


def _statistics(estimates: Estimates) -> dict[str, Interval]:
    found = {name: _statistic(estimates, name) for name in STATISTICS}
    return {name: one for name, one in found.items() if one is not None}


def _statistic(estimates: Estimates, name: str) -> Interval | None:
    return estimates.mean() if name == "mean" else estimates.percentile(float(name[1:]))


def _no_steady_state(runs: Sequence[RunSample]) -> str | None:
    """Return why the runs have no numbers in common, or None if they have."""
    if runs[0].changes:
        if len(runs) > 1:
            return None
        return f"{runs[0].unsteady}; --replications gives intervals over whole runs"
    unsteady = [run for run in runs if run.unsteady is not None]
    if len(unsteady) <= UNSTEADY_SHARE * len(runs):
        return None
    if len(runs) == 1:
        return unsteady[0].unsteady
    return (
        f"{len(unsteady)} of {len(runs)} replications have no steady state; "
        f"with seed {unsteady[0].seed}, {unsteady[0].unsteady}"
    )
