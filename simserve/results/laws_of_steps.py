"""Laws of a run's steps: the clock, the blocks, the batch and the queue."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from simserve.records.clock import NEVER_PS, PsArray
from simserve.records.run_record import ABORTED, UNFINISHED, RunRecord
from simserve.results.law_terms import Broken, Law, Limits, Served, first, in_step
from simserve.results.token_times import left_ps


def _clock_never_back(record: RunRecord, limits: Limits, replicas: list[Served]) -> Broken:
    """Steps follow each other, take no negative time, and the last one ends the run."""
    ends: list[int] = []
    for one in replicas:
        start_ps, end_ps = one.steps["start_ps"], one.steps["end_ps"]
        ends += end_ps[-1:].tolist()
        if (end_ps < start_ps).any():
            at = first(end_ps < start_ps)
            yield in_step(one, at, f"ends at {end_ps[at]} ps, starts at {start_ps[at]} ps")
        back = start_ps[1:] < end_ps[:-1]
        if back.any():
            at = first(back) + 1
            yield in_step(one, at, f"starts at {start_ps[at]} ps, before {end_ps[at - 1]} ps")
        if len(start_ps) and start_ps[0] < 0:
            yield in_step(one, 0, f"starts at {start_ps[0]} ps, before the clock")
    if ends and max(ends) != record.end_ps:
        yield f"the last step ends at {max(ends)} ps, the run at {record.end_ps} ps"


def _blocks_within_limits(record: RunRecord, limits: Limits, replicas: list[Served]) -> Broken:
    """Free blocks lie between none and all, and all come back."""
    for one in replicas:
        if one.log.num_blocks != limits.usable_blocks:
            yield f"{one.log.num_blocks} blocks in the run, {limits.usable_blocks} in its settings"
        for name in ("free_blocks", "free_blocks_end"):
            free = one.steps[name]
            wrong = (free < 0) | (free > one.log.num_blocks)
            if wrong.any():
                at = first(wrong)
                yield in_step(one, at, f"{name} is {free[at]} of {one.log.num_blocks} blocks")
        if (one.log.new_blocks < 0).any():
            yield in_step(one, first(one.log.new_blocks < 0), "takes fewer than 0 blocks")
        left = int(one.steps["free_blocks_end"][-1]) if len(one.log) else one.log.num_blocks
        done = not (record.outcomes.status[one.mine] == UNFINISHED).any()
        if done and left != one.log.num_blocks:
            yield f"replica {one.number}: {left} blocks free at the end of {one.log.num_blocks}"


def _batch_within_limits(record: RunRecord, limits: Limits, replicas: list[Served]) -> Broken:
    """No step computes more tokens or runs more requests than the engine's limits."""
    for one in replicas:
        for name, most in (
            ("tokens", limits.max_num_batched_tokens),
            ("running", limits.max_running),
        ):
            wrong = (one.steps[name] > most) | (one.steps[name] < 0)
            if wrong.any():
                at = first(wrong)
                yield in_step(one, at, f"{name} is {one.steps[name][at]}, the limit {most}")


def _queue_counts(record: RunRecord, limits: Limits, replicas: list[Served]) -> Broken:
    """Running and waiting, at each step, are those who have come and not left.

    A step that is planned ahead counts when the one before it starts; after a pause, or when
    that one left nothing to do, when it starts itself.
    """
    for one in replicas:
        start_ps = one.steps["start_ps"]
        counted = one.steps["running"] + one.steps["waiting"]
        inside = _inside(record, one, start_ps)
        wrong = counted != inside
        if limits.scheduled_ahead and len(start_ps):
            busy = np.append(False, start_ps[1:] == one.steps["end_ps"][:-1])
            earlier = _inside(record, one, np.append(start_ps[:1], start_ps[:-1]))
            wrong &= ~(busy & (counted == earlier))
        if wrong.any():
            at = first(wrong)
            yield in_step(
                one, at, f"running + waiting is {counted[at]}, arrived - left is {inside[at]}"
            )


def _littles_law(record: RunRecord, limits: Limits, replicas: list[Served]) -> Broken:
    """The number in the system over time is the sum of the times in it: L = λ W.

    Steps count who is there when they are planned, so the two may differ by at most two of
    the longest steps per request.
    """
    out = record.outcomes
    for one in replicas:
        if not len(one.log) or (out.status[one.mine] == UNFINISHED).any():
            continue
        duration_ps = one.steps["end_ps"] - one.steps["start_ps"]
        counted = (one.steps["running"] + one.steps["waiting"]).astype(np.float64)
        area_ps = float(np.dot(counted, duration_ps.astype(np.float64)))
        spent = (_gone_ps(record, one) - record.requests.arrival_ps)[one.mine]
        spent_ps = float(spent.astype(np.float64).sum())
        slack_ps = 2.0 * float(duration_ps.max()) * int(one.mine.sum())
        if abs(area_ps - spent_ps) > slack_ps:
            span_ps = float(record.end_ps - record.requests.arrival_ps[0]) or 1.0
            yield (
                f"replica {one.number}: L is {area_ps / span_ps:.6g} by steps, "
                f"λW is {spent_ps / span_ps:.6g} by requests"
            )


def _inside(record: RunRecord, one: Served, time_ps: PsArray) -> npt.NDArray[np.int64]:
    """Return how many requests of a replica have come and not left, at each of the times."""
    arrival_ps = np.sort(record.requests.arrival_ps[one.mine])
    gone_ps = _gone_ps(record, one)[one.mine]
    gone_ps = np.sort(gone_ps[gone_ps != NEVER_PS])
    come = np.searchsorted(arrival_ps, time_ps, side="right")
    return np.asarray(come - np.searchsorted(gone_ps, time_ps, side="right"), np.int64)


def _gone_ps(record: RunRecord, one: Served) -> PsArray:
    """Return when the engine let go of requests: aborted ones when the step under way ends."""
    gone_ps = left_ps(record)
    aborted = record.outcomes.status == ABORTED
    if not aborted.any():
        return gone_ps
    end_ps = one.steps["end_ps"]
    step = np.minimum(np.searchsorted(end_ps, gone_ps), len(end_ps) - 1)
    return np.where(aborted & one.mine, end_ps[step], gone_ps)


STEP_LAWS: dict[str, Law] = {
    "clock-never-back": _clock_never_back,
    "blocks-within-limits": _blocks_within_limits,
    "batch-within-limits": _batch_within_limits,
    "queue-counts": _queue_counts,
    "littles-law": _littles_law,
}
"""These laws by name, in the order in which they are told."""
