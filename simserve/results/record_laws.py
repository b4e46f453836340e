"""Laws that a finished run obeys, whatever the policy: each named, each with two sides.

They read the requests, the steps and the settings that a result folder holds, and trust no
sum that somebody else has made. ``engine.invariants`` watches over the same while a run runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simserve.errors import one_line, shortened
from simserve.records.clock import NEVER_PS
from simserve.records.run_record import ABORTED, FINISHED, REJECTED, UNFINISHED, RunRecord
from simserve.results.law_terms import Limits, Served, first
from simserve.results.laws_of_requests import REQUEST_LAWS
from simserve.results.laws_of_steps import STEP_LAWS
from simserve.results.token_times import BoolArray

_LONGEST_DETAIL = 250

LAWS = REQUEST_LAWS | STEP_LAWS
"""The laws by name, in the order in which they are told."""


@dataclass(frozen=True, slots=True)
class BrokenLaw:
    """A law that does not hold, and the two sides that should agree."""

    law: str
    detail: str

    def __str__(self) -> str:
        return f"{self.law}: {shortened(one_line(self.detail), _LONGEST_DETAIL)}"


def broken_laws(record: RunRecord, limits: Limits) -> list[BrokenLaw]:
    """Return the laws that ``record`` breaks, each at most once; none in a sound record.

    A record that is not well formed is not looked at any further.
    """
    detail = _well_formed(record)
    if detail is not None:
        return [BrokenLaw("well-formed", detail)]
    served = record.outcomes.status != REJECTED
    replicas = [
        Served(number, log, log.expand(), served & (record.outcomes.replica == number))
        for number, log in enumerate(record.steps)
    ]
    broken: list[BrokenLaw] = []
    for name, law in LAWS.items():
        found = next(law(record, limits, replicas), None)
        if found is not None:
            broken.append(BrokenLaw(name, found))
    return broken


def _well_formed(record: RunRecord) -> str | None:
    """Every number that points somewhere points at something."""
    out, gaps = record.outcomes, record.gaps
    replicas, requests = len(record.steps), len(record.requests)
    sizes = np.array([log.total_steps for log in record.steps], np.int64)
    if not np.isin(out.status, (UNFINISHED, FINISHED, REJECTED, ABORTED)).all():
        return "a status that is none of the four"
    if requests and not _within(out.replica, 0, replicas):
        return f"request {first(_outside(out.replica, 0, replicas))} on no replica of {replicas}"
    started = out.first_token_ps != NEVER_PS
    for name in ("first_token_step", "last_token_step"):
        step = getattr(out, name)
        wrong = started & ((step < 0) | (step >= sizes[out.replica]))
        if wrong.any():
            return f"request {first(wrong)}: {name} is {step[wrong][0]}, not one of its replica"
    if len({len(gaps.request), len(gaps.step), len(gaps.previous_step), len(gaps.as_decode)}) > 1:
        return "token gaps of different lengths"
    if not len(gaps.request):
        return None
    if not _within(gaps.request, 0, requests) or not started[gaps.request].all():
        return "a token gap of a request without tokens"
    last = sizes[out.replica[gaps.request]]
    if (gaps.previous_step < 0).any() or (gaps.step >= last).any():
        return "a token gap outside the steps of its replica"
    return None


def _outside(values: npt.NDArray[np.int64], lowest: int, end: int) -> BoolArray:
    return np.asarray((values < lowest) | (values >= end))


def _within(values: npt.NDArray[np.int64], lowest: int, end: int) -> bool:
    return not _outside(values, lowest, end).any()
