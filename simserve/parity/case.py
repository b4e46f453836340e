"""Scheduler cases: settings, a step time and requests, in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from simserve.latency.model import UNLIMITED_CONTEXT, DecodeLine
from simserve.policy.limits import SchedulerLimits
from simserve.records.clock import NEVER_PS, PS_PER_NS, PS_PER_S, PsArray
from simserve.records.requests import RequestTable, SegmentTable
from simserve.records.step import StepShape

Prompt = tuple[tuple[int, int], ...]
"""Segments and how many of their first tokens a prompt has."""


@dataclass(frozen=True, slots=True)
class CaseStepTime:
    """A step time linear in tokens and in context: the latency model of a case."""

    base_ps: int
    per_token_ps: int
    per_context_ps: int

    def step_s(self, shape: StepShape) -> float:
        """Return the duration of a step in seconds."""
        duration_ps = (
            self.base_ps
            + self.per_token_ps * shape.tokens
            + self.per_context_ps * shape.context_tokens
        )
        return duration_ps / PS_PER_S

    def decode_line(self, decode_seqs: int, decode_context_tokens: int) -> DecodeLine:
        """Return the line on which decode-only steps of ``decode_seqs`` lie."""
        base_ps = self.base_ps + self.per_token_ps * decode_seqs
        return DecodeLine(base_ps, self.per_context_ps, UNLIMITED_CONTEXT)


@dataclass(frozen=True, slots=True)
class Case:
    """One scenario: settings, step time, requests."""

    name: str
    limits: SchedulerLimits
    step_time: CaseStepTime
    requests: RequestTable
    description: str = ""


class CaseRequest(NamedTuple):
    """One request of a case; an ``output_segment`` None is repeated by nobody."""

    request_id: str
    arrival_ns: int
    prompt: Prompt
    output_tokens: int
    output_segment: int | None = None
    priority: int = 0
    give_up_ns: int | None = None  # after its arrival, if it is not answered by then

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return sum(tokens for _, tokens in self.prompt)


def table_of(rows: Sequence[CaseRequest]) -> RequestTable:
    """Return the requests as arrays; each missing output segment gets a name of its own."""
    entries = [entry for row in rows for entry in row.prompt]
    named = [row.output_segment for row in rows if row.output_segment is not None]
    last = max([segment for segment, _ in entries] + named, default=-1)
    outputs = [
        last + 1 + i if row.output_segment is None else row.output_segment
        for i, row in enumerate(rows)
    ]
    return RequestTable(
        arrival_ps=_ints([row.arrival_ns for row in rows]) * PS_PER_NS,
        prompt_tokens=_ints([row.prompt_tokens for row in rows]),
        output_tokens=_ints([row.output_tokens for row in rows]),
        segments=SegmentTable(
            offsets=np.cumsum([0, *[len(row.prompt) for row in rows]], dtype=np.int64),
            segment=_ints([segment for segment, _ in entries]),
            tokens=_ints([tokens for _, tokens in entries]),
        ),
        output_segment=_ints(outputs),
        priority=_ints([row.priority for row in rows]),
        request_id=tuple(row.request_id for row in rows),
        give_up_ps=_give_up_ps(rows),
    )


def _give_up_ps(rows: Sequence[CaseRequest]) -> PsArray | None:
    if all(row.give_up_ns is None for row in rows):
        return None
    patience = [NEVER_PS if r.give_up_ns is None else r.give_up_ns * PS_PER_NS for r in rows]
    return _ints(patience)


def rows_of(requests: RequestTable) -> list[CaseRequest]:
    """Return the requests one by one, arrivals rounded to nanoseconds.

    Segments are numbered anew, from 0. Output segments that no other request contains
    become None.
    """
    prompts = _prompts(requests)
    outputs: list[int | None] = [None] * len(requests)
    if requests.output_segment is not None:
        outputs = [*requests.output_segment.tolist()]
    seen: dict[int, int] = {}
    for name in [segment for prompt in prompts for segment, _ in prompt] + [
        output for output in outputs if output is not None
    ]:
        seen[name] = seen.get(name, 0) + 1
    number = {name: k for k, name in enumerate(seen)}
    priority = [0] * len(requests) if requests.priority is None else requests.priority.tolist()
    return [
        CaseRequest(
            requests.id_of(i),
            round(int(requests.arrival_ps[i]) / PS_PER_NS),
            tuple((number[segment], tokens) for segment, tokens in prompts[i]),
            int(requests.output_tokens[i]),
            None if output is None or seen[output] < 2 else number[output],
            priority[i],
            _give_up_ns(requests, i),
        )
        for i, output in enumerate(outputs)
    ]


def _give_up_ns(requests: RequestTable, request: int) -> int | None:
    if requests.give_up_ps is None or requests.give_up_ps[request] == NEVER_PS:
        return None
    return round(int(requests.give_up_ps[request]) / PS_PER_NS)


def _prompts(requests: RequestTable) -> list[Prompt]:
    table = requests.segments
    if table is None:
        return [((i, tokens),) for i, tokens in enumerate(requests.prompt_tokens.tolist())]
    offsets: list[int] = table.offsets.tolist()
    entries = list(zip(table.segment.tolist(), table.tokens.tolist(), strict=True))
    return [tuple(entries[a:b]) for a, b in pairwise(offsets)]


def _ints(values: list[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)
