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

from simserve.policy.decode_cohort import CohortRequest, DecodeCohort
from simserve.policy.limits import SchedulerLimits
from simserve.policy.prefill_cadence import PrefillCadence
from simserve.policy.prefix_runs import Hit, RunPool
from simserve.policy.pressure import Chunk, PressureWalk, samples
from simserve.policy.scheduler import (
    Admission,
    PlannedPrefill,
    RequestView,
    Scheduled,
    StepPlan,
)
from simserve.policy.waiting_queue import FcfsQueue, PriorityQueue, WaitingQueue

NOTHING = StepPlan()

_new = tuple.__new__  # half the price of a NamedTuple's own constructor


class CohortScheduler(PressureWalk):
    """vLLM's scheduler, continuous batching with chunked prefill; see the module."""

    def __init__(self, limits: SchedulerLimits) -> None:
        self.limits = limits
        self.pool = RunPool(limits.usable_blocks, limits.block_size)
        self._caching = limits.enable_prefix_caching
        self._ahead = limits.async_scheduling
        self._priority = limits.scheduling_policy == "priority"
        self._chunked = limits.enable_chunked_prefill
        self._reserve_full_isl = limits.scheduler_reserve_full_isl
        self._max_running = limits.max_running
        self._watermark_blocks = limits.watermark_blocks
        self._block_size = limits.block_size
        self._waiting: WaitingQueue[CohortRequest] = (
            PriorityQueue() if self._priority else FcfsQueue()
        )
        self._running: dict[int, CohortRequest] = {}  # in order of admission
        self._prefilling: list[CohortRequest] = []  # those of them with prompt left to compute
        self._head_is_blocked = False
        self._admissions = 0
        self._cohort = DecodeCohort(limits.block_size)
        self._cadence = (
            PrefillCadence(limits.prefill_schedule_interval)
            if limits.prefill_schedule_interval > 1
            else None
        )
        self._decode_plan = StepPlan(only_decodes=True)
        self._plan = NOTHING  # the last planned step
        self._in_flight = NOTHING  # the step before it, if not completed when it was planned
        self._earlier = NOTHING  # the same of that step
        self._open = 0  # steps planned and not completed
        self._stale: list[tuple[CohortRequest, bool]] = []  # and whether a token will come

    @property
    def running(self) -> int:
        """Requests that hold KV blocks."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests in the waiting queue."""
        return len(self._waiting)

    @property
    def free_blocks(self) -> int:
        """KV blocks that nobody uses."""
        return self.pool.free

    @property
    def cached_contents(self) -> int:
        """Distinct contents in the prefix cache, counted now."""
        if not self._caching:
            return 0
        late = 0
        for request in self._running.values():
            if request.unseen_output and (request.decoding or request.held):
                computed = request.computed
                if request.decoding:
                    computed = request.offset + self._cohort.clock
                full = (computed - self._unknown_tokens(request)) // self._block_size
                late += max(full - request.published, 0)
        return self.pool.cached_contents + late

    def _had_token_in_flight(self, request: CohortRequest) -> bool:
        """Return whether a sampled token was in flight when the last step was planned."""
        return request.held or samples(self._in_flight, request.request)

    def _unknown_tokens(self, request: CohortRequest) -> int:
        """Return how many of its computed tokens nobody had seen when it last got blocks.

        None if it got nothing in the last planned step, and had caught up in the one before.
        """
        number = request.request
        got_nothing = request.held or not samples(self._plan, number)
        if got_nothing and not samples(self._earlier, number):
            return 0
        return int(self._had_token_in_flight(request))

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
            done.sort(key=_admission)
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
        for request in sorted(missed, key=_admission):
            full = (request.offset + self._cohort.clock) // self._block_size
            self.pool.publish(request, request.stream, full)
        self._head_is_blocked = False

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

    # -- the cohort

    def _tick(self, needed: int) -> None:
        """Let every decoding request compute one token; ``needed`` new blocks."""
        if needed:
            self.pool.take(needed)
        if self._cohort.seen_count:
            for request, tokens in self._filling():
                self.pool.publish(request, request.stream, tokens // self._block_size)
        self._cohort.clock += 1

    def _filling(self) -> list[tuple[CohortRequest, int]]:
        """Return who could publish a block in this tick, and how many of its tokens are known."""
        cohort, in_flight = self._cohort, self._in_flight
        clock = cohort.clock
        everyone = in_flight.decode_seqs > 0 and not in_flight.skipped
        if self._ahead and not everyone:
            found = [
                (r, r.offset + clock + 1 - self._had_token_in_flight(r)) for r in cohort.all_seen()
            ]
        else:
            # With a token in flight for everyone a block is published when the next is begun.
            phase = (clock + 1 - self._ahead) % self._block_size
            tokens = clock + 1 - self._ahead
            found = [(r, r.offset + tokens) for r in cohort.seen[phase].values()]
        return sorted(found, key=lambda entry: entry[0].admission) if len(found) > 1 else found

    # -- steps with prefill, or under pressure

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

    def _extend(self, request: CohortRequest, tokens: int) -> None:
        """Take the blocks of a prefill chunk and publish those that it fills."""
        size = self._block_size
        total = request.computed + tokens
        new_blocks = -(-total // size) + request.computed // -size
        if new_blocks:
            self.pool.take(new_blocks)
        if self._caching:
            self.pool.publish(request, request.stream, total // size)

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

    def _release(self, request: CohortRequest, held_tokens: int, known_tokens: int) -> None:
        """Give back the blocks of ``held_tokens`` tokens, of which some are not known yet."""
        held = -(-held_tokens // self._block_size)
        if self._caching:
            full = max(known_tokens // self._block_size, request.published)
            self.pool.publish(request, request.stream, full)
            self.pool.release(request, held - full)
        else:
            self.pool.release(request, held)


def _admission(request: CohortRequest) -> int:
    return request.admission
