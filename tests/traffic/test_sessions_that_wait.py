"""Conversations whose next turn waits for the answer to the one before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import simserve
from simserve.engine.cluster import Cluster
from simserve.inputs.workload import read_workload
from simserve.parity.case import CaseStepTime
from simserve.policy.cohort import CohortScheduler
from simserve.policy.limits import SchedulerLimits
from simserve.policy.plain import PlainScheduler
from simserve.policy.router import LeastLoaded
from simserve.records.requests import NOBODY, RequestTable
from simserve.traffic.generate import generate
from tests.policy.test_cohort_equals_plain import assert_same_run

DEPLOYMENT = {"model": "llama-3.1-8b", "gpu": "h100-sxm"}


def workload(wait: bool = True, **changes: Any) -> dict[str, Any]:
    sessions = {"mean_turns": 4, "think_time_s": 2, "think_time_p95_s": 6}
    return {
        "arrivals": {"process": "poisson", "rate_per_s": 3},
        "sessions": sessions | ({"wait_for_answer": True} if wait else {}),
        "prompt_tokens": {"median": 60, "p95": 200},
        "output_tokens": {"median": 50, "p95": 150},
        "num_requests": 300,
    } | changes


def drawn(**changes: Any) -> RequestTable:
    return generate(read_workload(workload(**changes)), seed=4)


def test_every_turn_has_one_that_follows_or_nobody() -> None:
    table = drawn()
    assert table.users is not None and table.next_turn is not None and len(table) == 300
    followed = table.next_turn[table.next_turn != NOBODY]
    assert sorted(followed.tolist()) == list(range(table.users, 300))
    assert (np.diff(table.arrival_ps[: table.users]) >= 0).all()
    assert table.think_ps is not None and (table.think_ps[: table.users] == 0).all()
    assert (table.think_ps[table.users :] > 0).all()


def test_waiting_changes_nothing_that_is_said() -> None:
    def said(wait: bool) -> set[tuple[int, int, int]]:
        table = drawn(wait=wait, num_requests=None, duration_s=30)
        assert table.output_segment is not None
        columns = (table.output_segment, table.prompt_tokens, table.output_tokens)
        return set(zip(*(column.tolist() for column in columns), strict=True))

    # Without waiting, turns after the last second are left out: they are not asked any more.
    assert said(wait=False) < said(wait=True)


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("ahead", [True, False])
def test_a_turn_comes_a_think_time_after_its_answer(replicas: int, ahead: bool) -> None:
    asked = drawn()
    deployment = DEPLOYMENT | {"replicas": replicas, "async_scheduling": ahead}
    scenario = {"workload": workload(), "deployment": deployment, "seed": 4}
    record = simserve.run(scenario, check=True).record
    assert asked.output_segment is not None and asked.think_ps is not None
    assert record.requests.output_segment is not None and asked.next_turn is not None
    place = {name: at for at, name in enumerate(record.requests.output_segment.tolist())}
    came = np.array([place[name] for name in asked.output_segment.tolist()])
    before = np.flatnonzero(asked.next_turn != NOBODY)
    after = asked.next_turn[before]
    ended_ps = record.outcomes.finish_ps[came[before]]
    assert (record.requests.arrival_ps[came[after]] == ended_ps + asked.think_ps[after]).all()
    assert (np.diff(record.requests.arrival_ps) >= 0).all()
    first = came[: asked.users]
    assert (record.requests.arrival_ps[first] == asked.arrival_ps[: asked.users]).all()


def test_a_waiting_turn_finds_all_that_was_said_in_the_cache() -> None:
    result = simserve.run({"workload": workload(), "deployment": DEPLOYMENT, "seed": 4})
    bound_frac, hit_frac = result.prefix_bound_frac or 0, result.prefix_use.token_hit_frac or 0
    # The last token of an answer is never computed: it may cost a block of 16 tokens a turn.
    most_lost_frac = 16 * 300 / int(result.record.requests.prompt_tokens.sum())
    assert bound_frac - most_lost_frac < hit_frac <= bound_frac
    assert hit_frac > 0.7


def test_a_rejected_turn_lets_the_next_one_come() -> None:
    deployment = DEPLOYMENT | {"max_model_len": 256}
    result = simserve.run({"workload": workload(), "deployment": deployment, "seed": 4})
    assert result.metrics.rejected > 0
    assert result.metrics.completed + result.metrics.rejected == 300


@pytest.mark.parametrize("ahead", [True, False])
def test_the_fast_scheduler_serves_conversations_as_the_plain_one_does(ahead: bool) -> None:
    limits = SchedulerLimits(
        max_num_seqs=8,
        max_num_batched_tokens=128,
        max_model_len=1024,
        num_blocks=300,
        async_scheduling=ahead,
    )
    step = CaseStepTime(10**10, 10**7, 1000)
    fast, plain = (
        Cluster(drawn(), limits, scheduler, step, LeastLoaded()).run()
        for scheduler in (CohortScheduler, PlainScheduler)
    )
    assert_same_run(fast, plain)


def test_a_conversation_that_waits_has_one_request_in_flight() -> None:
    slow = DEPLOYMENT | {"max_num_seqs": 2}
    result = simserve.run({"workload": workload(), "deployment": slow, "seed": 4})
    assert result.metrics.max_in_flight <= (drawn().users or 0)
    record = result.record
    assert record.requests.segments is not None
    first = record.requests.segments.segment[record.requests.segments.offsets[:-1]]
    for session in set(first.tolist()):  # the first words name the conversation
        turns = np.flatnonzero(first == session)
        ends_ps = record.outcomes.finish_ps[turns]
        assert (record.requests.arrival_ps[turns[1:]] > ends_ps[:-1]).all()
