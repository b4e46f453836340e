"""Continuous and static batching: what a step of theirs may contain."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from simserve.engine.flight import Flight
from simserve.engine.invariants import LawChecker
from simserve.engine.replica import Replica
from simserve.parity.case import Case
from simserve.parity.verify import serve_case
from simserve.policy.batching import ContinuousScheduler, StaticScheduler
from simserve.policy.limits import SchedulerLimits
from simserve.policy.scheduler import StepPlan
from simserve.records.run_record import ABORTED, FINISHED, REJECTED
from tests.policy.scenarios import cases
from tests.policy.test_cohort_equals_plain import THOROUGH, assert_same_run

BOTH = pytest.mark.parametrize("scheduler", [ContinuousScheduler, StaticScheduler])


@BOTH
@THOROUGH
@given(case=cases(whole_prompts=True))
def test_laws_hold_and_stretches_equal_single_steps(
    scheduler: type[ContinuousScheduler], case: Case
) -> None:
    single = serve_case(case, scheduler, LawChecker(case.limits))
    assert_same_run(single, serve_case(case, scheduler))
    assert np.isin(single.outcomes.status, [FINISHED, REJECTED, ABORTED]).all()


@BOTH
@THOROUGH
@given(case=cases(whole_prompts=True))
def test_a_step_never_mixes_prompts_and_decoding(
    scheduler: type[ContinuousScheduler], case: Case
) -> None:
    steps = serve_case(case, scheduler).steps[0].expand()
    assert not (steps["prefill_tokens"].astype(bool) & steps["decode_seqs"].astype(bool)).any()


class BatchWatcher:
    """Notes, for every admission into a static batch, what was already decoding."""

    def __init__(self) -> None:
        self.decoding: set[int] = set()
        self.late: list[int] = []
        self.idle_slots = 0

    def on_step(self, replica: Replica, flight: Flight, planned_ps: int) -> None:
        plan = flight.plan
        if plan.decode_seqs:
            self.decoding |= {e.request for e in replica.scheduler.last_scheduled()}
            self.idle_slots += plan.decode_slots - plan.decode_seqs
        self.decoding -= set(plan.preempted)
        if self.decoding:
            self.late += [admission.request for admission in plan.admitted]

    def on_abort(self, replica: Replica, requests: list[int]) -> None:
        self.decoding -= set(requests)

    def on_complete(self, replica: Replica, plan: StepPlan, finished: list[int]) -> None:
        self.decoding -= set(finished)


@THOROUGH
@given(case=cases(whole_prompts=True))
def test_a_static_batch_admits_nobody_once_it_decodes(case: Case) -> None:
    watcher = BatchWatcher()
    serve_case(case, StaticScheduler, watcher)
    assert watcher.late == []
    assert watcher.idle_slots >= 0


def test_prompts_that_cannot_be_chunked_need_a_budget_for_the_longest() -> None:
    limits = SchedulerLimits(
        max_num_seqs=4, max_num_batched_tokens=64, max_model_len=128, num_blocks=100
    )
    with pytest.raises(ValueError, match="max_num_batched_tokens\\(=64\\) must be >= max_model"):
        ContinuousScheduler(limits)
