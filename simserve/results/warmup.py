"""Which part of a run is steady: after the warm-up, before the drain.

A run starts empty, so its first requests are served better than later ones. MSER-5 (White,
Cobb and Spratt, "A comparison of five steady-state truncation heuristics for simulation",
Winter Simulation Conference 2000) leaves out the beginning without which the mean is known
best. It has a fault: it also leaves out a busy spell that happens to come first. That is no
warm-up, so of a run that starts empty only a beginning *below* the rest is left out.

A run ends without successors, so its last requests are served better too. Those that arrived
within one latency of the last arrival are the drain (in a closed loop, of when the users had
nothing left to ask; of conversations that wait for answers, of when the last of them began).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from simserve.records.clock import PS_PER_S
from simserve.records.run_record import RunRecord
from simserve.results.metrics import RequestLatencies
from simserve.results.samples import FloatArray
from simserve.results.token_times import BoolArray, left_ps

MSER_BATCH = 5
# A latency that all but 1 % of requests have: they saw their successors come until they left.
DRAIN_PERCENTILE = 99
# Two halves are compared by means of so many batches; beyond so many errors, it is no chance.
_HALF_BATCHES = 10
_CHANCE_ERRORS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SteadyWindow:
    """Requests ``first`` up to ``stop`` (not included) of a run, in order of arrival.

    ``settled`` is False where no steady part begins in the first half of the requests, or the
    drain is more than half of them: then it is the whole run.
    """

    first: int
    stop: int
    requests: int
    warmup_s: float
    drain_s: float
    settled: bool

    @property
    def drain_requests(self) -> int:
        """How many requests are left out at the end."""
        return self.requests - self.stop

    def mask(self) -> BoolArray:
        """Return which requests belong to it: ``bool[requests]``."""
        inside = np.zeros(self.requests, np.bool_)
        inside[self.first : self.stop] = True
        return inside


def whole_run(record: RunRecord) -> SteadyWindow:
    """Return the window that leaves nothing out, for runs that have no steady state."""
    count = len(record.requests)
    return SteadyWindow(
        first=0, stop=count, requests=count, warmup_s=0.0, drain_s=0.0, settled=True
    )


def steady_window(
    record: RunRecord,
    latencies: RequestLatencies,
    *,
    starts_empty: bool = True,
    users: int | None = None,
) -> SteadyWindow:
    """Return the steady part of a run.

    ``starts_empty`` is False where all ``users`` of a closed loop ask at once at first.
    """
    count = len(record.requests)
    if not latencies.finished.any():
        return whole_run(record)
    arrival_ps = record.requests.arrival_ps
    lasting_s = float(np.nanpercentile(latencies.e2el_s, DRAIN_PERCENTILE))
    before_drain_ps = full_until_ps(record, users) - round(lasting_s * PS_PER_S)
    stop = int(np.searchsorted(arrival_ps, before_drain_ps, side="right"))
    if stop < count / 2:
        return replace(whole_run(record), settled=False)
    first, settled = 0, True
    for series in (latencies.ttft_s[:stop], latencies.tpot_s[:stop]):
        present = np.flatnonzero(~np.isnan(series))
        cut, found = warmup_entries(series[present], starts_empty=starts_empty)
        if cut:
            first = max(first, int(present[cut]))
        settled = settled and found
    return SteadyWindow(
        first=first,
        stop=stop,
        requests=count,
        warmup_s=int(arrival_ps[first] - arrival_ps[0]) / PS_PER_S,
        drain_s=int(arrival_ps[-1] - arrival_ps[min(stop, count - 1)]) / PS_PER_S,
        settled=settled,
    )


def full_until_ps(record: RunRecord, users: int | None) -> int:
    """Return until when requests come as they should.

    To the last arrival; of conversations that wait for answers, until the last of them began;
    in a closed loop until somebody who has an answer finds no next request to ask. Those that
    were taken before still arrive later, after a time to think.
    """
    arrival_ps = record.requests.arrival_ps
    last_session_ps = record.meta.last_session_ps
    if last_session_ps is not None:
        return last_session_ps
    asked_again = len(arrival_ps) - (users or 0)
    if users is None or asked_again < 1:
        return int(arrival_ps[-1])
    answered_ps = np.maximum(left_ps(record), arrival_ps)  # a refusal answers at once
    return int(np.sort(answered_ps)[asked_again - 1])


def warmup_entries(series: FloatArray, *, starts_empty: bool = True) -> tuple[int, bool]:
    """Return how many first entries are warm-up, and whether the rest is settled.

    Not settled: the best place to begin is the last that is looked at, half-way, and the halves
    differ by more than chance.
    """
    cut, limit = mser5(series)
    if not cut:
        return 0, True
    if starts_empty and series[:cut].mean() >= series[cut:].mean():
        return 0, True
    if cut < limit:
        return cut, True
    return (0, True) if _halves_agree(series, cut) else (cut, False)


def _halves_agree(series: FloatArray, cut: int) -> bool:
    """Return whether what is before ``cut`` is no farther from the rest than batches of it are."""
    size = max(len(series[cut:]) // _HALF_BATCHES, 1)
    batches = [series[at : at + size].mean() for at in range(cut, len(series) - size + 1, size)]
    if len(batches) < 2:
        return True
    error = float(np.std(batches, ddof=1)) * math.sqrt(2 / len(batches))
    return abs(float(series[:cut].mean() - series[cut:].mean())) <= _CHANCE_ERRORS * error


def mser5(series: FloatArray) -> tuple[int, int]:
    """Return how many entries MSER-5 leaves out, and the most it may.

    Of means over five entries, those from ``d`` on are kept for the ``d`` in the first half
    that makes their squared deviations over their squared number least.
    """
    count = len(series) // MSER_BATCH
    if count < 2:
        return 0, 0
    means = series[: count * MSER_BATCH].reshape(count, MSER_BATCH).mean(axis=1)
    means = means - means.mean()  # so that the squares below do not cancel
    kept = np.arange(count, 0, -1)
    sums = np.cumsum(means[::-1])[::-1]
    squares = np.cumsum(means[::-1] ** 2)[::-1]
    marginal = (squares - sums**2 / kept) / kept.astype(np.float64) ** 2
    limit = count // 2
    return int(np.argmin(marginal[: limit + 1])) * MSER_BATCH, limit * MSER_BATCH
