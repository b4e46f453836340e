"""The chunked-prefill scheduler at a cost per event, not per request and step.

Between events all decoding requests move in lockstep: each gets one token a step. So they
are a *cohort*: one clock counts its steps, and a decoding request is an offset from it
(``computed tokens = offset + clock``). The number that needs a new KV block in a step is read
off a calendar by ``clock mod block_size``. A decode step then costs a few additions whatever
the batch size, and a stretch of equal steps is planned at once.

What the calendars cannot answer (budget or blocks run out) is decided by walking the
running requests in the order in which vLLM does: ``_walk_running``. The schedule equals
``PlainScheduler``'s, step for step; a property test holds both to that.
"""

from __future__ import annotations

from bisect import insort
from collections import deque

from simserve.policy.limits import SchedulerLimits
from simserve.policy.prefix_runs import BlockTable, Edge, Hit, RunPool
from simserve.policy.scheduler import (
    Admission,
    PlannedPrefill,
    RequestView,
    Scheduled,
    StepPlan,
)


class CohortRequest(BlockTable):
    """What the scheduler remembers of a request: its blocks, and how far it is.

    While it decodes, ``offset`` stands for ``computed`` and ``known``: see the module.
    """

    __slots__ = (
        "admission",
        "computed",
        "decoding",
        "known",
        "offset",
        "preempted",
        "request",
        "stream",
        "unseen_output",
        "view",
    )

    def __init__(self, view: RequestView, root: Edge, caching: bool) -> None:
        self.entries = []
        self.published = 0
        self.tip = root
        self.view = view
        self.request = view.request
        self.known = view.prompt_tokens
        self.stream = stream = view.stream
        self.computed = 0
        self.offset = 0
        self.admission = 0  # running number of its last admission
        self.decoding = False
        self.preempted = False
        # Blocks of generated tokens may be published late if nobody can look for them.
        self.unseen_output = stream.private_output or not caching

    def __lt__(self, other: CohortRequest) -> bool:
        return self.view[3:] < other.view[3:]  # priority, arrival, id


Chunk = tuple[CohortRequest, int]
"""A request with prompt left to compute, and how many tokens of it this step computes."""


class CohortScheduler:
    """vLLM's scheduler, continuous batching with chunked prefill; see the module."""

    def __init__(self, limits: SchedulerLimits) -> None:
        self.limits = limits
        self.pool = RunPool(limits.usable_blocks, limits.block_size)
        self._caching = limits.enable_prefix_caching
        self._priority = limits.scheduling_policy == "priority"
        self._max_running = limits.max_running
        self._watermark_blocks = limits.watermark_blocks
        self._block_size = limits.block_size
        self._waiting: deque[CohortRequest] | list[CohortRequest] = (
            [] if self._priority else deque()
        )
        self._running: dict[int, CohortRequest] = {}  # in order of admission
        self._prefilling: list[CohortRequest] = []  # those of them with prompt left to compute
        self._head_is_blocked = False
        self._admissions = 0
        self._clock = 0
        self._decoding = 0
        self._offset_sum = 0
        # New blocks needed when clock mod block_size is p, twice over so that slices wrap.
        self._needs = [0] * (2 * limits.block_size)
        # Requests whose generated blocks others may look for, by the phase that fills a block.
        self._seen: list[dict[int, CohortRequest]] = [{} for _ in range(limits.block_size)]
        self._seen_count = 0
        self._plan = StepPlan()
        self._decode_plan = StepPlan()

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
            if request.decoding and request.unseen_output:
                filled = (request.offset + self._clock) // self._block_size
                late += filled - request.published
        return self.pool.cached_contents + late

    def add(self, request: RequestView) -> None:
        """Put an arriving request into the waiting queue."""
        state = CohortRequest(request, self.pool.root, self._caching)
        if isinstance(self._waiting, deque):
            self._waiting.append(state)
        else:
            insort(self._waiting, state)
            self._head_is_blocked = False

    # -- one decision

    def plan_step(self) -> StepPlan | None:
        """Decide the next step and take its KV blocks; None if nothing can be done."""
        waiting = self._waiting
        if self._prefilling or (
            waiting
            and len(self._running) < self._max_running
            and (
                not self._head_is_blocked
                or (self._seen_count and self._seen[self._clock % self._block_size])
            )
        ):
            return self._plan_mixed()
        decoding = self._decoding
        if not decoding:
            return None
        pool = self.pool
        needed = self._needs[self._clock % self._block_size]
        if needed > pool.free or decoding > self.limits.max_num_batched_tokens:
            return self._plan_mixed()
        self._tick(needed)
        plan = self._plan = self._decode_plan
        plan.decode_seqs = plan.decode_slots = decoding
        plan.decode_context_tokens = self._offset_sum + decoding * self._clock
        plan.new_blocks = needed
        plan.running, plan.waiting = len(self._running), len(waiting)
        plan.free_blocks = pool.free
        return plan

    def repeat_step(self, most: int) -> list[int]:
        """Plan up to ``most`` more steps like the last one; return the blocks that each takes."""
        decoding, pool, size = self._decoding, self.pool, self._block_size
        if self._plan is not self._decode_plan:
            return []
        if self._seen_count:
            return self._repeat_one_by_one(most)
        phase = self._clock % size
        if pool.free >= decoding:
            most = min(most, pool.free // decoding * size)  # each needs one in ``size`` steps
        else:
            most = self._steps_until_short(min(most, size))
        cycles, rest = divmod(most, size)
        taken = self._needs[phase : phase + rest]
        if cycles:
            taken = self._needs[phase : phase + size] * cycles + taken
        total = sum(taken)
        if total:
            pool.take(total)
        self._clock += most
        return taken

    def _steps_until_short(self, most: int) -> int:
        phase, free = self._clock % self._block_size, self.pool.free
        for steps in range(most):
            free -= self._needs[phase + steps]
            if free < 0:
                return steps
        return most

    def _repeat_one_by_one(self, most: int) -> list[int]:
        if self._waiting:
            return []  # a block published in between could change what the head can share
        taken: list[int] = []
        while len(taken) < most:
            needed = self._needs[self._clock % self._block_size]
            if needed > self.pool.free:
                break
            self._tick(needed)
            taken.append(needed)
        return taken

    def complete_step(self, plan: StepPlan, finished: list[int]) -> None:
        """Learn that a step's tokens were delivered, and which requests they finished."""
        if not finished:
            return
        done = [self._running[number] for number in finished]
        if len(done) > 1:
            done.sort(key=_admission)
        for request in done:
            del self._running[request.request]
            self._leave_cohort(request)
            self._release(request, request.computed)
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
                entries.append(Scheduled(number, 1, request.offset + self._clock - 1, True))
        return entries

    # -- the cohort

    def _tick(self, needed: int) -> None:
        """Let every decoding request compute one token; ``needed`` new blocks."""
        if needed:
            self.pool.take(needed)
        clock = self._clock
        if self._seen_count:
            filling = self._seen[clock % self._block_size]
            if filling:
                for request in sorted(filling.values(), key=_admission):
                    full = (request.offset + clock + 1) // self._block_size
                    self.pool.publish(request, request.stream, full)
                self._head_is_blocked = False
        self._clock = clock + 1

    def _join_cohort(self, request: CohortRequest) -> None:
        request.decoding = True
        request.offset = request.computed - self._clock
        self._decoding += 1
        self._enter_calendars(request)

    def _leave_cohort(self, request: CohortRequest) -> None:
        """Make ``computed`` and ``known`` explicit again."""
        self._leave_calendars(request)
        self._decoding -= 1
        request.decoding = False
        request.computed = request.offset + self._clock
        request.known = request.computed + 1

    def _enter_calendars(self, request: CohortRequest) -> None:
        size = self._block_size
        phase = -request.offset % size
        self._needs[phase] += 1
        self._needs[phase + size] += 1
        self._offset_sum += request.offset
        if not request.unseen_output:
            self._seen[phase - 1][request.request] = request
            self._seen_count += 1

    def _leave_calendars(self, request: CohortRequest) -> None:
        size = self._block_size
        phase = -request.offset % size
        self._needs[phase] -= 1
        self._needs[phase + size] -= 1
        self._offset_sum -= request.offset
        if not request.unseen_output:
            del self._seen[phase - 1][request.request]
            self._seen_count -= 1

    # -- steps with prefill, or under pressure

    def _plan_mixed(self) -> StepPlan | None:
        plan = StepPlan()
        free_before = self.pool.free
        self._plan = plan
        chunks: list[Chunk] = []
        self._decide(plan, chunks)
        if not chunks and not plan.decode_seqs and not plan.preempted:
            return None
        if not plan.preempted:
            plan.new_blocks = free_before - self.pool.free
        self._settle(plan, chunks)
        self._head_is_blocked = not (chunks or plan.preempted or not self._waiting)
        plan.running, plan.waiting = len(self._running), len(self._waiting)
        plan.free_blocks = self.pool.free
        return plan

    def _decide(self, plan: StepPlan, chunks: list[Chunk]) -> None:
        """Choose a step's work: running requests first, then waiting ones."""
        cap = self._cap()
        budget = self._plan_running(plan, chunks, cap)
        if not plan.preempted:
            self._plan_waiting(plan, chunks, cap, budget)

    def _cap(self) -> int | None:
        limits = self.limits
        cap = limits.long_prefill_token_threshold
        if not cap:
            return None
        eligible = len(self._running) + len(self._waiting)
        if eligible <= 1:
            return None
        if limits.long_prefill_token_threshold_adaptive:
            return max(cap, limits.max_num_batched_tokens // eligible)
        return cap

    def _plan_running(self, plan: StepPlan, chunks: list[Chunk], cap: int | None) -> int:
        """Give the running their tokens; return what is left of the budget."""
        size, clock, pool = self._block_size, self._clock, self.pool
        decoding = self._decoding
        budget = self.limits.max_num_batched_tokens - decoding
        needed = self._needs[clock % size]
        for request in self._prefilling:
            wanted = request.known - request.computed
            if cap is not None and wanted > cap:
                wanted = cap
            if wanted > budget and (len(self._prefilling) > 1 or not self._is_last(request)):
                return self._walk_running(plan, chunks, cap)
            wanted = min(wanted, budget)
            budget -= wanted
            needed += -(-(request.computed + wanted) // size) + request.computed // -size
            chunks.append((request, wanted))
        publishing = chunks and self._seen_count and self._seen[clock % size]
        if needed > pool.free or budget < 0 or publishing:
            return self._walk_running(plan, chunks, cap)
        if decoding:
            self._tick(self._needs[clock % size])
            plan.decode_seqs = plan.decode_slots = decoding
            plan.decode_context_tokens = self._offset_sum + decoding * self._clock
        if chunks and not chunks[-1][1]:
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
        limits, pool, waiting, size = self.limits, self.pool, self._waiting, self._block_size
        running, caching, max_running = self._running, self._caching, self._max_running
        hit: Hit = []
        while budget > 0 and waiting and len(running) < max_running:
            request = waiting[0]
            known = request.known
            if caching and not (request.stream.private and not request.preempted):
                hit, blocks, unused = pool.lookup(request.stream, (known - 1) // size)
            else:
                blocks = unused = 0
            cached = blocks * size
            wanted = known - cached
            if cap is not None and wanted > cap:
                wanted = cap
            if wanted > budget:
                if not limits.enable_chunked_prefill:
                    break
                wanted = budget
            reserve = self._watermark_blocks if running else 0
            room = pool.free - unused - reserve + blocks
            if limits.scheduler_reserve_full_isl and -(-known // size) > room:
                break
            if -(-(cached + wanted) // size) > room:
                break
            if isinstance(waiting, deque):
                waiting.popleft()
            else:
                waiting.pop(0)
            if blocks:
                pool.share(request, hit)
            request.computed = cached
            self._admissions += 1
            request.admission = self._admissions
            running[request.request] = request
            plan.admitted.append(Admission(request.request, cached, request.preempted))
            self._prefilling.append(request)
            self._extend(request, wanted)
            chunks.append((request, wanted))
            budget -= wanted

    def _settle(self, plan: StepPlan, chunks: list[Chunk]) -> None:
        for request, tokens in chunks:
            past = request.computed
            plan.prefill.append(PlannedPrefill(request.request, tokens, past))
            request.computed = past + tokens
            if request.computed == request.known:
                plan.prefill_done.append(request.request)
                self._prefilling.remove(request)
                self._join_cohort(request)

    # -- where calendars do not suffice: request by request

    def _walk_running(self, plan: StepPlan, chunks: list[Chunk], cap: int | None) -> int:
        budget = self.limits.max_num_batched_tokens
        size, clock, pool = self._block_size, self._clock, self.pool
        planned: dict[CohortRequest, int] = {}
        missed: list[CohortRequest] = []
        chunks.clear()
        for request in list(self._running.values()):
            if request.request not in self._running:
                continue  # preempted by a request before it
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
                plan.preempted.append(victim.request)
                if victim is request:
                    break
            else:
                if new_blocks:
                    pool.take(new_blocks)
                if self._caching and not (request.decoding and request.unseen_output):
                    pool.publish(request, request.stream, total // size)
                planned[request] = wanted
                budget -= wanted
                continue
            if not self._priority:
                break
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
        self._clock += 1
        for request in missed:
            if request.decoding:
                self._leave_calendars(request)
                request.offset -= 1
                self._enter_calendars(request)
                plan.skipped.append(request.request)
        plan.decode_seqs = plan.decode_slots = len(decoding)
        plan.decode_context_tokens = sum(r.offset for r in decoding) + len(decoding) * self._clock

    def _choose_victim(self) -> CohortRequest:
        if self._priority:
            return max(self._running.values(), key=lambda r: r.view[3:5])
        return next(reversed(self._running.values()))

    def _preempt(self, request: CohortRequest, planned_tokens: int) -> int:
        """Take everything from a running request; return the budget it gives back."""
        if request.decoding:
            self._leave_cohort(request)
        else:
            self._prefilling.remove(request)
        del self._running[request.request]
        self._release(request, request.computed + planned_tokens)
        request.computed = 0
        request.preempted = True
        if isinstance(self._waiting, deque):
            self._waiting.appendleft(request)
        else:
            insort(self._waiting, request)
        return planned_tokens

    def _release(self, request: CohortRequest, tokens: int) -> None:
        """Give back the blocks that hold ``tokens`` tokens."""
        held = -(-tokens // self._block_size)
        if self._caching:
            full = tokens // self._block_size
            self.pool.publish(request, request.stream, full)
            self.pool.release(request, held - full)
        else:
            self.pool.release(request, held)


def _admission(request: CohortRequest) -> int:
    return request.admission
