"""The two older ways of batching, for comparison: continuous without chunks, and static.

Both keep their decoding requests as a cohort, as ``CohortScheduler`` does, and differ from it
only in what a step may contain.
"""

from __future__ import annotations

from dataclasses import replace

from simserve.policy.cohort import CohortScheduler
from simserve.policy.limits import SchedulerLimits
from simserve.policy.pressure import Chunk
from simserve.policy.scheduler import StepPlan


class ContinuousScheduler(CohortScheduler):
    """Iteration-level batching, prefill first, prompts whole (Orca; vLLM before version 1).

    Whenever waiting prompts can be admitted, a step computes prompts only, as many whole ones
    as the token budget holds, and decoding pauses. Otherwise every running request decodes.
    """

    def __init__(self, limits: SchedulerLimits) -> None:
        if limits.max_num_batched_tokens < limits.max_model_len:
            raise ValueError(
                f"max_num_batched_tokens(={limits.max_num_batched_tokens}) must be >= "
                f"max_model_len(={limits.max_model_len}) where prompts are not chunked."
            )
        if limits.async_scheduling:
            raise ValueError("async_scheduling(=True) must be False where prompts are not chunked.")
        super().__init__(replace(limits, enable_chunked_prefill=False))

    def _decide(self, plan: StepPlan, chunks: list[Chunk]) -> None:
        self._plan_waiting(plan, chunks, None, self.limits.max_num_batched_tokens)
        if not chunks:
            self._plan_running(plan, chunks, None)


class StaticScheduler(ContinuousScheduler):
    """Request-level batching: a batch is formed, and the next waits until all of it is done.

    A batch takes up to ``max_num_seqs`` prompts, in steps of whole prompts within the token
    budget, and then decodes. Slots of requests that finished early are computed along until
    the last one finishes: ``decode_slots`` stays the size of the batch.
    """

    def __init__(self, limits: SchedulerLimits) -> None:
        super().__init__(limits)
        self._batch = 0
        self._forming = True

    def plan_step(self) -> StepPlan | None:
        """Decide the next step; see the class."""
        if not self._running:
            self._forming = True
        plan = super().plan_step()
        if plan is not None and plan.decode_seqs:
            self._forming = False
            plan.decode_slots = max(self._batch, plan.decode_seqs)
        return plan

    def _decide(self, plan: StepPlan, chunks: list[Chunk]) -> None:
        if self._forming:
            self._plan_waiting(plan, chunks, None, self.limits.max_num_batched_tokens)
            self._batch = len(self._running)
        if not chunks:
            self._plan_running(plan, chunks, None)
