"""Step-for-step comparison with a real scheduler, through the objects that ``run`` uses.

Each case is served twice by the same cluster, replica and scheduler classes as any run: once
with every step looked at, request by request, and once in stretches, as runs are. Both must
equal the record.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simserve.engine.cluster import Cluster
from simserve.engine.world import StepObserver
from simserve.parity.case import Case
from simserve.parity.case_file import Record, load_case, load_expected
from simserve.parity.case_writer import CaseWriter, request_records
from simserve.policy.limits import SchedulerLimits
from simserve.policy.registry import SCHEDULERS
from simserve.policy.router import RoundRobin
from simserve.policy.scheduler import Scheduler
from simserve.records.clock import PS_PER_NS
from simserve.records.run_record import RunRecord

MakeScheduler = Callable[[SchedulerLimits], Scheduler]

FAST = "chunked-prefill"
"""The scheduler that runs use unless told otherwise."""

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
"""Characters of a difference that a message shows."""


@dataclass(frozen=True, slots=True)
class CaseReport:
    """What comparing one case gave.

    ``detail`` tells of the first difference; if it is a step, ``expected`` and ``got`` are
    both its states.
    """

    name: str
    steps: int
    diverging_steps: int
    detail: str | None = None
    expected: Record | None = None
    got: Record | None = None

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
    return compare_case(load_case(path), load_expected(path), make_scheduler)


def compare_case(
    case: Case, expected: list[Record], make_scheduler: MakeScheduler | None = None
) -> CaseReport:
    """Replay a case and compare every step and every request with ``expected``."""
    steps = [record for record in expected if record["type"] == "step"]
    requests = [record for record in expected if record["type"] == "request"]
    make = make_scheduler or SCHEDULERS[FAST]
    writer = CaseWriter(most_steps(case))
    run = serve_case(case, make, writer)
    diverging, first = _compare_steps(steps, writer.records)
    if first is not None:
        return CaseReport(case.name, len(steps), diverging, *first)
    detail = _compare_requests(requests, request_records(case, run))
    if detail is None:
        in_stretches = serve_case(case, make)
        diverging, detail = _compare_expanded(steps, in_stretches)
        detail = detail or _compare_requests(requests, request_records(case, in_stretches))
    return CaseReport(case.name, len(steps), diverging, detail)


def serve_case(
    case: Case, make_scheduler: MakeScheduler, observer: StepObserver | None = None
) -> RunRecord:
    """Serve a case's requests on one replica."""
    return Cluster(
        case.requests, case.limits, make_scheduler, case.step_time, RoundRobin(), 1, observer
    ).run()


def records_by(case: Case, scheduler: str) -> list[Record]:
    """Return the records of a case as the scheduler called ``scheduler`` here serves it.

    Raises:
        SimserveError: if requests preempt each other without end.
    """
    writer = CaseWriter(most_steps(case))
    run = serve_case(case, SCHEDULERS[scheduler], writer)
    return [*writer.records, *request_records(case, run)]


def most_steps(case: Case) -> int:
    """Return more steps than any order needs: each computes a token, unless work is redone."""
    tokens = case.requests.prompt_tokens.sum() + case.requests.output_tokens.sum()
    return 1000 + 4 * int(tokens)  # the bound of the driver that recorded the cases


Difference = tuple[str, Record | None, Record | None]


def _compare_steps(expected: list[Record], got: list[Record]) -> tuple[int, Difference | None]:
    diverging = 0
    first: Difference | None = None
    for want, have in zip(expected, got, strict=False):
        if want != have:
            diverging += 1
            first = first or (_difference(want, have), want, have)
    missing = abs(len(expected) - len(got))
    if missing and first is None:
        common = min(len(expected), len(got))
        first = (
            f"{len(expected)} steps expected, {len(got)} planned",
            expected[common] if len(expected) > common else None,
            got[common] if len(got) > common else None,
        )
    return diverging + missing, first


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
    for name in ("admitted", "preempted", "finished", "aborted"):
        differs |= np.array([len(record.get(name, ())) for record in expected]) != columns[name]
    if not differs.any():
        return 0, None
    first = int(np.argmax(differs))
    have = {name: int(columns[column][first]) for name, column in EXPANDED.items()}
    want = {name: expected[first][name] for name in EXPANDED}
    return int(differs.sum()), f"in stretches: {_difference({**want, 'step': first}, have)}"


def _compare_requests(expected: list[Record], got: list[Record]) -> str | None:
    for want in expected:
        have = got[want["i"]] if want["i"] < len(got) else None
        if want != have:
            return f"request {want['i']}: expected {json.dumps(want)}, got {json.dumps(have)}"
    return None
