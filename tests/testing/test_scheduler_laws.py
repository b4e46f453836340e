"""The conformance check accepts the schedulers that ship and finds what is wrong with others."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest

from simserve.engine.invariants import LawBrokenError
from simserve.policy.cohort import CohortScheduler
from simserve.policy.limits import SchedulerLimits
from simserve.policy.plain import PlainRequest, PlainScheduler
from simserve.policy.registry import SCHEDULERS
from simserve.policy.scheduler import RequestView, Scheduler, StepPlan
from simserve.testing import check_scheduler
from simserve.testing.trial import random_trial


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_that_ships_obeys_the_laws(name: str) -> None:
    whole_prompts = name in {"continuous", "static"}
    check_scheduler(SCHEDULERS[name], seeds=range(30), whole_prompts=whole_prompts)


class LosesRequests(PlainScheduler):
    def add(self, request: RequestView) -> None:
        if request.request != 0:
            super().add(request)


class NeverStarts(PlainScheduler):
    def plan_step(self) -> StepPlan | None:
        return None


class OverspendsBudget(PlainScheduler):
    def __init__(self, limits: SchedulerLimits) -> None:
        super().__init__(limits)
        wide = {name: getattr(limits, name) for name in SchedulerLimits.__slots__}
        self.limits = SchedulerLimits(**wide | {"max_num_batched_tokens": 10_000})


class LeaksBlocks(PlainScheduler):
    def complete_step(self, plan: StepPlan, finished: list[int]) -> None:
        super().complete_step(plan, finished)
        if finished and self.pool.free:
            self.pool.take(1)


class HidesWaiting(PlainScheduler):
    @property
    def waiting(self) -> int:
        return 0


class ForgetsSkipped(PlainScheduler):
    def plan_step(self) -> StepPlan | None:
        plan = super().plan_step()
        if plan is not None:
            plan.decode_context_tokens += 1
        return plan


class ChangesItsMind(PlainScheduler):
    made = itertools.count()

    def __init__(self, limits: SchedulerLimits) -> None:
        super().__init__(limits)
        self.reversed = next(self.made) % 2 == 1

    def enqueue(self, request: PlainRequest) -> None:
        if self.reversed:
            self.waiting_queue.insert(0, request)
        else:
            self.waiting_queue.append(request)


class RepeatsWithoutBlocks(CohortScheduler):
    def repeat_step(self, most: int) -> list[int]:
        return [0] * len(super().repeat_step(most))


class RepeatsTooLittle(CohortScheduler):
    def repeat_step(self, most: int) -> list[int]:
        return [*super().repeat_step(most - 1), 0] if most > 1 else []


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        (LosesRequests, "waiting is|unserved"),
        (NeverStarts, "idle for good"),
        (OverspendsBudget, "tokens, budget"),
        (LeaksBlocks, "new_blocks|blocks are free at the end|idle|never finished"),
        (HidesWaiting, "waiting is 0"),
        (ForgetsSkipped, "decode_context_tokens"),
        (ChangesItsMind, "on the same calls"),
        (RepeatsWithoutBlocks, "repeat_step says"),
        (RepeatsTooLittle, "repeat_step|goes on|blocks|decode_context_tokens"),
    ],
)
def test_broken_scheduler_is_found_and_the_seed_is_told(
    broken: Callable[[SchedulerLimits], Scheduler], what: str
) -> None:
    with pytest.raises(LawBrokenError, match=rf"seed \d+: step \d+: .*({what})"):
        check_scheduler(broken)


def test_trials_differ_by_seed_and_repeat_by_seed() -> None:
    trials = [random_trial(seed) for seed in range(10)]
    assert len({(trial.limits, trial.output_tokens) for trial in trials}) == 10
    assert random_trial(3).output_tokens == trials[3].output_tokens


def test_every_request_of_a_trial_fits_alone() -> None:
    for seed in range(50):
        trial = random_trial(seed)
        for view, output_tokens in zip(trial.requests, trial.output_tokens, strict=True):
            whole = view.prompt_tokens + output_tokens
            assert whole <= trial.limits.max_model_len
            assert -(-whole // trial.limits.block_size) <= trial.limits.usable_blocks


def test_trials_make_schedulers_preempt_share_and_repeat() -> None:
    seen = set()

    class Watched(CohortScheduler):
        def plan_step(self) -> StepPlan | None:
            plan = super().plan_step()
            if plan is not None:
                seen.update(["preempted"] if plan.preempted else [])
                seen.update(["hit"] if any(a.cached_tokens for a in plan.admitted) else [])
            return plan

        def repeat_step(self, most: int) -> Sequence[int]:
            taken = super().repeat_step(most)
            seen.update(["repeated"] if taken else [])
            return taken

    check_scheduler(Watched)
    assert seen == {"preempted", "hit", "repeated"}
