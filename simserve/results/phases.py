"""The life of a request as phases: queue, prefill, decode, and where decoding was interrupted.

Phases follow one another without a gap, from arrival to the instant at which the request was
answered or given up (of an unfinished one, to the end of the run).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from simserve.records.clock import NEVER_PS
from simserve.records.requests import IntArray
from simserve.records.run_record import REJECTED, RunRecord
from simserve.results.token_times import left_ps, step_clock

QUEUE, PREFILL, DECODE, PREEMPTED, PAUSED = "queue", "prefill", "decode", "preempted", "paused"
PHASES = (QUEUE, PREFILL, DECODE, PREEMPTED, PAUSED)
"""Preempted: from the last token before to the first one after, recomputation included. Paused:
steps that left a decoding request out (no budget for it, or prompts came first)."""


class Phase(NamedTuple):
    """One phase, from ``start_ps`` to ``end_ps``."""

    name: str
    start_ps: int
    end_ps: int


def request_phases(
    record: RunRecord, chosen: Sequence[int] | IntArray
) -> Iterator[tuple[int, list[Phase]]]:
    """Yield each of the ``chosen`` requests with its phases; none for a rejected one."""
    clock, out, gaps = step_clock(record), record.outcomes, record.gaps
    gone_ps = left_ps(record)
    order = np.lexsort((gaps.previous_step, gaps.request))
    begin = np.searchsorted(gaps.request[order], np.arange(len(record.requests) + 1))
    for request in map(int, chosen):
        if out.status[request] == REJECTED:
            yield request, []
            continue
        stop_ps = int(gone_ps[request])
        if stop_ps == NEVER_PS:
            stop_ps = record.end_ps
        marks = [(QUEUE, int(record.requests.arrival_ps[request]))]
        for name, time_ps in (
            (PREFILL, int(out.first_scheduled_ps[request])),
            (DECODE, int(out.first_token_ps[request])),
        ):
            if time_ps != NEVER_PS:
                marks.append((name, time_ps))
        base = clock.offset[out.replica[request]]
        for gap in order[begin[request] : begin[request + 1]]:
            lost = PAUSED if gaps.as_decode[gap] else PREEMPTED
            marks.append((lost, int(clock.end_ps[base + gaps.previous_step[gap]])))
            marks.append((DECODE, int(clock.end_ps[base + gaps.step[gap]])))
        yield request, _between(marks, stop_ps)


def _between(marks: Sequence[tuple[str, int]], stop_ps: int) -> list[Phase]:
    """Return the phases that begin at ``marks``; a phase that takes no time is left out."""
    # An engine learns of a client that gave up when the step under way ends.
    starts_ps = [min(start_ps, stop_ps) for _, start_ps in marks]
    ends_ps = [*starts_ps[1:], stop_ps]
    return [
        Phase(name, start_ps, end_ps)
        for (name, _), start_ps, end_ps in zip(marks, starts_ps, ends_ps, strict=True)
        if end_ps > start_ps
    ]
