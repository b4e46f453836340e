"""Serves a case with the scheduler of an installed vLLM: no model, no GPU, in virtual time.

vLLM's own scheduler and KV-cache manager take every decision. This module only supplies the
requests, a clock, the case's step time, and a sampled token where one is due. The clock goes
as in vLLM's ``EngineCore.step``, or with async scheduling as in ``step_with_batch_queue`` with
two steps in flight. vLLM is imported only when a case is served.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections import deque
from typing import Any, NamedTuple

from simserve.errors import InputError, SimserveError
from simserve.parity.case import Case, CaseRequest, rows_of
from simserve.parity.case_file import Record
from simserve.parity.live_config import build_scheduler
from simserve.records.clock import PS_PER_NS

KNOWN_VERSION = "0.33"
"""The vLLM whose rules the schedulers here follow."""

SEGMENT_TOKENS = 1 << 22
"""Token k of segment s has the id s * SEGMENT_TOKENS + k."""

MOST_IDLE_CALLS = 1000
"""Calls of ``schedule`` in a row that may give nobody a token."""


def require_vllm() -> str:
    """Return the version of the installed vLLM.

    Raises:
        InputError: if there is none.
    """
    if importlib.util.find_spec("vllm") is None:
        raise InputError(
            "verify",
            "--live",
            "no vllm in this Python environment",
            f"one with vllm {KNOWN_VERSION}; docs/verify.md has the recipe for a CPU, and "
            "scripts/verify_live.py follows it",
        )
    return importlib.metadata.version("vllm")


def live_records(case: Case) -> list[Record]:
    """Return the step and request records of a case, as vLLM's scheduler serves it.

    Raises:
        InputError: if vLLM is not installed.
        SimserveError: if requests preempt each other without end.
    """
    require_vllm()
    return LiveEngine(case).serve()


def with_header(case: Case, records: list[Record]) -> list[Record]:
    """Return records with the line in front that says whose they are."""
    header = {
        "type": "header",
        "format": 1,
        "case": case.name,
        "oracle": f"vllm {require_vllm()}",
    }
    return [header, *records]


class LiveStep(NamedTuple):
    """A step that vLLM scheduled: its output, its record, and who samples a token in it."""

    output: Any
    record: Record
    sampling: frozenset[str]


class LiveEngine:
    """The engine core around one vLLM scheduler."""

    def __init__(self, case: Case) -> None:
        self.scheduler, self._hasher = build_scheduler(case)
        self._pool = self.scheduler.kv_cache_manager.block_pool
        self._times = case.step_time
        self._depth = 2 if case.limits.async_scheduling else 1
        self._rows = _with_output_segments(rows_of(case.requests))
        self._index = {row.request_id: i for i, row in enumerate(self._rows)}
        self._next = 0  # the request that arrives next
        self._live: dict[str, Any] = {}  # vLLM's unfinished requests
        self._preempted: list[int] = []  # in the current call
        self._idle_calls = 0
        self._delivered: Record = {}  # of the step that ended last
        self._steps: list[Record] = []
        self._outcomes = [_outcome(i, row) for i, row in enumerate(self._rows)]
        self.now_ns = 0
        self._note_preemptions()

    def serve(self) -> list[Record]:
        """Serve every request and return the step records, then the request records."""
        in_flight: deque[LiveStep] = deque()
        device_free_ns = 0
        while True:
            self._add_arrived()
            self._abort_due()  # who came and went while a step ran
            if self.scheduler.has_requests():
                step = self._schedule(max(self.now_ns, device_free_ns))
                device_free_ns = step.record["t_end"]
                in_flight.append(step)
                busy = step.record["tokens"] or self.scheduler.has_requests()
                if len(in_flight) < self._depth and busy:
                    continue
            if in_flight:
                step = in_flight.popleft()
                self.now_ns = max(self.now_ns, step.record["t_end"])
                self._delivered = step.record
                self._abort_due()
                self._deliver(step)
            elif self._next < len(self._rows):
                self.now_ns = max(self.now_ns, self._rows[self._next].arrival_ns)
            else:
                return [*self._steps, *self._outcomes]

    def _note_preemptions(self) -> None:
        preempt = self.scheduler._preempt_request

        def noted(request: Any, *args: Any, **kwargs: Any) -> Any:
            number = self._index[request.request_id]
            self._preempted.append(number)
            self._outcomes[number]["preemptions"] += 1
            return preempt(request, *args, **kwargs)

        self.scheduler._preempt_request = noted

    def _add_arrived(self) -> None:
        while self._next < len(self._rows) and self._rows[self._next].arrival_ns <= self.now_ns:
            row = self._rows[self._next]
            self._next += 1
            request = self._live[row.request_id] = _vllm_request(row, self._hasher)
            self.scheduler.add_request(request)

    def _abort_due(self) -> None:
        """Tell vLLM whose clients have given up, as its server does between two steps."""
        from vllm.v1.request import RequestStatus

        for request_id, request in list(self._live.items()):
            number = self._index[request_id]
            row = self._rows[number]
            if row.give_up_ns is None or row.arrival_ns + row.give_up_ns > self.now_ns:
                continue
            self.scheduler.finish_requests(request_id, RequestStatus.FINISHED_ABORTED)
            self._outcomes[number]["output_tokens"] = request.num_output_tokens
            self._delivered["aborted"] = sorted([*self._delivered.get("aborted", []), number])
            del self._live[request_id]

    def _schedule(self, start_ns: int) -> LiveStep:
        """Ask vLLM for a step that the device can begin at ``start_ns``."""
        scheduler = self.scheduler
        was_running = {request.request_id for request in scheduler.running}
        decoding = {r.request_id for r in scheduler.running if not r.is_prefill_chunk}
        self._preempted = []
        output = scheduler.schedule()
        scheduled: list[int | list[int]] = []
        admitted: list[list[int]] = []
        sampling = set()
        context = 0
        for request_id, new_tokens in output.num_scheduled_tokens.items():
            number, request = self._index[request_id], scheduler.requests[request_id]
            past = request.num_computed_tokens - new_tokens
            context += past + new_tokens
            decode = request_id in decoding
            scheduled.append(number if decode else [number, new_tokens, past])
            if request_id not in was_running:
                admitted.append([number, past, int(request.num_preemptions > 0)])
                self._note_admission(number, start_ns, past)
            if not request.is_prefill_chunk:  # vLLM has moved on: this step completes it
                sampling.add(request_id)
        record = self._record(start_ns, output.total_num_scheduled_tokens, context)
        record |= {"sched": scheduled, "admitted": admitted, "preempted": self._preempted}
        if record["tokens"] or self._preempted:
            record["step"] = len(self._steps)
            self._steps.append(record)
        self._idle_calls = 0 if record["tokens"] else self._idle_calls + 1
        if self._idle_calls > MOST_IDLE_CALLS:
            raise SimserveError("vLLM: livelock: requests keep preempting each other")
        return LiveStep(output, record, frozenset(sampling))

    def _record(self, start_ns: int, tokens: int, context: int) -> Record:
        times = self._times
        duration_ps = times.base_ps + times.per_token_ps * tokens + times.per_context_ps * context
        running, waiting = self.scheduler.get_request_counts()
        return {
            "type": "step",
            "step": -1,  # of calls that did nothing, which are not kept
            "t_sched": self.now_ns,
            "t_start": start_ns,
            "t_end": start_ns + (duration_ps // PS_PER_NS if tokens else 0),
            "tokens": tokens,
            "ctx": context,
            "sched": [],
            "admitted": [],
            "preempted": [],
            "finished": [],
            "running": running,
            "waiting": waiting,
            "free": self._pool.get_num_free_blocks(),
            "free_end": None,
            "cached": len(self._pool.cached_block_hash_to_block),
        }

    def _note_admission(self, number: int, start_ns: int, cached_tokens: int) -> None:
        outcome = self._outcomes[number]
        if outcome["first_scheduled"] is None:
            outcome |= {"first_scheduled": start_ns, "cached_tokens": cached_tokens}

    def _deliver(self, step: LiveStep) -> None:
        """Hand a step's sampled tokens back to vLLM, and note what that finished."""
        from vllm.v1.outputs import ModelRunnerOutput

        ids = list(step.output.num_scheduled_tokens)
        known = {i: self._live[i].num_output_tokens for i in ids if i in self._live}
        sampled = [
            [self._next_token(i, known.get(i, 0))] if i in step.sampling else [] for i in ids
        ]
        positions = {request_id: k for k, request_id in enumerate(ids)}
        result = ModelRunnerOutput(
            req_ids=ids, req_id_to_index=positions, sampled_token_ids=sampled
        )
        self.scheduler.update_from_output(step.output, result)
        end_ns = step.record["t_end"]
        for request_id, generated in known.items():
            request, number = self._live[request_id], self._index[request_id]
            outcome = self._outcomes[number]
            outcome["output_tokens"] = request.num_output_tokens
            if not generated and request.num_output_tokens:
                outcome["first_token"] = end_ns
            if request.is_finished():
                outcome["finish"] = end_ns
                step.record["finished"].append(number)
                del self._live[request_id]
        step.record["free_end"] = self._pool.get_num_free_blocks()

    def _next_token(self, request_id: str, generated: int) -> int:
        segment = self._rows[self._index[request_id]].output_segment or 0
        return segment * SEGMENT_TOKENS + generated


def _with_output_segments(rows: list[CaseRequest]) -> list[CaseRequest]:
    """Return rows whose output segments all have a number."""
    used = [segment for row in rows for segment, _ in row.prompt]
    used += [row.output_segment for row in rows if row.output_segment is not None]
    after = max(used, default=-1) + 1
    return [
        row._replace(output_segment=after + i) if row.output_segment is None else row
        for i, row in enumerate(rows)
    ]


def _outcome(number: int, row: CaseRequest) -> Record:
    return {
        "type": "request",
        "i": number,
        "id": row.request_id,
        "arrival": row.arrival_ns,
        "prompt_tokens": row.prompt_tokens,
        "output_tokens": 0,
        "first_scheduled": None,
        "first_token": None,
        "finish": None,
        "preemptions": 0,
        "cached_tokens": 0,
    }


def _vllm_request(row: CaseRequest, hasher: Any) -> Any:
    from vllm.sampling_params import SamplingParams
    from vllm.v1.request import Request

    tokens: list[int] = []
    for segment, count in row.prompt:
        tokens += range(segment * SEGMENT_TOKENS, segment * SEGMENT_TOKENS + count)
    return Request(
        request_id=row.request_id,
        prompt_token_ids=tokens,
        sampling_params=SamplingParams(
            max_tokens=row.output_tokens, ignore_eos=True, temperature=0.0
        ),
        pooling_params=None,
        arrival_time=row.arrival_ns / 1e9,
        priority=row.priority,
        block_hasher=hasher,
    )
