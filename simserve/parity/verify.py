"""Step-for-step comparison with a real scheduler, through the objects that ``run`` uses.

Each case is served twice by the same cluster, replica and scheduler classes as any run: once
with every step looked at, request by request, and once in stretches, as runs are. Both must
equal the record.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simserve.engine.cluster import Cluster
from simserve.engine.replica import Flight, Replica, StepObserver
from simserve.parity.case import Case, load_case, load_expected
from simserve.policy.limits import SchedulerLimits
from simserve.policy.registry import SCHEDULERS
from simserve.policy.router import RoundRobin
from simserve.policy.scheduler import Scheduler, StepPlan
from simserve.records.clock import NEVER_PS, PS_PER_NS, PsArray
from simserve.records.run_record import RunRecord

Record = dict[str, Any]
MakeScheduler = Callable[[SchedulerLimits], Scheduler]

EXPANDED = {
    "t_start": "start_ps",
    "t_end": "end_ps",
    "tokens": "tokens",
    "running": "running",
    "waiting": "waiting",
    "free": "free_blocks",
    "free_end": "free_blocks_end",
}
"""Fields of a case's step record, and the columns of an expanded step log."""

SHOWN = 300
"""Characters of a state that a message shows."""


@dataclass(frozen=True, slots=True)
class CaseReport:
    """What comparing one case gave; ``detail`` tells of the first difference."""

    name: str
    steps: int
    diverging_steps: int
    detail: str | None = None

    @property
    def same(self) -> bool:
        """Whether nothing differed."""
        return self.diverging_steps == 0 and self.detail is None


def verify_case(path: str | Path, make_scheduler: MakeScheduler | None = None) -> CaseReport:
    """Replay a case and compare every step and every request with the record beside it.

    Raises:
        InputError: if the case or its record cannot be read.
    """
    path = Path(path)
    case, expected = load_case(path), load_expected(path)
    steps = [record for record in expected if record["type"] == "step"]
    requests = [record for record in expected if record["type"] == "request"]
    make = make_scheduler or SCHEDULERS["chunked-prefill"]
    writer = CaseWriter()
    run = serve_case(case, make, writer)
    diverging, detail = _compare_steps(steps, writer.records)
    if detail is None:
        detail = _compare_requests(requests, case, run)
    if detail is None:
        in_stretches = serve_case(case, make)
        diverging, detail = _compare_expanded(steps, in_stretches)
        detail = detail or _compare_requests(requests, case, in_stretches)
    return CaseReport(case.name, len(steps), diverging, detail)


def serve_case(
    case: Case, make_scheduler: MakeScheduler, observer: StepObserver | None = None
) -> RunRecord:
    """Serve a case's requests on one replica."""
    return Cluster(
        case.requests, case.limits, make_scheduler, case.step_time, RoundRobin(), 1, observer
    ).run()


class CaseWriter:
    """Writes down every step in the form of a case's step records."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._open: deque[tuple[Record, list[int]]] = deque()  # planned, not completed

    def on_step(self, replica: Replica, flight: Flight, planned_ps: int) -> None:
        """Note a planned step."""
        scheduler, plan = replica.scheduler, flight.plan
        scheduled = scheduler.last_scheduled()
        self.records.append(
            {
                "type": "step",
                "step": len(self.records),
                "t_sched": planned_ps // PS_PER_NS,
                "t_start": flight.start_ps // PS_PER_NS,
                "t_end": flight.end_ps // PS_PER_NS,
                "tokens": sum(entry.new_tokens for entry in scheduled),
                "ctx": sum(entry.new_tokens + entry.past_tokens for entry in scheduled),
                "sched": [
                    e.request if e.decode else [e.request, e.new_tokens, e.past_tokens]
                    for e in scheduled
                ],
                "admitted": [[a.request, a.cached_tokens, int(a.resumed)] for a in plan.admitted],
                "preempted": list(plan.preempted),
                "running": scheduler.running,
                "waiting": scheduler.waiting,
                "free": scheduler.free_blocks,
                "cached": getattr(scheduler, "cached_contents", None),
            }
        )
        self._open.append((self.records[-1], [entry.request for entry in scheduled]))

    def on_complete(self, replica: Replica, plan: StepPlan, finished: list[int]) -> None:
        """Note what a delivered step finished."""
        record, order = self._open.popleft()
        record["finished"] = sorted(finished, key=order.index)
        record["free_end"] = replica.scheduler.free_blocks


def _compare_steps(expected: list[Record], got: list[Record]) -> tuple[int, str | None]:
    diverging, detail = 0, None
    for want, have in zip(expected, got, strict=False):
        if want != have:
            diverging += 1
            detail = detail or _difference(want, have)
    missing = abs(len(expected) - len(got))
    if missing and detail is None:
        detail = f"{len(expected)} steps expected, {len(got)} planned"
    return diverging + missing, detail


def _difference(want: Record, have: Record) -> str:
    names = [name for name in want if want[name] != have.get(name)]
    expected = json.dumps({name: want[name] for name in names})[:SHOWN]
    got = json.dumps({name: have.get(name) for name in names})[:SHOWN]
    return f"first at step {want['step']}: expected {expected}, got {got}"


def _compare_expanded(expected: list[Record], run: RunRecord) -> tuple[int, str | None]:
    log = run.steps[0]
    columns = log.expand()
    for name in ("start_ps", "end_ps"):
        columns[name] = columns[name] // PS_PER_NS
    if log.total_steps != len(expected):
        return abs(log.total_steps - len(expected)), (
            f"in stretches: {len(expected)} steps expected, {log.total_steps} planned"
        )
    differs = np.zeros(len(expected), dtype=bool)
    for name, column in EXPANDED.items():
        differs |= np.array([record[name] for record in expected]) != columns[column]
    for name in ("admitted", "preempted", "finished"):
        differs |= np.array([len(record[name]) for record in expected]) != columns[name]
    if not differs.any():
        return 0, None
    first = int(np.argmax(differs))
    have = {name: int(columns[column][first]) for name, column in EXPANDED.items()}
    want = {name: expected[first][name] for name in EXPANDED}
    return int(differs.sum()), f"in stretches: {_difference({**want, 'step': first}, have)}"


def _compare_requests(expected: list[Record], case: Case, run: RunRecord) -> str | None:
    outcomes = run.outcomes

    def ns(column: PsArray, request: int) -> int | None:
        ps = int(column[request])
        return None if ps == NEVER_PS else ps // PS_PER_NS

    for want in expected:
        i = want["i"]
        have: Record = {
            "type": "request",
            "i": i,
            "id": case.requests.id_of(i),
            "arrival": int(case.requests.arrival_ps[i]) // PS_PER_NS,
            "prompt_tokens": int(case.requests.prompt_tokens[i]),
            "output_tokens": int(outcomes.generated_tokens[i]),
            "first_scheduled": ns(outcomes.first_scheduled_ps, i),
            "first_token": ns(outcomes.first_token_ps, i),
            "finish": ns(outcomes.finish_ps, i),
            "preemptions": int(outcomes.preemptions[i]),
            "cached_tokens": int(outcomes.cached_tokens[i]),
        }
        if want != have:
            return f"request {i}: expected {json.dumps(want)}, got {json.dumps(have)}"
    return None
