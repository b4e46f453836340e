"""Whether a run's latencies are an operating point: stable, backlogged or overloaded.

Offered against served, over the second half of the arrival window. Split that half into equal
intervals and look at how much a count changed in each. If the count only wanders, its
changes cancel; if work arrives faster than it is served, they add up. So the test is
Student's t of the mean change, which asks at once for growth and for growth in most
intervals: a burst in one interval raises the spread as much as the mean.

Two counts are tested. *Waiting* (arrived, not yet scheduled) grows when the engine's limits
keep requests out. *In the system* also grows when everything is let in but each step gets
slower; there growth alone proves nothing, because a long request or a rising rate also
fills the batch. It proves overload only if the larger batch did not serve more work. If it did,
a larger one yet may serve all of it, or run out of memory first: no one can tell from such a run.

*Backlogged* is a run that left a queue behind: all at once, or one left over at the last
arrival. *Undecided* is one too short to tell: growth that may be chance or may end, or a system
that was still filling up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from simserve.records.clock import NEVER_PS, PS_PER_S, PsArray
from simserve.records.run_record import ABORTED, REJECTED, RunRecord
from simserve.results.samples import three_digits
from simserve.results.token_times import left_ps

FloatArray = npt.NDArray[np.float64]
VerdictName = Literal["stable", "undecided", "backlogged", "overloaded"]

# Choices of this module, checked on queues with known load in tests/results/test_verdict.py.
# Intervals in the second half; 20 leave Student's t close to the normal distribution.
INTERVALS = 20
_QUARTER = INTERVALS // 2
# A critical queue (load 1) passes this t about once in 100 runs, one at load 0.95 far less.
T_LIMIT = 2.5
# Between the two, growth may be chance: the run is too short to call it overloaded or stable.
T_DOUBT = 1.5
# Growth of the count over arrivals; below 2 % (load 1.02) the tail is still worth reading.
GROWTH_LIMIT_FRAC = 0.02
# In proportion to time, a count doubles over the second half; a batch that fills up does not.
IN_SYSTEM_RATIO = 1.25
# Work served against batch size, both in logarithms: 1 while filling up, 0 when saturated.
ELASTICITY_LIMIT = 0.5
# Time in the system, last quarter over third; a rising rate that is served leaves it at 1.
STAY_RATIO = 1.1
# By Little's law this share of all requests in the system is a stay of this share of the window:
# of ten stays or fewer, a good part went by before the system was full.
INSIDE_LIMIT_FRAC = 0.1
# There growth counts from so many standard deviations on, were nobody ever held up by others.
CHANCE_DEVIATIONS = 3.0
# A run of fewer requests than this, and of five stays or fewer, is a first look: its system filled
# up, at any load. In a longer one so many in the system are themselves the finding.
FILLING_FRAC, MOST_FILLING = 0.2, 500
# A queue left at the last arrival counts if it takes this share of the window to clear ...
CLEARING_LIMIT_FRAC = 0.05
# ... and holds more than one or two requests caught between two steps.
WAITING_LIMIT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The judgement, and the sentence with numbers that justifies it.

    ``growing``: those in the system became more until the last arrival, and may go on to.
    """

    name: VerdictName
    reason: str
    growing: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def operating_point(self) -> bool:
        """Whether percentiles describe the deployment rather than the run's length."""
        return self.name != "overloaded"


def judge_load(record: RunRecord) -> Verdict:
    """Judge a run; rejected requests are left out, and who gave up has left the queue.

    Conversations that wait for their answers are judged until the last of them began: what comes
    later thins out, whatever the load was.
    """
    users = record.meta.users
    if users is not None:
        reason = f"closed loop: {users:,} users, of whom no more than that can wait"
        return Verdict(name="stable", reason=reason)
    gone_ps = left_ps(record)
    scheduled_ps = record.outcomes.first_scheduled_ps
    gave_up_waiting = (scheduled_ps == NEVER_PS) & (record.outcomes.status == ABORTED)
    scheduled_ps = np.where(gave_up_waiting, gone_ps, scheduled_ps)
    served = record.outcomes.status != REJECTED
    last_ps = record.meta.last_session_ps
    if last_ps is not None:
        served &= record.requests.arrival_ps <= last_ps
    found = judge_times(record.requests.arrival_ps[served], scheduled_ps[served], gone_ps[served])
    if last_ps is None:
        return found
    reason = f"{found.reason} (seen until the last conversation began)"
    return replace(found, reason=reason)


def judge_times(arrival_ps: PsArray, scheduled_ps: PsArray, finish_ps: PsArray) -> Verdict:
    """Judge from the times of requests, in arrival order; ``NEVER_PS`` means not yet."""
    if not len(arrival_ps):
        return Verdict(name="stable", reason="no request was served")
    if len(arrival_ps) == 1:
        return Verdict(name="stable", reason="a single request meets no other")
    window_ps = int(arrival_ps[-1] - arrival_ps[0])
    if window_ps == 0:
        return Verdict(
            name="backlogged",
            reason=f"all {len(arrival_ps):,} requests arrived at once: "
            "latencies show a queue being emptied, not a steady state",
        )
    counts = _Counts.over_window(arrival_ps, scheduled_ps, finish_ps)
    if _trend(counts.waiting, counts.arrivals) >= T_LIMIT:
        return _overloaded(counts, "waiting")
    if counts.filling:
        return _without_overload(counts, arrival_ps, scheduled_ps)
    slower = _trend(counts.in_system, counts.arrivals)
    ratio = counts.in_system[-1] / max(counts.in_system[INTERVALS], 1.0)
    if slower >= T_DOUBT and ratio >= IN_SYSTEM_RATIO:
        saturated = _elasticity(arrival_ps, scheduled_ps, finish_ps) < ELASTICITY_LIMIT
        if saturated and slower >= T_LIMIT:
            return _overloaded(counts, "in the system")
        if saturated or counts.stay_ratio() >= STAY_RATIO:
            return _doubtful(counts, _queue_left(counts, scheduled_ps, arrival_ps))
    if counts.too_short and counts.outgrows_chance:
        return _doubtful(counts, _queue_left(counts, scheduled_ps, arrival_ps), since=_QUARTER)
    return _without_overload(counts, arrival_ps, scheduled_ps)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """Counts at the ends of ``2 * INTERVALS`` equal intervals of the arrival window."""

    window_s: float
    arrivals: FloatArray
    waiting: FloatArray
    in_system: FloatArray

    @classmethod
    def over_window(cls, arrival_ps: PsArray, scheduled_ps: PsArray, finish_ps: PsArray) -> _Counts:
        first_ps, last_ps = int(arrival_ps[0]), int(arrival_ps[-1])
        arrived, scheduled, left = (
            _upto_each_edge(time_ps, first_ps, last_ps)
            for time_ps in (arrival_ps, scheduled_ps, finish_ps)
        )
        return cls(
            window_s=(last_ps - first_ps) / PS_PER_S,
            arrivals=arrived.astype(np.float64),
            waiting=(arrived - scheduled).astype(np.float64),
            in_system=(arrived - left).astype(np.float64),
        )

    @property
    def too_short(self) -> bool:
        """Whether so many of all are in the system at the end that the run shows no steady one."""
        inside = self.in_system[-1]
        return bool(inside >= WAITING_LIMIT and inside > INSIDE_LIMIT_FRAC * self.arrivals[-1])

    @property
    def filling(self) -> bool:
        """Whether the run is so short that its system only filled up, whatever the load."""
        arrived = self.arrivals[-1]
        return bool(arrived < MOST_FILLING and self.in_system[-1] > FILLING_FRAC * arrived)

    @property
    def outgrows_chance(self) -> bool:
        """Whether more came into the system since the first quarter than chance brings.

        With no limits (M/G/infinity) the number is Poisson, so that two differ by at most the root
        of twice their mean (one standard deviation).
        """
        before, after = float(self.in_system[_QUARTER]), float(self.in_system[-1])
        return after - before >= CHANCE_DEVIATIONS * math.sqrt(before + after)

    def stay_ratio(self) -> float:
        """Return how much longer requests stayed in the last quarter than in the third.

        By Little's law a stay is the mean number in the system over the rate of arrivals.
        """
        third, last = slice(INTERVALS, 3 * _QUARTER + 1), slice(3 * _QUARTER, None)
        stays = [
            float(self.in_system[part].mean()) / max(float(np.ptp(self.arrivals[part])), 1.0)
            for part in (third, last)
        ]
        return stays[1] / stays[0] if stays[0] > 0 else math.inf


def _upto_each_edge(time_ps: PsArray, first_ps: int, last_ps: int) -> npt.NDArray[np.int64]:
    """Return how many times lie at or before each of the evenly spaced edges.

    Counting into intervals costs a fifth of sorting. A time within rounding of an inner edge
    may fall on either side; the last edge, at which queues are reported, is exact.
    """
    happened = time_ps[time_ps != NEVER_PS] if (time_ps == NEVER_PS).any() else time_ps
    per_ps = 2 * INTERVALS / (last_ps - first_ps)
    interval = ((np.minimum(happened, last_ps) - first_ps) * per_ps).astype(np.int64)
    upto = np.cumsum(np.bincount(interval, minlength=2 * INTERVALS))[: 2 * INTERVALS]
    upto = np.concatenate([[int((happened <= first_ps).sum())], upto])
    upto[-1] = int((happened <= last_ps).sum())
    return upto


def _trend(count: FloatArray, arrivals: FloatArray) -> float:
    """Return Student's t of a count's growth over the second half; 0 if it grew too little."""
    changes = np.diff(count[INTERVALS:])
    growth = float(count[-1] - count[INTERVALS])
    arrived = float(arrivals[-1] - arrivals[INTERVALS])
    if growth < WAITING_LIMIT or growth < GROWTH_LIMIT_FRAC * arrived:
        return 0.0
    spread = float(np.std(changes, ddof=1)) / math.sqrt(INTERVALS)
    return float(np.mean(changes)) / spread if spread > 0 else math.inf


def _elasticity(arrival_ps: PsArray, scheduled_ps: PsArray, finish_ps: PsArray) -> float:
    """Return how served work followed the batch from the third to the last quarter.

    The work of a request is 1, done evenly between first scheduled and finish. The batch is
    everyone in the system. Who finishes after the last arrival went faster then, so too much of
    their work counts as done before it: a large value proves nothing, a small one does.
    """
    window_ps = int(arrival_ps[-1] - arrival_ps[0])
    edges_ps = int(arrival_ps[0]) + window_ps * np.array([0.5, 0.75, 1.0])
    began = scheduled_ps != NEVER_PS
    start = scheduled_ps[began].astype(np.float64)
    ended = finish_ps[began] != NEVER_PS
    finish = np.where(ended, finish_ps[began], np.inf).astype(np.float64)
    lasting = np.maximum(finish - start, 1.0)
    done = [float((np.clip(edge - start, 0.0, lasting) / lasting).sum()) for edge in edges_ps]
    left = np.where(finish_ps == NEVER_PS, np.inf, finish_ps)
    spent = [float(np.maximum(np.minimum(edge, left) - arrival_ps, 0.0).sum()) for edge in edges_ps]
    if done[1] <= done[0] or done[2] <= done[1]:
        return 1.0
    more_work = (done[2] - done[1]) / (done[1] - done[0])
    larger_batch = (spent[2] - spent[1]) / (spent[1] - spent[0])
    return math.log(more_work) / math.log(larger_batch) if larger_batch > 1 else 0.0


def _overloaded(counts: _Counts, which: str) -> Verdict:
    half_s = counts.window_s / 2
    offered = float(counts.arrivals[-1] - counts.arrivals[INTERVALS]) / half_s
    count = counts.waiting if which == "waiting" else counts.in_system
    growth = float(count[-1] - count[INTERVALS]) / half_s
    verb = "admitted" if which == "waiting" else "finished"
    return Verdict(
        name="overloaded",
        reason=f"{three_digits(offered)} requests/s arrived but only "
        f"{three_digits(max(offered - growth, 0))}/s were {verb}: {count[-1]:,.0f} {which} at the "
        "last arrival and growing; latencies depend on the length of the run",
    )


def _doubtful(counts: _Counts, queue_left: bool, since: int = INTERVALS) -> Verdict:
    before, after = int(counts.in_system[since]), int(counts.in_system[-1])
    part = "second half" if since == INTERVALS else "last three quarters"
    return Verdict(
        name="backlogged" if queue_left else "undecided",
        growing=True,
        reason=f"requests in the system went from {before:,} to {after:,} over the {part} of "
        f"{three_digits(counts.window_s)} s of arrivals{_faster(counts)}; a longer run would tell "
        "whether that goes on",
    )


def _faster(counts: _Counts) -> str:
    """Return that requests came faster in the last quarter than in the third, if beyond chance."""
    third, last = np.diff(counts.arrivals[[INTERVALS, INTERVALS + _QUARTER, 2 * INTERVALS]])
    if last - third < CHANCE_DEVIATIONS * math.sqrt(third + last):
        return ""
    rates = [three_digits(float(one) / (counts.window_s / 4)) for one in (third, last)]
    return f", at whose end they came faster ({rates[0]} and then {rates[1]} per second)"


def _clearing_s(scheduled_ps: PsArray, arrival_ps: PsArray) -> float:
    """Return how long those waiting at the last arrival took; if some still do, all the window."""
    last_ps = int(arrival_ps[-1])
    if (scheduled_ps == NEVER_PS).any():
        return (last_ps - int(arrival_ps[0])) / PS_PER_S
    return max(int(scheduled_ps.max()) - last_ps, 0) / PS_PER_S


def _queue_left(counts: _Counts, scheduled_ps: PsArray, arrival_ps: PsArray) -> bool:
    """Return whether a queue was left at the last arrival that took long to clear."""
    slow = _clearing_s(scheduled_ps, arrival_ps) >= CLEARING_LIMIT_FRAC * counts.window_s
    return bool(counts.waiting[-1] >= WAITING_LIMIT and slow)


def _without_overload(counts: _Counts, arrival_ps: PsArray, scheduled_ps: PsArray) -> Verdict:
    waiting = int(counts.waiting[-1])
    if _queue_left(counts, scheduled_ps, arrival_ps):
        return Verdict(
            name="backlogged",
            reason=f"{waiting:,} of {len(arrival_ps):,} requests were still waiting at the last "
            f"arrival and took {three_digits(_clearing_s(scheduled_ps, arrival_ps))} s to clear, "
            f"after {three_digits(counts.window_s)} s of arrivals",
        )
    inside = int(counts.in_system[-1])
    if counts.too_short:
        return Verdict(
            name="undecided",
            reason=f"{inside:,} of {len(arrival_ps):,} requests were still in the system at the "
            "last arrival: too short a run to show a steady state",
        )
    return Verdict(
        name="stable",
        reason=f"{waiting:,} waiting and {inside:,} in the system at the last arrival, "
        f"no steady growth over {three_digits(counts.window_s)} s of arrivals",
    )
