"""vLLM's chunked-prefill scheduler written plainly: every request, every block, every step.

There is no prefill phase and no decode phase: each request has known tokens and computed
tokens, and every step lets requests catch up, within one token budget, the running first.
This is the oracle of the fast ``CohortScheduler``, and the class to subclass for a policy of
one's own. The rules are vLLM 0.33.0's (``v1/core/sched/scheduler.py``).

With async scheduling a step is planned before the tokens of the one before it are known. A
token that is sampled but not delivered is a *placeholder*: it counts as known where the next
token is planned, but has no content yet.
"""

from __future__ import annotations

from collections import deque

from simserve.policy.limits import SchedulerLimits
from simserve.policy.plain_memory import PlainMemory, PlainRequest
from simserve.policy.prefill_cadence import PrefillCadence
from simserve.policy.scheduler import (
    Admission,
    PlannedPrefill,
    RequestView,
    Scheduled,
    StepPlan,
)

__all__ = ["PlainRequest", "PlainScheduler"]

InFlight = tuple[PlainRequest, int, bool]
"""A request in a planned step: its tokens, and whether the last of them samples a new one."""


class PlainScheduler(PlainMemory):
    """Chunked prefill over a single token budget; see the module."""

    def __init__(self, limits: SchedulerLimits) -> None:
        super().__init__(limits)
        self.waiting_queue: list[PlainRequest] = []
        self._last: list[Scheduled] = []
        self._cadence = PrefillCadence(limits.prefill_schedule_interval)
        self._in_flight: deque[list[InFlight]] = deque()  # per planned step

    @property
    def running(self) -> int:
        """Requests that hold KV blocks."""
        return len(self.running_queue)

    @property
    def waiting(self) -> int:
        """Requests in the waiting queue."""
        return len(self.waiting_queue)

    def last_scheduled(self) -> list[Scheduled]:
        """Return the last planned step request by request, in the order of scheduling."""
        return self._last

    def add(self, request: RequestView) -> None:
        """Put an arriving request into the waiting queue."""
        state = PlainRequest(request)
        self.enqueue(state)

    # -- one decision

    def plan_step(self) -> StepPlan | None:
        """Decide the next step and take its KV blocks; None if nothing can be done."""
        free_before = self.pool.free
        decoding = [r for r in self.running_queue if not r.prefilling]
        self._cadence.begin(bool(decoding))
        cap = self._cap()
        tokens: dict[PlainRequest, int] = {}
        plan = StepPlan()
        budget = self._plan_running(tokens, plan, cap)
        if not plan.preempted:
            self._plan_waiting(tokens, plan, cap, budget)
            self._cadence.admitted_all(self.waiting)
        if not tokens and not plan.preempted:
            return None
        self._settle(tokens, plan, decoding)
        self._cadence.end(len(tokens), self._carries_prefill(plan))
        if not plan.preempted:
            plan.new_blocks = free_before - self.pool.free
        plan.running, plan.waiting = self.running, self.waiting
        plan.free_blocks = self.pool.free
        return plan

    def hold(self, requests: list[int]) -> None:
        """Plan nothing more for running requests whose last token is in flight."""
        for request in self.running_queue:
            if request.view.request in requests:
                request.held = True

    def complete_step(self, plan: StepPlan, finished: list[int]) -> None:
        """Learn that the oldest open step's tokens were delivered, and whom they finished."""
        for request, tokens, samples in self._in_flight.popleft():
            request.tokens_in_flight -= tokens
            stale = request.stale_tokens > 0
            if stale:
                request.stale_tokens -= tokens
            if not samples:
                continue
            request.known_tokens += 1
            if request.placeholders and not stale:
                request.placeholders -= 1
                if self.limits.enable_prefix_caching and request in self.running_queue:
                    self._publish_up_to(request, request.computed_tokens - request.tokens_in_flight)
            if request.view.request in finished:
                self._forget(request)

    def abort(self, requests: list[int]) -> None:
        """Drop these requests, running or waiting, and free their blocks."""
        known = {r.view.request: r for r in (*self.running_queue, *self.waiting_queue)}
        for number in requests:
            self._forget(known[number])

    def _forget(self, request: PlainRequest) -> None:
        self.pool.give_back(request.blocks)
        self._cadence.forget(request.view.request)
        in_running = request in self.running_queue
        (self.running_queue if in_running else self.waiting_queue).remove(request)

    # -- rules that a subclass may replace

    def enqueue(self, request: PlainRequest) -> None:
        """Put a new or preempted request into the waiting queue."""
        queue = self.waiting_queue
        if self.limits.scheduling_policy == "priority":
            queue.append(request)
            queue.sort(key=lambda r: r.rank)
        elif request.preemptions:
            queue.insert(0, request)
        else:
            queue.append(request)

    def choose_victim(self) -> PlainRequest:
        """Return the running request that gives up its blocks."""
        if self.limits.scheduling_policy == "priority":
            return max(self.running_queue, key=lambda r: r.rank[:2])
        return self.running_queue[-1]

    # -- the running, in order of admission

    def _cap(self) -> int | None:
        limits = self.limits
        eligible = len(self.running_queue) + len(self.waiting_queue)
        if not limits.long_prefill_token_threshold or eligible <= 1:
            return None
        if limits.long_prefill_token_threshold_adaptive:
            return max(
                limits.long_prefill_token_threshold, limits.max_num_batched_tokens // eligible
            )
        return limits.long_prefill_token_threshold

    def _plan_running(
        self, tokens: dict[PlainRequest, int], plan: StepPlan, cap: int | None
    ) -> int:
        budget = self.limits.max_num_batched_tokens
        preempted: list[int] = []
        gone: set[PlainRequest] = set()
        for request in list(self.running_queue):
            if budget <= 0:
                break
            if request in gone or request.held or (request.prefilling and self._cadence.holds):
                continue
            wanted = request.known_tokens + request.placeholders - request.computed_tokens
            if cap is not None:
                wanted = min(wanted, cap)
            wanted = min(wanted, budget, self.limits.max_model_len - 1 - request.computed_tokens)
            if wanted == 0:
                continue
            while not self._allocate(request, wanted):
                victim = self.choose_victim()
                budget += tokens.pop(victim, 0)
                self._preempt(victim)
                gone.add(victim)
                preempted.append(victim.view.request)
                if victim is request:
                    break
            else:
                tokens[request] = wanted
                budget -= wanted
                continue
            if self.limits.scheduling_policy != "priority":
                break
        plan.preempted = preempted
        return budget

    def _preempt(self, request: PlainRequest) -> None:
        self.pool.give_back(request.blocks)
        request.blocks, request.published_blocks = [], 0
        request.computed_tokens = 0
        request.prefilling = True
        request.preemptions += 1
        request.placeholders = 0
        request.stale_tokens = request.tokens_in_flight
        request.held = False
        self.running_queue.remove(request)
        self.enqueue(request)

    # -- then the waiting, nobody overtakes the head

    def _plan_waiting(
        self, tokens: dict[PlainRequest, int], plan: StepPlan, cap: int | None, budget: int
    ) -> None:
        limits, queue = self.limits, self.waiting_queue
        admitted: list[Admission] = []
        passed_over: list[PlainRequest] = []
        while budget > 0 and queue and len(self.running_queue) < limits.max_running:
            request = queue[0]
            if request.stale_tokens:  # keeps its place, but waits for its token
                passed_over.append(queue.pop(0))
                self._cadence.pass_over(request.view.request)
                continue
            hits = self._hits(request)
            cached_tokens = len(hits) * limits.block_size
            wanted = request.known_tokens - cached_tokens
            if wanted > 1 and self._cadence.holds:
                break
            if cap is not None:
                wanted = min(wanted, cap)
            if not limits.enable_chunked_prefill and wanted > budget:
                break
            wanted = min(wanted, budget)
            if not self._allocate(request, wanted, hits, admission=True):
                break
            queue.pop(0)
            self._cadence.forget(request.view.request)
            self.running_queue.append(request)
            request.computed_tokens = cached_tokens
            admitted.append(Admission(request.view.request, cached_tokens, request.preemptions > 0))
            tokens[request] = wanted
            budget -= wanted
        queue[:0] = passed_over
        plan.admitted = admitted

    def _carries_prefill(self, plan: StepPlan) -> bool:
        """Whether a step prefills: a chunk of a running prompt, or more than one new token."""
        admitted = {admission.request for admission in plan.admitted}
        known = {r.view.request: r.known_tokens for r in self.running_queue}
        return any(
            chunk.request not in admitted or known[chunk.request] - chunk.past_tokens > 1
            for chunk in plan.prefill
        )

    def _settle(
        self, tokens: dict[PlainRequest, int], plan: StepPlan, decoding: list[PlainRequest]
    ) -> None:
        was_decoding = set(decoding)
        self._last = []
        prefill: list[PlannedPrefill] = []
        prefill_done: list[int] = []
        in_flight: list[InFlight] = []
        self._in_flight.append(in_flight)
        for request, new_tokens in tokens.items():
            past = request.computed_tokens
            request.computed_tokens += new_tokens
            request.tokens_in_flight += new_tokens
            known = request.known_tokens + request.placeholders
            request.prefilling = request.computed_tokens < known
            in_flight.append((request, new_tokens, not request.prefilling))
            if self.limits.async_scheduling and not request.prefilling:
                request.placeholders += 1
            number = request.view.request
            decode = request in was_decoding
            self._last.append(Scheduled(number, new_tokens, past, decode))
            if decode:
                plan.decode_seqs += 1
                plan.decode_context_tokens += request.computed_tokens
                continue
            prefill.append(PlannedPrefill(number, new_tokens, past))
            if not request.prefilling:
                prefill_done.append(number)
        plan.prefill, plan.prefill_done = prefill, prefill_done
        plan.decode_slots = plan.decode_seqs
        if plan.decode_seqs:
            plan.skipped = [
                r.view.request
                for r in self.running_queue
                if r in was_decoding and r not in tokens and not r.held
            ]
