"""Schedulers that are wrong in one deliberate way each, by the name of the case that tells.

Most are the plain rules with one of them changed; the last few are faults of the fast twin.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from simserve.parity.verify import MakeScheduler
from simserve.policy.cohort import CohortScheduler
from simserve.policy.decode_cohort import CohortRequest
from simserve.policy.limits import SchedulerLimits
from simserve.policy.plain import PlainRequest, PlainScheduler
from simserve.policy.plain_blocks import PlainBlocks
from simserve.policy.prefill_cadence import PrefillCadence
from simserve.policy.prefix_runs import Copy, Hit, RunPool
from simserve.policy.pressure import Chunk
from simserve.policy.scheduler import RequestView, StepPlan
from simserve.policy.token_stream import TokenStream

Tokens = dict[PlainRequest, int]

# -- settings that are not heeded


def with_other_limits(**changes: Any) -> MakeScheduler:
    """Return plain schedulers that believe in other limits than they were given."""
    return lambda limits: PlainScheduler(replace(limits, **changes))


class ThresholdForALoneRequest(PlainScheduler):
    def _cap(self) -> int | None:
        return super()._cap() or self.limits.long_prefill_token_threshold or None


class FairShareOfTheRunningOnly(PlainScheduler):
    def _cap(self) -> int | None:
        cap, limits = super()._cap(), self.limits
        if cap is None or not limits.long_prefill_token_threshold_adaptive:
            return cap
        share = limits.max_num_batched_tokens // max(len(self.running_queue), 1)
        return max(limits.long_prefill_token_threshold, share)


# -- the free queue and the prefix cache


class Withholding(PlainBlocks):
    withheld = 0

    @property
    def free(self) -> int:
        return len(self.free_queue) - self.withheld


class WatermarkWithNobodyRunning(PlainScheduler):
    def __init__(self, limits: SchedulerLimits) -> None:
        super().__init__(limits)
        self.pool = Withholding(limits.usable_blocks)

    def applies(self, admission: bool) -> bool:
        return admission and not self.running_queue

    def _allocate(
        self,
        request: PlainRequest,
        new_tokens: int,
        hits: list[int] | None = None,
        admission: bool = False,
    ) -> bool:
        assert isinstance(self.pool, Withholding)
        self.pool.withheld = self.limits.watermark_blocks if self.applies(admission) else 0
        allocated = super()._allocate(request, new_tokens, hits, admission)
        self.pool.withheld = 0
        return allocated


class WatermarkForTheRunningToo(WatermarkWithNobodyRunning):
    def applies(self, admission: bool) -> bool:
        return not admission and len(self.running_queue) > 1


class NewestEvictedFirst(PlainBlocks):
    def take(self, count: int) -> list[int]:
        self.free_queue = type(self.free_queue)(reversed(self.free_queue.items()))
        taken = super().take(count)
        self.free_queue = type(self.free_queue)(reversed(self.free_queue.items()))
        return taken


class NewestDuplicateFound(PlainBlocks):
    def find(self, content: int) -> int | None:
        holders = self.holders.get(content)
        return next(reversed(holders)) if holders else None


class UnpublishedToTheBack(PlainBlocks):
    def give_back(self, table: list[int]) -> None:
        before = set(self.free_queue)
        super().give_back(table)
        for block in [b for b in self.free_queue if b not in before and self.content[b] is None]:
            self.free_queue.move_to_end(block)


class HeadGivenBackFirst(PlainBlocks):
    def give_back(self, table: list[int]) -> None:
        super().give_back(table[::-1])


def with_pool(pool: Callable[[int], PlainBlocks]) -> MakeScheduler:
    """Return plain schedulers with blocks of another class."""

    def make(limits: SchedulerLimits) -> PlainScheduler:
        scheduler = PlainScheduler(limits)
        scheduler.pool = pool(limits.usable_blocks)
        return scheduler

    return make


class LastTokenNotRecomputed(PlainScheduler):
    def _hits(self, request: PlainRequest) -> list[int]:
        request.known_tokens += 1
        hits = super()._hits(request)
        request.known_tokens -= 1
        return hits


class WholeLastBlockKeptBack(PlainScheduler):
    def _hits(self, request: PlainRequest) -> list[int]:
        return super()._hits(request)[
            : max((request.known_tokens - 2) // self.limits.block_size, 0)
        ]


class OutputNeverPublished(PlainScheduler):
    def _publish_up_to(self, request: PlainRequest, tokens: int) -> None:
        super()._publish_up_to(request, min(tokens, request.view.prompt_tokens))


class OneBlockTooManyPublished(PlainScheduler):
    def _publish_up_to(self, request: PlainRequest, tokens: int) -> None:
        known, size = request.known_tokens, self.limits.block_size
        request.known_tokens = len(request.blocks) * size
        super()._publish_up_to(request, -(-tokens // size) * size)
        request.known_tokens = known


class PublishedWhenComputed(PlainScheduler):
    """Blocks can be found from the next call on, not at once."""

    def __init__(self, limits: SchedulerLimits) -> None:
        super().__init__(limits)
        self.due: list[tuple[PlainRequest, int]] = []

    def plan_step(self) -> StepPlan | None:
        for request, tokens in self.due:
            super()._publish_up_to(request, tokens)
        self.due = []
        return super().plan_step()

    def _publish_up_to(self, request: PlainRequest, tokens: int) -> None:
        self.due.append((request, tokens))

    def _preempt(self, request: PlainRequest) -> None:
        self.due = [entry for entry in self.due if entry[0] is not request]
        super()._preempt(request)

    def _forget(self, request: PlainRequest) -> None:
        self.due = [entry for entry in self.due if entry[0] is not request]
        super()._forget(request)


# -- whose turn it is


class FirstIsTheVictim(PlainScheduler):
    def choose_victim(self) -> PlainRequest:
        if self.limits.scheduling_policy == "priority":
            return super().choose_victim()
        return self.running_queue[0]


class LastOfEqualsIsTheVictim(PlainScheduler):
    def choose_victim(self) -> PlainRequest:
        if self.limits.scheduling_policy == "priority":
            return max(reversed(self.running_queue), key=lambda r: r.rank[:2])
        return super().choose_victim()


class NewestIsTheVictimDespitePriority(PlainScheduler):
    def choose_victim(self) -> PlainRequest:
        return self.running_queue[-1]


class KeepsWhatVictimsWereGiven(dict[PlainRequest, int]):
    def pop(self, key: PlainRequest, default: Any = 0) -> int:
        super().pop(key, default)
        return 0


class VictimsBudgetIsLost(PlainScheduler):
    def _plan_running(self, tokens: Tokens, plan: StepPlan, cap: int | None) -> int:
        kept = KeepsWhatVictimsWereGiven()
        budget = super()._plan_running(kept, plan, cap)
        tokens.update(kept)
        return budget


class AdmitsAfterAPreemption(PlainScheduler):
    gone: list[int]

    def _plan_running(self, tokens: Tokens, plan: StepPlan, cap: int | None) -> int:
        budget = super()._plan_running(tokens, plan, cap)
        self.gone, plan.preempted = list(plan.preempted), []
        return budget

    def _plan_waiting(self, tokens: Tokens, plan: StepPlan, cap: int | None, budget: int) -> None:
        super()._plan_waiting(tokens, plan, cap, budget)
        plan.preempted = self.gone


class OvertakesABlockedHead(PlainScheduler):
    def _plan_waiting(self, tokens: Tokens, plan: StepPlan, cap: int | None, budget: int) -> None:
        super()._plan_waiting(tokens, plan, cap, budget)
        if not plan.admitted and len(self.waiting_queue) > 1:
            head = self.waiting_queue.pop(0)
            super()._plan_waiting(tokens, plan, cap, budget)
            self.waiting_queue.insert(0, head)


class PreemptedToTheBack(PlainScheduler):
    def enqueue(self, request: PlainRequest) -> None:
        if self.limits.scheduling_policy == "priority":
            super().enqueue(request)
        else:
            self.waiting_queue.append(request)


class PriorityAsFirstCome(PlainScheduler):
    """Waiting requests by arrival, whatever their priority."""

    def enqueue(self, request: PlainRequest) -> None:
        self.waiting_queue.append(request)
        if self.limits.scheduling_policy == "priority":
            self.waiting_queue.sort(key=lambda r: r.rank[1:])


# -- async scheduling


class PlaceholderIgnored(PlainScheduler):
    def _settle(self, tokens: Tokens, plan: StepPlan, decoding: list[PlainRequest]) -> None:
        super()._settle(tokens, plan, decoding)
        for request in tokens:
            request.placeholders = 0


class StaleTokenIsDropped(PlainScheduler):
    """A token that is in flight when its request is preempted never arrives."""

    def _preempt(self, request: PlainRequest) -> None:
        super()._preempt(request)
        for step in self._in_flight:
            step[:] = [(r, n, samples and r is not request) for r, n, samples in step]


class PublishedBeforeDelivery(PlainScheduler):
    def _publish_up_to(self, request: PlainRequest, tokens: int) -> None:
        request.known_tokens += request.placeholders
        super()._publish_up_to(request, tokens)
        request.known_tokens -= request.placeholders


# -- prefill_schedule_interval


def with_cadence(cadence: Callable[[int], PrefillCadence]) -> MakeScheduler:
    """Return plain schedulers that hold prefill back in another way."""

    def make(limits: SchedulerLimits) -> PlainScheduler:
        scheduler = PlainScheduler(limits)
        scheduler._cadence = cadence(limits.prefill_schedule_interval)
        return scheduler

    return make


class BacklogHoldsOn(PrefillCadence):
    def admitted_all(self, waiting: int) -> None:
        pass


class HoldsWithNobodyDecoding(PrefillCadence):
    def begin(self, anybody_decodes: bool) -> None:
        super().begin(True)


class HoldsAStepLonger(PrefillCadence):
    def begin(self, anybody_decodes: bool) -> None:
        self.interval += 1
        super().begin(anybody_decodes)
        self.interval -= 1


class ChunksGoOn(PlainScheduler):
    """Only admissions are held back, not the chunks of running prompts."""

    def _plan_running(self, tokens: Tokens, plan: StepPlan, cap: int | None) -> int:
        holds, self._cadence.holds = self._cadence.holds, False
        budget = super()._plan_running(tokens, plan, cap)
        self._cadence.holds = holds
        return budget


# -- the fast twin


class HitsAreFree(RunPool):
    def lookup(self, stream: TokenStream, max_blocks: int) -> tuple[Hit, int, int]:
        hit, blocks, _ = super().lookup(stream, max_blocks)
        return hit, blocks, 0


class HitsPastTheEnd(RunPool):
    def lookup(self, stream: TokenStream, max_blocks: int) -> tuple[Hit, int, int]:
        return super().lookup(stream, max_blocks + 1)


class NewestRunEvictedFirst(RunPool):
    def _link_newest(self, copy: Copy) -> None:
        oldest = self._unused.newer
        copy.older, copy.newer = self._unused, oldest
        oldest.older = self._unused.newer = copy


def with_runs(pool: type[RunPool]) -> MakeScheduler:
    """Return fast schedulers with blocks of another class."""

    def make(limits: SchedulerLimits) -> CohortScheduler:
        scheduler = CohortScheduler(limits)
        scheduler.pool = pool(limits.usable_blocks, limits.block_size)
        return scheduler

    return make


class FinishesInReverse(CohortScheduler):
    """Requests that finish together give their blocks back newest first."""

    def complete_step(self, plan: StepPlan, finished: list[int]) -> None:
        for request in self._running.values():
            request.admission = -request.admission
        super().complete_step(plan, finished)
        for request in self._running.values():
            request.admission = -request.admission


class NobodyMisses(CohortScheduler):
    """Requests that the budget left out are taken for having had their token."""

    def _take_up(
        self,
        plan: StepPlan,
        chunks: list[Chunk],
        planned: dict[CohortRequest, int],
        missed: list[CohortRequest],
    ) -> None:
        super()._take_up(plan, chunks, planned, [])


class BlockedHeadSeesNoArrival(CohortScheduler):
    """A head that did not fit is not looked at again when an arrival shrinks the fair share."""

    def add(self, request: RequestView) -> None:
        blocked = self._head_is_blocked
        super().add(request)
        self._head_is_blocked = blocked


class StretchesTakeNoBlocks(CohortScheduler):
    def repeat_step(self, most: int) -> array[int]:
        self._cohort.clock += most
        return array("i", [0]) * most


# -- clients that give up


class AbortedKeepTheirBlocks(PlainScheduler):
    def abort(self, requests: list[int]) -> None:
        for request in [r for r in self.running_queue if r.view.request in requests]:
            self.running_queue.remove(request)
        super().abort([r.view.request for r in self.waiting_queue if r.view.request in requests])


class OnlyTheRunningAreAborted(PlainScheduler):
    """Who waits is admitted, computed and only then let go."""

    def abort(self, requests: list[int]) -> None:
        super().abort([r.view.request for r in self.running_queue if r.view.request in requests])


class AbortedLeaveNothingBehind(PlainScheduler):
    """The blocks that an aborted request has filled are not found by others any more."""

    def abort(self, requests: list[int]) -> None:
        pool = self.pool
        for request in self.running_queue:
            if request.view.request in requests:
                for block in request.blocks:
                    content = pool.content[block]
                    if content is not None and pool.users[block] == 1:
                        pool.holders[content].pop(block)
                        pool.holders = {name: held for name, held in pool.holders.items() if held}
                        pool.content[block] = None
        super().abort(requests)


FAULTS: dict[str, tuple[str, MakeScheduler]] = {
    # rule by rule, as docs/verify.md numbers them
    "preempted-to-the-back": ("R1", PreemptedToTheBack),
    "priority-as-first-come": ("R1", PriorityAsFirstCome),
    "threshold-for-a-lone-request": ("R2", ThresholdForALoneRequest),
    "threshold-ignored": ("R2", with_other_limits(long_prefill_token_threshold=0)),
    "adaptive-threshold-ignored": (
        "R2", with_other_limits(long_prefill_token_threshold_adaptive=False)
    ),
    "fair-share-of-the-running-only": ("R2", FairShareOfTheRunningOnly),
    "first-is-the-victim": ("R4", FirstIsTheVictim),
    "last-of-equals-is-the-victim": ("R4", LastOfEqualsIsTheVictim),
    "newest-despite-priority": ("R4", NewestIsTheVictimDespitePriority),
    "victims-budget-is-lost": ("R4", VictimsBudgetIsLost),
    "admits-after-a-preemption": ("R5", AdmitsAfterAPreemption),
    "overtakes-a-blocked-head": ("R5", OvertakesABlockedHead),
    "splits-a-prompt-with-chunks-off": ("R5", with_other_limits(enable_chunked_prefill=True)),
    "active-seqs-ignored": ("R5", with_other_limits(max_num_active_seqs=None)),
    "arrival-shrinks-the-share": ("R5", BlockedHeadSeesNoArrival),
    "full-isl-ignored": ("R6", with_other_limits(scheduler_reserve_full_isl=False)),
    "watermark-ignored": ("R6", with_other_limits(watermark=0.0)),
    "watermark-with-nobody-running": ("R6", WatermarkWithNobodyRunning),
    "watermark-for-the-running-too": ("R6", WatermarkForTheRunningToo),
    "unused-hits-are-free": ("R6", with_runs(HitsAreFree)),
    "last-token-not-recomputed": ("R7", LastTokenNotRecomputed),
    "hits-past-the-end": ("R7", with_runs(HitsPastTheEnd)),
    "whole-last-block-kept-back": ("R7", WholeLastBlockKeptBack),
    "newest-duplicate-found": ("R7", with_pool(NewestDuplicateFound)),
    "output-never-published": ("R7", OutputNeverPublished),
    "one-block-too-many-published": ("R7", OneBlockTooManyPublished),
    "published-when-computed": ("R7", PublishedWhenComputed),
    "newest-evicted-first": ("R8", with_pool(NewestEvictedFirst)),
    "newest-run-evicted-first": ("R8", with_runs(NewestRunEvictedFirst)),
    "unpublished-to-the-back": ("R8", with_pool(UnpublishedToTheBack)),
    "head-given-back-first": ("R8", with_pool(HeadGivenBackFirst)),
    "interval-ignored": ("R12", with_other_limits(prefill_schedule_interval=1)),
    "backlog-holds-on": ("R12", with_cadence(BacklogHoldsOn)),
    "holds-with-nobody-decoding": ("R12", with_cadence(HoldsWithNobodyDecoding)),
    "holds-a-step-longer": ("R12", with_cadence(HoldsAStepLonger)),
    "held-chunks-go-on": ("R12", ChunksGoOn),
    "nobody-misses": ("R3", NobodyMisses),
    "finishes-in-reverse": ("R10", FinishesInReverse),
    "placeholder-ignored": ("R9", PlaceholderIgnored),
    "published-before-delivery": ("R10", PublishedBeforeDelivery),
    "stale-token-is-dropped": ("R11", StaleTokenIsDropped),
    "aborted-keep-their-blocks": ("R13", AbortedKeepTheirBlocks),
    "only-the-running-are-aborted": ("R13", OnlyTheRunningAreAborted),
    "aborted-leave-nothing-behind": ("R13", AbortedLeaveNothingBehind),
    "stretches-take-no-blocks": ("stretches", StretchesTakeNoBlocks),
}  # fmt: skip
"""Name of the fault and of the case that shows it: the rule that it breaks, the scheduler."""
