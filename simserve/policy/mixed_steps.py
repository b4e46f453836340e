"""A step with prefill: running requests first, then waiting ones, as far as budget and blocks go.

Decoding requests cost one sum, whoever they are; each prefill chunk is decided on its own. What
that cannot answer (budget or blocks run out) goes to the walk of ``pressure.py``.
"""

from __future__ import annotations

from simserve.policy.decode_cohort import CohortRequest
from simserve.policy.prefill_cadence import PrefillCadence
from simserve.policy.prefix_runs import Hit
from simserve.policy.pressure import Chunk, PressureWalk
from simserve.policy.scheduler import Admission, PlannedPrefill, StepPlan

_new = tuple.__new__  # half the price of a NamedTuple's own constructor


class MixedSteps(PressureWalk):
    """Steps that are not decodes alone."""

    def _plan_mixed(self) -> StepPlan | None:
        plan = StepPlan()
        free_before = self.pool.free
        chunks: list[Chunk] = []
        if self._cadence is not None:
            self._cadence.begin(len(self._running) > len(self._prefilling))
        self._decide(plan, chunks)
        if not chunks and not plan.decode_seqs and not plan.preempted:
            return None
        self._plan = plan
        self._open += 1
        if not plan.preempted:
            plan.new_blocks = free_before - self.pool.free
        if self._cadence is not None:
            self._note_prefill(self._cadence, plan, chunks)
        self._settle(plan, chunks)
        self._head_is_blocked = not (chunks or plan.preempted or not self._waiting)
        plan.running, plan.waiting = len(self._running), len(self._waiting)
        plan.free_blocks = self.pool.free
        return plan

    def _decide(self, plan: StepPlan, chunks: list[Chunk]) -> None:
        """Choose a step's work: running requests first, then waiting ones."""
        cap = self._cap() if self.limits.long_prefill_token_threshold else None
        budget = self._plan_running(plan, chunks, cap)
        if not plan.preempted:
            self._plan_waiting(plan, chunks, cap, budget)
            if self._cadence is not None:
                self._cadence.admitted_all(len(self._waiting))

    def _note_prefill(self, cadence: PrefillCadence, plan: StepPlan, chunks: list[Chunk]) -> None:
        admitted = {admission.request for admission in plan.admitted}
        prefilled = any(
            request.request not in admitted or request.known - request.computed > 1
            for request, _ in chunks
        )
        cadence.end(plan.decode_seqs + len(chunks), prefilled)

    def _cap(self) -> int | None:
        limits = self.limits
        cap = limits.long_prefill_token_threshold
        eligible = len(self._running) + len(self._waiting)
        if eligible <= 1:
            return None
        if limits.long_prefill_token_threshold_adaptive:
            return max(cap, limits.max_num_batched_tokens // eligible)
        return cap

    def _plan_running(self, plan: StepPlan, chunks: list[Chunk], cap: int | None) -> int:
        """Give the running their tokens; return what is left of the budget."""
        size, pool, cohort = self._block_size, self.pool, self._cohort
        decoding = cohort.size
        budget = self.limits.max_num_batched_tokens - decoding
        needed = decode_blocks = cohort.needed_blocks()
        held_back = self._cadence is not None and self._cadence.holds
        for request in () if held_back else self._prefilling:
            wanted = request.known - request.computed
            if cap is not None and wanted > cap:
                wanted = cap
            if wanted > budget and (len(self._prefilling) > 1 or not self._is_last(request)):
                return self._walk_running(plan, chunks, cap)
            wanted = min(wanted, budget)
            budget -= wanted
            needed += -(-(request.computed + wanted) // size) + request.computed // -size
            chunks.append((request, wanted))
        publishing = chunks and cohort.seen_count and self._filling()
        if needed > pool.free or budget < 0 or publishing:
            return self._walk_running(plan, chunks, cap)
        if decoding:
            self._tick(decode_blocks)
            plan.decode_seqs = plan.decode_slots = decoding
            plan.decode_context_tokens = cohort.context_tokens
        if chunks:
            if not chunks[-1][1]:
                chunks.pop()
            for request, tokens in chunks:
                self._extend(request, tokens)
        return budget

    def _is_last(self, request: CohortRequest) -> bool:
        return next(reversed(self._running.values())) is request

    def _plan_waiting(
        self,
        plan: StepPlan,
        chunks: list[Chunk],
        cap: int | None,
        budget: int,
    ) -> None:
        """Admit from the waiting queue; nobody overtakes the head."""
        pool, waiting, size = self.pool, self._waiting, self._block_size
        running, caching, max_running = self._running, self._caching, self._max_running
        hit: Hit = []
        admitted: list[Admission] = []
        passed_over: list[CohortRequest] = []
        while budget > 0 and waiting and len(running) < max_running:
            request = waiting[0]
            if request.stale:  # keeps its place, but waits for its token
                passed_over.append(waiting.take())
                if self._cadence is not None:
                    self._cadence.pass_over(request.request)
                continue
            known = request.known
            if caching and not (request.stream.private and not request.preempted):
                hit, blocks, unused = pool.lookup(request.stream, (known - 1) // size)
            else:
                blocks = unused = 0
            cached = blocks * size
            wanted = known - cached
            if self._cadence is not None and self._cadence.holds and wanted > 1:
                break
            if cap is not None and wanted > cap:
                wanted = cap
            if wanted > budget:
                if not self._chunked:
                    break
                wanted = budget
            reserve = self._watermark_blocks if running else 0
            # Either the whole known sequence must fit, or just what this step computes.
            tokens = known if self._reserve_full_isl else cached + wanted
            if -(-tokens // size) > pool.free - unused - reserve + blocks:
                break
            waiting.take()
            if self._cadence is not None:
                self._cadence.forget(request.request)
            if blocks:
                pool.share(request, hit)
            request.computed = cached
            self._admissions += 1
            request.admission = self._admissions
            running[request.request] = request
            admitted.append(_new(Admission, (request.request, cached, request.preempted)))
            self._extend(request, wanted)
            chunks.append((request, wanted))
            budget -= wanted
        plan.admitted = admitted
        for request in reversed(passed_over):
            waiting.put_back(request)

    def _settle(self, plan: StepPlan, chunks: list[Chunk]) -> None:
        prefill: list[PlannedPrefill] = []
        done: list[int] = []
        for request, tokens in chunks:
            past = request.computed
            prefill.append(_new(PlannedPrefill, (request.request, tokens, past)))
            request.computed = past + tokens
            listed = request in self._prefilling
            if request.computed == request.known:
                done.append(request.request)
                if listed:
                    self._prefilling.remove(request)
                self._cohort.join(request)
            elif not listed:
                self._prefilling.append(request)
        plan.prefill, plan.prefill_done = prefill, done
