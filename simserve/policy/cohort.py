"""The chunked-prefill scheduler at a cost per event, not per request and step.

Between events all decoding requests move in lockstep, as a ``DecodeCohort``. A decode step
then costs a few additions whatever the batch size, and a stretch of equal steps is planned at
once.

What the calendars cannot answer (budget or blocks run out) is decided by walking the
running requests in the order in which vLLM does (``pressure.py``). The schedule equals
``PlainScheduler``'s, step for step; a property test holds both to that.

With async scheduling a step is planned while the one before it runs. A decoding request then
usually has a token *in flight*: sampled by that step, not delivered. Its content is not known
yet, so a block that it fills is published one step later than otherwise.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from simserve.policy.cohort_state import NOTHING, admission
from simserve.policy.decode_cohort import CohortRequest
from simserve.policy.mixed_steps import MixedSteps
from simserve.policy.scheduler import RequestView, Scheduled, StepPlan


class CohortScheduler(MixedSteps):
    """vLLM's scheduler, continuous batching with chunked prefill; see the module."""

    def add(self, request: RequestView) -> None:
        """Put an arriving request into the waiting queue."""
        state = CohortRequest(request, self.pool.root, self._caching)
        self._waiting.append(state)
        if self._priority or self.limits.long_prefill_token_threshold_adaptive:
            self._head_is_blocked = False  # another head, or a smaller share that may fit

    # -- one decision

    def plan_step(self) -> StepPlan | None:
        """Decide the next step and take its KV blocks; None if nothing can be done."""
        waiting = self._waiting
        if self._ahead:
            self._earlier = self._in_flight
            self._in_flight = self._plan if self._open else NOTHING
        if self._prefilling or (waiting and self._may_admit()) or self._cadence is not None:
            return self._plan_mixed()
        cohort, pool = self._cohort, self.pool
        decoding = cohort.size
        if not decoding:
            return None
        needed = cohort.needs[cohort.clock % self._block_size]
        if needed > pool.free or decoding > self.limits.max_num_batched_tokens:
            return self._plan_mixed()
        if needed or cohort.seen_count:
            self._tick(needed)
        else:
            cohort.clock += 1
        plan = self._plan = self._decode_plan
        self._open += 1
        plan.decode_seqs = plan.decode_slots = decoding
        plan.decode_context_tokens = cohort.offset_sum + decoding * cohort.clock
        plan.new_blocks = needed
        plan.running, plan.waiting = len(self._running), len(waiting)
        plan.free_blocks = pool.free
        return plan

    def _may_admit(self) -> bool:
        """Return whether the head of the waiting queue could be admitted now."""
        if len(self._running) >= self._max_running:
            return False
        # A block that a running request publishes now could be the one that the head can share.
        return not self._head_is_blocked or self._cohort.seen_count > 0

    def repeat_step(self, most: int) -> Sequence[int]:
        """Plan up to ``most`` more steps like the last one; return the blocks that each takes."""
        if self._plan is not self._decode_plan or (self._waiting and self._may_admit()):
            return array("i")
        if self._ahead:
            self._earlier = self._in_flight = self._plan
        cohort = self._cohort
        needed = cohort.needed_blocks_of(cohort.steps_within(self.pool.free, most))
        if cohort.seen_count:
            for blocks in needed:
                self._tick(blocks)
        else:
            total = sum(needed)
            if total:
                self.pool.take(total)
            cohort.clock += len(needed)
        return needed

    # -- what became of it

    def hold(self, requests: list[int]) -> None:
        """Plan nothing more for running requests whose last token is in flight."""
        for number in requests:
            request = self._running.get(number)
            if request is not None and request.decoding:
                self._cohort.leave(request)
                request.held = True
                self._head_is_blocked = False  # there is budget for one more

    def abort(self, requests: list[int]) -> None:
        """Drop these requests, running or waiting, and free their blocks."""
        for number in requests:
            request = self._running.pop(number, None)
            if request is None:
                self._waiting.remove(next(r for r in self._waiting if r.request == number))
                if self._cadence is not None:
                    self._cadence.forget(number)
                continue
            unknown = 0
            if request.decoding or request.held:
                unknown = self._unknown_tokens(request)
            elif request in self._prefilling:
                self._prefilling.remove(request)
            if request.decoding:
                self._cohort.leave(request)
            self._release(request, request.computed, request.computed - unknown)
        self._head_is_blocked = False

    def complete_step(self, plan: StepPlan, finished: list[int]) -> None:
        """Learn that the oldest open step's tokens were delivered, and whom they finished."""
        self._open -= 1
        if self._ahead:
            if self._open and self._cohort.seen_count:
                self._publish_missed()
            if self._stale:
                self._deliver_stale(finished)
        if not finished:
            return
        running = self._running
        done = [running[number] for number in finished if number in running]
        if len(done) > 1:
            done.sort(key=admission)
        for request in done:
            del running[request.request]
            if request.decoding:
                self._cohort.leave(request)
            self._release(request, request.computed, request.computed)
        self._head_is_blocked = False

    def _deliver_stale(self, finished: list[int]) -> None:
        """Deliver to requests that were preempted with tokens in flight."""
        for request, token in self._stale:
            request.stale = False
            request.known += token
            if request.request in finished:
                self._waiting.remove(request)
                if self._cadence is not None:
                    self._cadence.forget(request.request)
        self._stale.clear()
        self._head_is_blocked = False

    def _publish_missed(self) -> None:
        """Publish what a token fills that is delivered while its request sits out a step."""
        plan = self._plan
        if plan.decode_seqs and not plan.skipped:
            return
        missed = self._cohort.all_seen()
        if plan.decode_seqs:
            missed = [request for request in missed if request.request in plan.skipped]
        for request in sorted(missed, key=admission):
            full = (request.offset + self._cohort.clock) // self._block_size
            self.pool.publish(request, request.stream, full)
        self._head_is_blocked = False

    # -- the last step, request by request

    def last_scheduled(self) -> list[Scheduled]:
        """Return the last planned step request by request, in the order of scheduling."""
        plan = self._plan
        chunks = {chunk.request: chunk for chunk in plan.prefill}
        skipped = set(plan.skipped)
        entries = []
        for number, request in self._running.items():
            if number in chunks:
                _, new_tokens, past = chunks[number]
                entries.append(Scheduled(number, new_tokens, past, False))
            elif request.decoding and plan.decode_seqs and number not in skipped:
                entries.append(Scheduled(number, 1, request.offset + self._cohort.clock - 1, True))
        return entries

    def decode_contexts(self) -> list[int]:
        """Return the context of each decode of the last planned step, in scheduling order."""
        plan, clock = self._plan, self._cohort.clock
        if not plan.decode_seqs:
            return []
        if plan.only_decodes:
            return [r.offset + clock for r in self._running.values() if r.decoding]
        others = {chunk.request for chunk in plan.prefill}.union(plan.skipped)
        return [
            request.offset + clock
            for number, request in self._running.items()
            if request.decoding and number not in others
        ]
