"""Laws of a whole run: queueing formulas, conservation, scaling, determinism."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.engine.cluster import Cluster
from simserve.engine.pricing import steps_to_reach, stretch_ps
from simserve.parity.case import Case, CaseStepTime
from simserve.policy.cohort import CohortScheduler
from simserve.policy.limits import SchedulerLimits
from simserve.policy.router import ROUTERS, LeastLoaded, RoundRobin, Router
from simserve.records.clock import NEVER_PS, PS_PER_S
from simserve.records.requests import RequestTable
from simserve.records.run_record import FINISHED, RunRecord
from simserve.records.step import StepShape
from simserve.results.law_terms import Limits
from simserve.results.record_laws import broken_laws
from tests.policy.scenarios import cases
from tests.policy.test_cohort_equals_plain import THOROUGH, assert_same_run

Ints = npt.NDArray[np.int64]

ONE_SLOT = SchedulerLimits(
    max_num_seqs=1, max_num_batched_tokens=64, max_model_len=64, num_blocks=8
)
MANY_SLOTS = SchedulerLimits(
    max_num_seqs=64, max_num_batched_tokens=512, max_model_len=1024, num_blocks=2000
)


def serve(
    requests: RequestTable,
    limits: SchedulerLimits = MANY_SLOTS,
    step_time: CaseStepTime | None = None,
    router: Router | None = None,
    replicas: int = 1,
) -> RunRecord:
    """Serve a table with a linear step time."""
    step_time = step_time or CaseStepTime(1_000_000_000, 10_000_000, 10_000)
    return Cluster(
        requests, limits, CohortScheduler, step_time, router or RoundRobin(), replicas
    ).run()


def law_limits(limits: SchedulerLimits) -> Limits:
    """Return what the laws of a record must know of a scheduler's limits."""
    return Limits(
        max_running=limits.max_running,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        max_model_len=limits.max_model_len,
        usable_blocks=limits.usable_blocks,
        scheduled_ahead=limits.async_scheduling,
    )


def poisson(
    count: int, rate_per_s: float, seed: int, prompt: int = 16, output: int = 8
) -> RequestTable:
    """Return ``count`` equal requests with Poisson arrivals."""
    gaps_s = np.random.default_rng(seed).exponential(1 / rate_per_s, count)
    return RequestTable(
        arrival_ps=np.cumsum(gaps_s * PS_PER_S).astype(np.int64),
        prompt_tokens=np.full(count, prompt, dtype=np.int64),
        output_tokens=np.full(count, output, dtype=np.int64),
    )


@pytest.mark.parametrize("load", [0.3, 0.5, 0.8])
def test_one_slot_with_a_fixed_step_time_is_an_md1_queue(load: float) -> None:
    # A request of one output token is one step of 10 ms; Pollaczek-Khinchine for M/D/1:
    # mean wait = service * load / (2 * (1 - load)).
    service_ps, batches, per_batch = 10_000_000_000, 40, 5000
    service_s = service_ps / PS_PER_S
    table = poisson(batches * per_batch, load / service_s, seed=1, output=1)
    run = serve(table, ONE_SLOT, CaseStepTime(service_ps, 0, 0))
    wait_s = (run.outcomes.first_scheduled_ps - table.arrival_ps) / PS_PER_S
    expected_s = service_s * load / (2 * (1 - load))
    means_s = wait_s[per_batch:].reshape(batches - 1, per_batch).mean(axis=1)
    # Batch means: nearly independent. Four standard errors: one failure in 16,000.
    standard_error_s = means_s.std(ddof=1) / math.sqrt(len(means_s))
    assert abs(means_s.mean() - expected_s) < 4 * standard_error_s
    assert standard_error_s < 0.05 * expected_s  # the test is sharp enough to fail


def test_one_slot_follows_lindley_exactly() -> None:
    service_ps = 10_000_000_000
    table = poisson(2000, 90.0, seed=2, output=1)
    run = serve(table, ONE_SLOT, CaseStepTime(service_ps, 0, 0))
    free_ps, expected = 0, []
    for arrival_ps in table.arrival_ps.tolist():
        free_ps = max(free_ps, arrival_ps) + service_ps
        expected.append(free_ps)
    assert run.outcomes.finish_ps.tolist() == expected


@THOROUGH
@given(cases())
def test_littles_law_and_every_other_law_of_a_record_hold_in_every_run(case: Case) -> None:
    run = serve(case.requests, case.limits, case.step_time)
    assert broken_laws(run, law_limits(case.limits)) == []


def test_littles_law_is_broken_by_steps_that_count_somebody_else() -> None:
    run = serve(poisson(300, 100.0, seed=7))
    log = run.steps[0]
    miscounted = replace(run, steps=(replace(log, waiting=log.waiting + 50),))
    broken = [law.law for law in broken_laws(miscounted, law_limits(MANY_SLOTS))]
    assert "littles-law" in broken


@THOROUGH
@given(cases(), st.sampled_from([2, 3, 10]))
def test_stretching_all_times_stretches_the_run(case: Case, factor: int) -> None:
    requests, times = case.requests, case.step_time
    patience_ps = requests.give_up_ps
    if patience_ps is not None:
        patience_ps = np.where(patience_ps == NEVER_PS, NEVER_PS, patience_ps * factor)
    # Priorities break ties by arrival: equal factors keep the order.
    slow = replace(requests, arrival_ps=requests.arrival_ps * factor, give_up_ps=patience_ps)
    slow_times = CaseStepTime(
        times.base_ps * factor, times.per_token_ps * factor, times.per_context_ps * factor
    )
    one = serve(requests, case.limits, times).outcomes
    other = serve(slow, case.limits, slow_times).outcomes
    served = one.status == FINISHED
    for name in ("first_scheduled_ps", "first_token_ps", "finish_ps"):
        assert (getattr(one, name)[served] * factor == getattr(other, name)[served]).all()


def test_the_same_inputs_give_the_same_record() -> None:
    table = poisson(500, 100.0, seed=3)
    assert_same_run(serve(table), serve(table))


def test_requests_that_arrive_together_share_their_first_step() -> None:
    table = RequestTable(
        arrival_ps=np.full(4, 7, dtype=np.int64),
        prompt_tokens=np.full(4, 16, dtype=np.int64),
        output_tokens=np.full(4, 2, dtype=np.int64),
    )
    run = serve(table)
    assert run.steps[0].prefill_seqs.tolist() == [4, 0]
    assert run.outcomes.first_scheduled_ps.tolist() == [7, 7, 7, 7]


def test_a_prompt_without_room_for_a_token_is_rejected_and_counted() -> None:
    table = RequestTable(
        arrival_ps=np.zeros(3, dtype=np.int64),
        prompt_tokens=np.array([10, MANY_SLOTS.max_model_len, 10], dtype=np.int64),
        output_tokens=np.full(3, 4, dtype=np.int64),
    )
    assert serve(table).outcomes.status.tolist() == [1, 2, 1]


def test_generation_stops_where_the_context_is_full() -> None:
    table = RequestTable(
        arrival_ps=np.zeros(1, dtype=np.int64),
        prompt_tokens=np.array([MANY_SLOTS.max_model_len - 3], dtype=np.int64),
        output_tokens=np.array([100], dtype=np.int64),
    )
    assert serve(table).outcomes.generated_tokens.tolist() == [3]


@pytest.mark.parametrize("name", sorted(ROUTERS))
def test_every_router_serves_everything_on_several_replicas(name: str) -> None:
    table = poisson(600, 400.0, seed=4)
    run = serve(table, router=ROUTERS[name](), replicas=3)
    assert (run.outcomes.status == FINISHED).all()
    assert set(run.outcomes.replica.tolist()) == {0, 1, 2}
    assert broken_laws(run, law_limits(MANY_SLOTS)) == []


def test_round_robin_splits_a_run_into_runs_of_their_own() -> None:
    table = poisson(300, 300.0, seed=5)
    together = serve(table, router=RoundRobin(), replicas=2)
    for replica in (0, 1):
        mine = np.arange(len(table)) % 2 == replica
        alone = serve(
            RequestTable(
                arrival_ps=table.arrival_ps[mine],
                prompt_tokens=table.prompt_tokens[mine],
                output_tokens=table.output_tokens[mine],
            )
        )
        assert together.outcomes.finish_ps[mine].tolist() == alone.outcomes.finish_ps.tolist()


def test_least_loaded_avoids_the_busy_replica() -> None:
    # A long request occupies replica 0; the short ones after it, one at a time, go to 1.
    table = RequestTable(
        arrival_ps=np.arange(5, dtype=np.int64) * 20_000_000_000,
        prompt_tokens=np.full(5, 16, dtype=np.int64),
        output_tokens=np.array([500, 2, 2, 2, 2], dtype=np.int64),
    )
    run = serve(table, router=LeastLoaded(), replicas=2)
    assert run.outcomes.replica.tolist() == [0, 1, 1, 1, 1]


class WithoutLines:
    """The same step time as a model that cannot price stretches."""

    def __init__(self, step_time: CaseStepTime) -> None:
        self._step_time = step_time

    def step_s(self, shape: StepShape) -> float:
        return self._step_time.step_s(shape)


def test_a_model_without_lines_gives_the_same_run() -> None:
    table, step_time = poisson(300, 100.0, seed=6), CaseStepTime(1_000_000_000, 7_000_000, 3_000)
    with_lines = serve(table, step_time=step_time)
    without = Cluster(
        table, MANY_SLOTS, CohortScheduler, WithoutLines(step_time), RoundRobin()
    ).run()
    assert_same_run(with_lines, without)


@given(st.integers(1, 10**16), st.integers(1, 10**12), st.integers(0, 10**9))
def test_steps_to_reach_is_the_smallest_number(span: int, duration: int, growth: int) -> None:
    steps = steps_to_reach(span, duration, growth)
    assert stretch_ps(steps, duration, growth) >= span
    assert steps == 1 or stretch_ps(steps - 1, duration, growth) < span
