"""Writes down a real run as the simulator does: the same records, scored by the same code.

Written plainly, token by token, and independently of the simulator's own writer: that both
agree step for step is what the structural comparison shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simserve.policy.scheduler import StepPlan
from simserve.records.clock import NEVER_PS
from simserve.records.requests import RequestTable
from simserve.records.run_record import (
    FINISHED,
    REJECTED,
    RequestOutcomes,
    RunMeta,
    RunRecord,
    TokenGaps,
)
from simserve.records.step_log import StepLog

_STEP_COLUMNS = (
    "start_ps",
    "duration_ps",
    "decode_seqs",
    "decode_context_tokens",
    "prefill_seqs",
    "prefill_tokens",
    "prefill_context_tokens",
    "admitted",
    "hit_tokens",
    "preempted",
    "finished",
    "running",
    "waiting",
    "free_blocks",
    "free_blocks_end",
    "new_blocks",
)


class Recorder:
    """Collects steps and tokens; ``record`` turns them into a ``RunRecord``."""

    def __init__(self, requests: RequestTable, max_model_len: int) -> None:
        count = len(requests)
        self.requests = requests
        self.stop_tokens: list[int] = np.minimum(
            requests.output_tokens, max_model_len - requests.prompt_tokens
        ).tolist()
        self.generated = [0] * count
        self.end_ps = 0
        self._steps: dict[str, list[int]] = {name: [] for name in _STEP_COLUMNS}
        self._status = [0] * count
        self._first_scheduled_ps = [NEVER_PS] * count
        self._preemptions = [0] * count
        self._first_step = [0] * count
        self._last_step = [0] * count
        self._gaps: list[tuple[int, int, int, bool]] = []
        self._end_ps: list[int] = []  # of the steps, in their order

    def reject(self, request: int) -> None:
        """Note that a request has no room for a single token."""
        self._status[request] = REJECTED

    def plan(self, plan: StepPlan) -> int:
        """Note what was planned; return the step's number. Its times come with ``end``."""
        chunks = plan.prefill
        values = {
            "decode_seqs": plan.decode_seqs,
            "decode_context_tokens": plan.decode_context_tokens if plan.decode_seqs else 0,
            "prefill_seqs": len(chunks),
            "prefill_tokens": sum(chunk.new_tokens for chunk in chunks),
            "prefill_context_tokens": sum(c.new_tokens + c.past_tokens for c in chunks),
            "admitted": len(plan.admitted),
            "hit_tokens": sum(admission.cached_tokens for admission in plan.admitted),
            "preempted": len(plan.preempted),
            "running": plan.running,
            "waiting": plan.waiting,
            "free_blocks": plan.free_blocks,
            "new_blocks": plan.new_blocks,
        }
        for name in _STEP_COLUMNS:
            self._steps[name].append(values.get(name, 0))
        for request in plan.preempted:
            self._preemptions[request] += 1
        return len(self._steps["running"]) - 1

    def start(self, step: int, start_ps: int, admitted: Sequence[int]) -> None:
        """Note when a step starts, and so when the requests it admits are first scheduled."""
        self._steps["start_ps"][step] = start_ps
        for request in admitted:
            if self._first_scheduled_ps[request] == NEVER_PS:
                self._first_scheduled_ps[request] = start_ps

    def deliver(self, step: int, tokens: Sequence[tuple[int, bool]]) -> list[int]:
        """Note a step's tokens, as (request, came from a decode); ``close`` tells when.

        Returns the requests that got their last token.
        """
        finished = []
        for request, as_decode in tokens:
            self.generated[request] += 1
            if self.generated[request] == 1:
                self._first_step[request] = step
            elif self._last_step[request] != step - 1:
                self._gaps.append((request, self._last_step[request], step, as_decode))
            self._last_step[request] = step
            if self.generated[request] == self.stop_tokens[request]:
                self._status[request] = FINISHED
                finished.append(request)
        self._steps["finished"][step] = len(finished)
        return finished

    def close(self, step: int, end_ps: int, free_blocks: int) -> None:
        """Note when a step ended, and the free blocks after its output."""
        self.end_ps = end_ps
        self._end_ps.append(end_ps)
        self._steps["duration_ps"][step] = end_ps - self._steps["start_ps"][step]
        self._steps["free_blocks_end"][step] = free_blocks

    def record(self, usable_blocks: int, ahead: bool, meta: RunMeta) -> RunRecord:
        """Return the run as a record, one row per step."""
        columns = {name: np.array(values, np.int64) for name, values in self._steps.items()}
        new_blocks = columns.pop("new_blocks").astype(np.int32)
        nothing = np.zeros(len(new_blocks), np.int64)
        log = StepLog(
            steps=np.ones(len(new_blocks), np.int64),
            duration_growth_ps=nothing,
            new_blocks=new_blocks,
            num_blocks=usable_blocks,
            scheduled_ahead=ahead,
            left=nothing if ahead else None,
            given_back=nothing if ahead else None,
            **columns,
        )
        gaps = np.array(self._gaps, np.int64).reshape(-1, 4)
        return RunRecord(
            requests=self.requests,
            outcomes=self._outcomes(),
            steps=(log,),
            gaps=TokenGaps(
                request=gaps[:, 0],
                previous_step=gaps[:, 1],
                step=gaps[:, 2],
                as_decode=gaps[:, 3].astype(np.bool_),
            ),
            end_ps=self.end_ps,
            meta=meta,
        )

    def _outcomes(self) -> RequestOutcomes:
        nothing = np.zeros(len(self.requests), np.int64)
        status = np.array(self._status, np.uint8)
        generated = np.array(self.generated, np.int64)
        ends_ps = np.array([*self._end_ps, NEVER_PS], np.int64)  # the last stands for never
        first_step, last_step = np.array(self._first_step), np.array(self._last_step)
        return RequestOutcomes(
            status=status,
            replica=nothing,
            first_scheduled_ps=np.array(self._first_scheduled_ps, np.int64),
            first_token_ps=ends_ps[np.where(generated > 0, first_step, -1)],
            finish_ps=ends_ps[np.where(status == FINISHED, last_step, -1)],
            generated_tokens=generated,
            preemptions=np.array(self._preemptions, np.int64),
            cached_tokens=nothing,
            first_token_step=first_step,
            last_token_step=last_step,
        )
