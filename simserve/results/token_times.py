"""When each token appeared, from the step log: pooled gaps without an array per token.

An uninterrupted request gets one token at the end of every step from its first to its last.
So the tokens of a step are counted by adding one at each request's first step and taking it
away after its last; the few tokens that skipped steps (preempted and recomputed, or out of
budget) are listed in ``TokenGaps`` and corrected one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simserve.records.clock import NEVER_PS, PS_PER_S, PsArray
from simserve.records.requests import IntArray
from simserve.records.run_record import ABORTED, FINISHED, RunRecord
from simserve.results.samples import Sample

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepClock:
    """The steps of all replicas end to end: replica ``r`` owns those from ``offset[r]``."""

    end_ps: PsArray  # [all steps]: when the step's tokens appear
    since_previous_ps: IntArray  # [all steps]: time since the previous end on that replica
    offset: IntArray  # [replicas + 1]


def step_clock(record: RunRecord) -> StepClock:
    """Return the ends of all steps; a replica's first step counts from its own start."""
    sizes = [log.total_steps for log in record.steps]
    ends = [log.end_per_step_ps() for log in record.steps]
    gaps = [
        np.diff(end_ps, prepend=log.start_ps[:1])
        for log, end_ps in zip(record.steps, ends, strict=True)
    ]
    return StepClock(
        end_ps=np.concatenate([*ends, np.empty(0, np.int64)]),
        since_previous_ps=np.concatenate([*gaps, np.empty(0, np.int64)]),
        offset=np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCounts:
    """How many tokens of the chosen requests appeared in each step, by kind."""

    tokens: IntArray  # [all steps]: all of them
    followers: IntArray  # [all steps]: those whose predecessor came one step earlier
    gap_ps: IntArray  # [gaps of the chosen]: the other waits, request by request


def count_tokens(record: RunRecord, clock: StepClock, chosen: BoolArray) -> TokenCounts:
    """Count the tokens per step of the ``chosen`` requests that got any."""
    out, steps = record.outcomes, len(clock.end_ps)
    picked = np.flatnonzero(chosen & (out.first_token_ps != NEVER_PS))
    base = clock.offset[out.replica[picked]]
    first, last = base + out.first_token_step[picked], base + out.last_token_step[picked]

    gaps = record.gaps
    taken = np.flatnonzero(np.isin(gaps.request, picked))
    gap_base = clock.offset[out.replica[gaps.request[taken]]]
    before, after = gap_base + gaps.previous_step[taken], gap_base + gaps.step[taken]

    change = np.bincount(first, minlength=steps + 1) - np.bincount(last + 1, minlength=steps + 1)
    change -= np.bincount(before + 1, minlength=steps + 1)
    change += np.bincount(after, minlength=steps + 1)
    tokens = np.cumsum(change)[:steps].astype(np.int64)
    followers = tokens - np.bincount(first, minlength=steps) - np.bincount(after, minlength=steps)
    return TokenCounts(
        tokens=tokens, followers=followers, gap_ps=clock.end_ps[after] - clock.end_ps[before]
    )


def pooled_gaps(clock: StepClock, counts: TokenCounts) -> Sample:
    """Return every wait between two tokens of one request, pooled over requests."""
    used = counts.followers > 0
    values_ps = np.concatenate([clock.since_previous_ps[used], counts.gap_ps])
    repeats = np.concatenate([counts.followers[used], np.ones(len(counts.gap_ps), np.int64)])
    return Sample(values_ps / PS_PER_S, repeats)


def finished_requests(record: RunRecord) -> BoolArray:
    """Return which requests got their last token: ``bool[requests]``."""
    return np.asarray(record.outcomes.status == FINISHED)


def left_ps(record: RunRecord) -> PsArray:
    """Return when every request was answered or given up by its client: ``int64[requests]``.

    ``NEVER_PS`` for those that neither happened to. An engine learns of a client that gave up
    when the step under way ends; this is the client's time.
    """
    out, requests = record.outcomes, record.requests
    if requests.give_up_ps is None:
        return out.finish_ps
    gave_up_ps = requests.arrival_ps + requests.give_up_ps
    return np.where(out.status == ABORTED, gave_up_ps, out.finish_ps)


def token_ends_ps(record: RunRecord, clock: StepClock) -> list[PsArray]:
    """Return, for every request, when each of its tokens appeared (empty without any)."""
    out, gaps = record.outcomes, record.gaps
    order = np.argsort(gaps.request, kind="stable")
    begin = np.searchsorted(gaps.request[order], np.arange(len(record.requests) + 1))
    times: list[PsArray] = []
    for request in range(len(record.requests)):
        if out.first_token_ps[request] == NEVER_PS:
            times.append(np.empty(0, np.int64))
            continue
        base = int(clock.offset[out.replica[request]])
        first, last = int(out.first_token_step[request]), int(out.last_token_step[request])
        ends = clock.end_ps[base + first : base + last + 1]
        skips = order[begin[request] : begin[request + 1]]
        if len(skips):
            got = np.ones(len(ends), np.bool_)
            for skip in skips:
                got[gaps.previous_step[skip] + 1 - first : gaps.step[skip] - first] = False
            ends = ends[got]
        times.append(ends)
    return times
