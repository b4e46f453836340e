"""A step under pressure, decided request by request: budget or KV blocks run out.

Here calendars do not suffice. It walks the running requests in order of admission, as vLLM's
``schedule`` does, and preempts where blocks are short.
"""

from __future__ import annotations

from simserve.policy.cohort_state import CohortState, samples
from simserve.policy.decode_cohort import CohortRequest
from simserve.policy.scheduler import StepPlan

Chunk = tuple[CohortRequest, int]
"""A request with prompt left to compute, and how many tokens of it this step computes."""


class PressureWalk(CohortState):
    """A walk over the running requests."""

    def _walk_running(self, plan: StepPlan, chunks: list[Chunk], cap: int | None) -> int:
        budget = self.limits.max_num_batched_tokens
        size, clock, pool = self._block_size, self._cohort.clock, self.pool
        planned: dict[CohortRequest, int] = {}
        missed: list[CohortRequest] = []
        preempted: list[int] = []
        held_back = self._cadence is not None and self._cadence.holds
        chunks.clear()
        for request in list(self._running.values()):
            if request.request not in self._running:
                continue  # preempted by a request before it
            if request.held or (held_back and not request.decoding):
                continue
            if budget <= 0:
                if request.decoding:
                    missed.append(request)
                continue
            if request.decoding:
                computed, wanted = request.offset + clock, 1
            else:
                computed = request.computed
                wanted = request.known - computed
                if cap is not None and wanted > cap:
                    wanted = cap
                wanted = min(wanted, budget)
            total = computed + wanted
            new_blocks = -(-total // size) + computed // -size
            while new_blocks > pool.free:
                victim = self._choose_victim()
                budget += self._preempt(victim, planned.pop(victim, 0))
                preempted.append(victim.request)
                if victim is request:
                    break
            else:
                if new_blocks:
                    pool.take(new_blocks)
                if self._caching and not (request.decoding and request.unseen_output):
                    known = total
                    if request.decoding and self._had_token_in_flight(request):
                        known -= 1
                    pool.publish(request, request.stream, known // size)
                planned[request] = wanted
                budget -= wanted
                continue
            if not self._priority:
                break
        plan.preempted = preempted
        self._take_up(plan, chunks, planned, missed)
        return budget

    def _take_up(
        self,
        plan: StepPlan,
        chunks: list[Chunk],
        planned: dict[CohortRequest, int],
        missed: list[CohortRequest],
    ) -> None:
        """Move the cohort on after a walk: those that missed this step fall back by one."""
        decoding = [request for request in planned if request.decoding]
        chunks.extend((r, tokens) for r, tokens in planned.items() if not r.decoding)
        if not decoding:
            return
        self._cohort.clock += 1
        missed = [request for request in missed if request.decoding]  # not preempted since
        for request in missed:
            self._cohort.miss(request)
        plan.skipped = [request.request for request in missed]
        plan.decode_seqs = plan.decode_slots = len(decoding)
        plan.decode_context_tokens = (
            sum(r.offset for r in decoding) + len(decoding) * self._cohort.clock
        )

    def _choose_victim(self) -> CohortRequest:
        if self._priority:
            return max(self._running.values(), key=lambda r: r.view[3:5])
        return next(reversed(self._running.values()))

    def _preempt(self, request: CohortRequest, planned_tokens: int) -> int:
        """Take everything from a running request; return the budget it gives back."""
        decodes = request.decoding or request.held
        token_in_flight = decodes and self._had_token_in_flight(request)
        if request.decoding:
            self._cohort.leave(request)
        elif not request.held:
            self._prefilling.remove(request)
        if decodes:
            request.known = request.computed + 1 - token_in_flight
        del self._running[request.request]
        tokens = request.computed + planned_tokens
        # Who had caught up when the step in flight was planned has published all of its blocks.
        caught_up = not planned_tokens and not samples(self._earlier, request.request)
        self._release(request, tokens, tokens - (token_in_flight and not caught_up))
        request.computed = 0
        request.held = False
        request.preempted = True
        number = request.request
        if token_in_flight or any(chunk.request == number for chunk in self._in_flight.prefill):
            request.stale = True
            self._stale.append((request, token_in_flight))
        self._waiting.put_back(request)
        return planned_tokens
