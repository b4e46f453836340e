"""Users who wait for their answer before they ask again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.engine.cluster import Cluster
from simserve.parity.case import CaseStepTime
from simserve.policy.cohort import CohortScheduler
from simserve.policy.limits import SchedulerLimits
from simserve.policy.plain import PlainScheduler
from simserve.policy.router import LeastLoaded
from simserve.records.requests import RequestTable
from simserve.records.run_record import RunRecord
from tests.policy.test_cohort_equals_plain import assert_same_run

MS = 1_000_000_000
LIMITS = SchedulerLimits(
    max_num_seqs=16, max_num_batched_tokens=128, max_model_len=256, num_blocks=200
)
STEP = CaseStepTime(10 * MS, 10_000_000, 1000)


def users(count: int, asks: int, think_ps: int, seed: int = 0) -> RequestTable:
    """Return requests of ``count`` users who ask ``asks`` times each on average."""
    total = count * asks
    rng = np.random.default_rng(seed)
    return RequestTable(
        arrival_ps=np.zeros(total, dtype=np.int64),
        prompt_tokens=rng.integers(1, 100, total),
        output_tokens=rng.integers(1, 30, total),
        request_id=tuple(str(i) for i in range(total)),
        users=count,
        think_ps=np.full(total, think_ps, dtype=np.int64),
    )


def serve(table: RequestTable, ahead: bool, replicas: int = 1, plain: bool = False) -> RunRecord:
    """Serve a table; ``ahead`` switches async scheduling on."""
    limits = SchedulerLimits(
        **{name: getattr(LIMITS, name) for name in LIMITS.__slots__ if name != "async_scheduling"},
        async_scheduling=ahead,
    )
    scheduler = PlainScheduler if plain else CohortScheduler
    return Cluster(table, limits, scheduler, STEP, LeastLoaded(), replicas).run()


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("replicas", [1, 3])
@given(count=st.integers(1, 12), asks=st.integers(1, 6), think_ms=st.sampled_from([0, 3, 500]))
@settings(max_examples=25)
def test_every_end_brings_the_next_request_one_think_time_later(
    ahead: bool, replicas: int, count: int, asks: int, think_ms: int
) -> None:
    run = serve(users(count, asks, think_ms * MS), ahead, replicas)
    requests, outcomes = run.requests, run.outcomes
    assert requests.request_id is not None
    asked = np.argsort([int(name) for name in requests.request_id])
    ends_ps = np.sort(outcomes.finish_ps)[: len(requests) - count]
    assert (requests.arrival_ps[asked][count:] == ends_ps + think_ms * MS).all()
    assert (np.diff(requests.arrival_ps) >= 0).all()
    assert (outcomes.first_scheduled_ps >= requests.arrival_ps).all()
    assert in_flight_at_most(run) <= count


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("think_ms", [0, 40])
def test_the_fast_scheduler_serves_a_closed_loop_as_the_plain_one_does(
    ahead: bool, think_ms: int
) -> None:
    table = users(10, 20, think_ms * MS, seed=3)
    assert_same_run(serve(table, ahead), serve(table, ahead, plain=True))


def test_one_user_without_thinking_keeps_a_replica_busy() -> None:
    run = serve(users(1, 30, 0), ahead=False)
    log = run.steps[0].expand()
    assert (log["start_ps"][1:] == log["end_ps"][:-1]).all()


def test_a_user_whose_prompt_is_rejected_asks_again() -> None:
    table = users(1, 3, 5 * MS)
    prompts = table.prompt_tokens.copy()
    prompts[1] = LIMITS.max_model_len
    rejected = RequestTable(
        arrival_ps=table.arrival_ps,
        prompt_tokens=prompts,
        output_tokens=table.output_tokens,
        users=table.users,
        think_ps=table.think_ps,
    )
    run = serve(rejected, ahead=True)
    assert run.outcomes.status.tolist() == [1, 2, 1]
    assert run.requests.arrival_ps[2] - run.requests.arrival_ps[1] == 5 * MS


def in_flight_at_most(run: RunRecord) -> int:
    """Return the largest number of requests in the system; an end counts before an arrival."""
    instants = np.concatenate([run.outcomes.finish_ps, run.requests.arrival_ps])
    change = np.repeat([-1, 1], len(run.requests))
    return int(np.cumsum(change[np.lexsort((change, instants))]).max())


def test_requests_keep_what_they_are_when_they_are_put_in_order() -> None:
    table = users(5, 6, 40 * MS, seed=4)
    kind = np.arange(len(table)) % 3
    patience_ps = np.full(len(table), 10**15, dtype=np.int64) + np.arange(len(table))
    table = replace(
        table,
        request_class=kind,
        class_names=("a", "b", "c"),
        give_up_ps=patience_ps,
        priority=kind,
        is_timeout=kind == 1,
    )
    run = serve(table, ahead=True)
    assert run.requests.request_id is not None
    asked = np.array([int(name) for name in run.requests.request_id])
    assert run.requests.class_names == ("a", "b", "c")
    for name in ("request_class", "give_up_ps", "priority", "is_timeout", "prompt_tokens"):
        assert (getattr(run.requests, name) == getattr(table, name)[asked]).all(), name
