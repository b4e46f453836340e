"""What the cohort scheduler remembers, and the moves that its steps of every kind make."""

from __future__ import annotations

from simserve.policy.decode_cohort import CohortRequest, DecodeCohort
from simserve.policy.limits import SchedulerLimits
from simserve.policy.prefill_cadence import PrefillCadence
from simserve.policy.prefix_runs import RunPool
from simserve.policy.scheduler import StepPlan
from simserve.policy.waiting_queue import FcfsQueue, PriorityQueue, WaitingQueue

NOTHING = StepPlan()


class CohortState:
    """Who waits, who runs, who decodes in the cohort, and which steps are open."""

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

    # -- tokens in flight

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

    # -- blocks

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

    def _extend(self, request: CohortRequest, tokens: int) -> None:
        """Take the blocks of a prefill chunk and publish those that it fills."""
        size = self._block_size
        total = request.computed + tokens
        new_blocks = -(-total // size) + request.computed // -size
        if new_blocks:
            self.pool.take(new_blocks)
        if self._caching:
            self.pool.publish(request, request.stream, total // size)

    def _release(self, request: CohortRequest, held_tokens: int, known_tokens: int) -> None:
        """Give back the blocks of ``held_tokens`` tokens, of which some are not known yet."""
        held = -(-held_tokens // self._block_size)
        if self._caching:
            full = max(known_tokens // self._block_size, request.published)
            self.pool.publish(request, request.stream, full)
            self.pool.release(request, held - full)
        else:
            self.pool.release(request, held)


def admission(request: CohortRequest) -> int:
    """Return a sort key: vLLM walks running requests in the order of admission."""
    return request.admission


def samples(plan: StepPlan, request: int) -> bool:
    """Return whether a request that decodes after ``plan`` sampled a token in it."""
    if request in plan.prefill_done:
        return True
    return plan.decode_seqs > 0 and request not in plan.skipped
