"""vLLM's chunked-prefill scheduler written plainly: every request, every block, every step.

There is no prefill phase and no decode phase: each request has known tokens and computed
tokens, and every step lets requests catch up, within one token budget, the running first.
This is the oracle of the fast ``CohortScheduler``, and the class to subclass for a policy of
one's own. The rules are vLLM 0.33.0's (``v1/core/sched/scheduler.py``), synchronous.
"""

from __future__ import annotations

from simserve.policy.limits import SchedulerLimits
from simserve.policy.plain_blocks import PlainBlocks
from simserve.policy.scheduler import (
    Admission,
    PlannedPrefill,
    RequestView,
    Scheduled,
    StepPlan,
)


class PlainRequest:
    """What the scheduler remembers of a request."""

    def __init__(self, view: RequestView) -> None:
        self.view = view
        self.known_tokens = view.prompt_tokens  # prompt and delivered output
        self.computed_tokens = 0
        self.prefilling = True
        self.blocks: list[int] = []
        self.published_blocks = 0
        self.contents: list[int] = []  # of its full blocks, chained
        self.preemptions = 0

    @property
    def rank(self) -> tuple[int, int, str]:
        """Place in a priority queue: smaller is better."""
        return (self.view.priority, self.view.arrival_ps, self.view.request_id)


class PlainScheduler:
    """Chunked prefill over a single token budget; see the module."""

    def __init__(self, limits: SchedulerLimits) -> None:
        self.limits = limits
        self.pool = PlainBlocks(limits.usable_blocks)
        self.waiting_queue: list[PlainRequest] = []
        self.running_queue: list[PlainRequest] = []  # in order of admission
        self._requests: dict[int, PlainRequest] = {}
        self._content_ids: dict[tuple[int, tuple[int, ...]], int] = {}
        self._last: list[Scheduled] = []

    @property
    def running(self) -> int:
        """Requests that hold KV blocks."""
        return len(self.running_queue)

    @property
    def waiting(self) -> int:
        """Requests in the waiting queue."""
        return len(self.waiting_queue)

    @property
    def free_blocks(self) -> int:
        """KV blocks that nobody uses."""
        return self.pool.free

    @property
    def cached_contents(self) -> int:
        """Distinct contents in the prefix cache."""
        return len(self.pool.holders)

    def last_scheduled(self) -> list[Scheduled]:
        """Return the last planned step request by request, in the order of scheduling."""
        return self._last

    def add(self, request: RequestView) -> None:
        """Put an arriving request into the waiting queue."""
        state = PlainRequest(request)
        self._requests[request.request] = state
        self.enqueue(state)

    # -- one decision

    def plan_step(self) -> StepPlan | None:
        """Decide the next step and take its KV blocks; None if nothing can be done."""
        free_before = self.pool.free
        decoding = [r for r in self.running_queue if not r.prefilling]
        cap = self._cap()
        tokens: dict[PlainRequest, int] = {}
        plan = StepPlan()
        budget = self._plan_running(tokens, plan, cap)
        if not plan.preempted:
            self._plan_waiting(tokens, plan, cap, budget)
        if not tokens and not plan.preempted:
            return None
        self._settle(tokens, plan, decoding)
        if not plan.preempted:
            plan.new_blocks = free_before - self.pool.free
        plan.running, plan.waiting = self.running, self.waiting
        plan.free_blocks = self.pool.free
        return plan

    def complete_step(self, plan: StepPlan, finished: list[int]) -> None:
        """Learn that a step's tokens were delivered, and which requests they finished."""
        done = set(finished)
        for entry in self._last:
            request = self._requests[entry.request]
            if request.prefilling:
                continue
            request.known_tokens += 1
            if entry.request in done:
                self.pool.give_back(request.blocks)
                self.running_queue.remove(request)
                del self._requests[entry.request]

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
        gone: set[PlainRequest] = set()
        for request in list(self.running_queue):
            if budget <= 0:
                break
            if request in gone:
                continue
            wanted = request.known_tokens - request.computed_tokens
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
                plan.preempted.append(victim.view.request)
                if victim is request:
                    break
            else:
                tokens[request] = wanted
                budget -= wanted
                continue
            if self.limits.scheduling_policy != "priority":
                break
        return budget

    def _preempt(self, request: PlainRequest) -> None:
        self.pool.give_back(request.blocks)
        request.blocks, request.published_blocks = [], 0
        request.computed_tokens = 0
        request.prefilling = True
        request.preemptions += 1
        self.running_queue.remove(request)
        self.enqueue(request)

    # -- then the waiting, nobody overtakes the head

    def _plan_waiting(
        self, tokens: dict[PlainRequest, int], plan: StepPlan, cap: int | None, budget: int
    ) -> None:
        limits = self.limits
        while budget > 0 and self.waiting_queue and len(self.running_queue) < limits.max_running:
            request = self.waiting_queue[0]
            hits = self._hits(request)
            cached_tokens = len(hits) * limits.block_size
            wanted = request.known_tokens - cached_tokens
            if cap is not None:
                wanted = min(wanted, cap)
            if not limits.enable_chunked_prefill and wanted > budget:
                break
            wanted = min(wanted, budget)
            if not self._allocate(request, wanted, hits, admission=True):
                break
            self.waiting_queue.pop(0)
            self.running_queue.append(request)
            request.computed_tokens = cached_tokens
            plan.admitted.append(
                Admission(request.view.request, cached_tokens, request.preemptions > 0)
            )
            tokens[request] = wanted
            budget -= wanted

    def _settle(
        self, tokens: dict[PlainRequest, int], plan: StepPlan, decoding: list[PlainRequest]
    ) -> None:
        was_decoding = set(decoding)
        self._last = []
        for request, new_tokens in tokens.items():
            past = request.computed_tokens
            request.computed_tokens += new_tokens
            request.prefilling = request.computed_tokens < request.known_tokens
            number = request.view.request
            decode = request in was_decoding
            self._last.append(Scheduled(number, new_tokens, past, decode))
            if decode:
                plan.decode_seqs += 1
                plan.decode_context_tokens += request.computed_tokens
                continue
            plan.prefill.append(PlannedPrefill(number, new_tokens, past))
            if not request.prefilling:
                plan.prefill_done.append(number)
        plan.decode_slots = plan.decode_seqs
        if plan.decode_seqs:
            plan.skipped = [
                r.view.request for r in self.running_queue if r in was_decoding and r not in tokens
            ]

    # -- blocks

    def _allocate(
        self,
        request: PlainRequest,
        new_tokens: int,
        hits: list[int] | None = None,
        admission: bool = False,
    ) -> bool:
        """Give a request blocks for ``new_tokens`` more tokens; False if they are not there."""
        limits, pool, hits = self.limits, self.pool, hits or []
        size = limits.block_size
        unused_hits = sum(not pool.users[block] for block in hits)
        reserve = limits.watermark_blocks if admission and self.running_queue else 0
        held = len(request.blocks) + len(hits)

        def fits(total_tokens: int) -> bool:
            needed = max(-(-total_tokens // size) - held, 0)
            return needed + unused_hits + reserve <= pool.free

        computed = request.computed_tokens + len(hits) * size
        total = min(computed + new_tokens, limits.max_model_len)
        whole = min(request.known_tokens, limits.max_model_len)
        if admission and limits.scheduler_reserve_full_isl and not fits(whole):
            return False
        if not fits(total):
            return False
        pool.share(hits)
        request.blocks += hits
        request.published_blocks = max(request.published_blocks, len(hits))
        request.blocks += pool.take(max(-(-total // size) - len(request.blocks), 0))
        if limits.enable_prefix_caching:
            self._publish(request, min(computed + new_tokens, request.known_tokens) // size)
        return True

    def _publish(self, request: PlainRequest, full_blocks: int) -> None:
        self._know_contents(request, full_blocks)
        for k in range(request.published_blocks, full_blocks):
            self.pool.publish(request.blocks[k], request.contents[k])
        request.published_blocks = max(request.published_blocks, full_blocks)

    def _hits(self, request: PlainRequest) -> list[int]:
        if not self.limits.enable_prefix_caching:
            return []
        usable = (request.known_tokens - 1) // self.limits.block_size
        self._know_contents(request, usable)
        hits = []
        for content in request.contents[:usable]:
            block = self.pool.find(content)
            if block is None:
                break
            hits.append(block)
        return hits

    def _know_contents(self, request: PlainRequest, full_blocks: int) -> None:
        """Name each full block by (name of the block before, its tokens)."""
        size, stream = self.limits.block_size, request.view.stream
        while len(request.contents) < full_blocks:
            token = len(request.contents) * size
            at = stream.segment_at(token)
            tokens: list[int] = []
            for k in range(token, token + size):
                at = stream.segment_at(k, at)
                tokens += [stream.segments[at], k - (stream.ends[at - 1] if at else 0)]
            before = request.contents[-1] if request.contents else -1
            name = self._content_ids.setdefault((before, tuple(tokens)), len(self._content_ids))
            request.contents.append(name)
