"""Makes a case that shows a difference as small as it goes, while it still shows it.

Greedy: fewer requests, then simpler settings, then simpler requests, again and again until
nothing helps. Only cases that vLLM would accept are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, replace
from functools import partial
from typing import Any

from simserve.parity.case import Case, CaseRequest, CaseStepTime, rows_of, table_of
from simserve.parity.fuzz_draw import is_valid
from simserve.policy.limits import SchedulerLimits
from simserve.records.clock import PS_PER_MS

MOST_TRIES = 3000
"""Candidates that are looked at before a case is small enough as it is."""

NUMBERS = (
    "max_num_seqs",
    "max_num_batched_tokens",
    "max_model_len",
    "num_blocks",
    "block_size",
    "long_prefill_token_threshold",
    "max_num_active_seqs",
    "prefill_schedule_interval",
)
"""Settings that may become smaller."""

DEFAULT_BLOCK_SIZE = 16
"""A default that is no simpler than a smaller number."""

SIMPLEST_STEP = CaseStepTime(PS_PER_MS, 0, 0)


def shrink(case: Case, diverges: Callable[[Case], bool]) -> Case:
    """Return a smaller case for which ``diverges`` still holds."""
    tries = [MOST_TRIES]
    before = None
    while case is not before and tries[0] > 0:
        before = case
        for simpler in _ways(case.limits):
            case = _follow(case, simpler, diverges, tries)
    return case


Way = Callable[[Case], Iterator[Case]]
"""Gives the cases that are simpler in one respect."""


def _follow(case: Case, way: Way, diverges: Callable[[Case], bool], tries: list[int]) -> Case:
    """Go one way for as long as it helps; ``tries`` holds how many are left."""
    found: Case | None = case
    while found is not None:
        case, found = found, None
        for candidate in way(case):
            if not is_valid(candidate.limits, rows_of(candidate.requests)):
                continue
            tries[0] -= 1
            if tries[0] < 0:
                return case
            if diverges(candidate):
                found = candidate
                break
    return case


def _ways(limits: SchedulerLimits) -> list[Way]:
    settings = [partial(_simpler_setting, field=field) for field in fields(limits)]
    return [_fewer_requests, *settings, _simplest_step_time, _simpler_requests]


def _fewer_requests(case: Case) -> Iterator[Case]:
    """Yield the case without a half, a quarter, ... a single one of its requests."""
    rows = rows_of(case.requests)
    size = len(rows) // 2
    while size:
        for start in range(0, len(rows), size):
            kept = rows[:start] + rows[start + size :]
            if kept:
                yield replace(case, requests=table_of(kept))
        size //= 2


def _simpler_setting(case: Case, field: Field[Any]) -> Iterator[Case]:
    value = getattr(case.limits, field.name)
    simpler: list[Any] = [] if field.default in (MISSING, DEFAULT_BLOCK_SIZE) else [field.default]
    if field.name in NUMBERS and value:
        simpler += [value // 2, value - max(value // 8, 1), value - 1]
    for other in simpler:
        if other != value:
            yield replace(case, limits=replace(case.limits, **{field.name: other}))


def _simplest_step_time(case: Case) -> Iterator[Case]:
    if case.step_time != SIMPLEST_STEP:
        yield replace(case, step_time=SIMPLEST_STEP)


def _simpler_requests(case: Case) -> Iterator[Case]:
    for rows in _simpler_rows(rows_of(case.requests)):
        yield replace(case, requests=table_of(rows))


def _simpler_rows(rows: list[CaseRequest]) -> Iterator[list[CaseRequest]]:
    """Yield rows with one of them changed, or all of them at once."""
    named = [row._replace(request_id=f"r{i}") for i, row in enumerate(rows)]
    together = [row._replace(arrival_ns=0) for row in named]
    alike = [row._replace(priority=0, output_segment=None) for row in named]
    for changed in (together, alike, named):
        if changed != rows:
            yield changed
    for i, row in enumerate(rows):
        earlier_ns = rows[i - 1].arrival_ns if i else 0
        for simpler in _simpler(row, earlier_ns):
            if simpler != row:
                yield [*rows[:i], simpler, *rows[i + 1 :]]


def _simpler(row: CaseRequest, earlier_ns: int) -> Iterator[CaseRequest]:
    yield row._replace(arrival_ns=earlier_ns)
    yield row._replace(priority=0)
    yield row._replace(output_segment=None)
    yield row._replace(give_up_ns=None)
    for tokens in (1, row.output_tokens // 2, row.output_tokens - 1):
        if 0 < tokens < row.output_tokens:
            yield row._replace(output_tokens=tokens)
    for k, (segment, tokens) in enumerate(row.prompt):
        rest = row.prompt[:k], row.prompt[k + 1 :]
        if len(row.prompt) > 1:
            yield row._replace(prompt=rest[0] + rest[1])
        for fewer in (1, tokens // 2, tokens - 1):
            if 0 < fewer < tokens:
                yield row._replace(prompt=(*rest[0], (segment, fewer), *rest[1]))
