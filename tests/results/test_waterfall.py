"""Waterfalls sum to the latency, never go below zero, and put time where it was spent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.engine.cluster import Cluster
from simserve.parity.case import Case, CaseStepTime
from simserve.policy.cohort import CohortScheduler
from simserve.policy.limits import SchedulerLimits
from simserve.policy.router import RoundRobin
from simserve.records.requests import RequestTable
from simserve.records.run_record import RunRecord
from simserve.results.step_parts import decode_prices_ps, step_parts
from simserve.results.token_times import finished_requests
from simserve.results.waterfall import COMPONENTS, QueueRules, Waterfalls, waterfalls
from tests.policy.scenarios import cases

# In integer picoseconds; what is asked of them is a nanosecond.
EXACT_PS = 0
STEP = CaseStepTime(1_000_000_000, 10_000_000, 10_000)
BARE = CaseStepTime(800_000_000, 10_000_000, 10_000)
HOST_PS = STEP.base_ps - BARE.base_ps
LIMITS = SchedulerLimits(
    max_num_seqs=64, max_num_batched_tokens=512, max_model_len=1024, num_blocks=2000
)


def rules_of(limits: SchedulerLimits) -> QueueRules:
    return QueueRules(
        max_running=limits.max_running,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        chunked=limits.enable_chunked_prefill,
        prefill_schedule_interval=limits.prefill_schedule_interval,
        whole_batches=False,
        scheduled_ahead=limits.async_scheduling,
    )


def assert_exact(record: RunRecord, found: Waterfalls) -> None:
    out, who = record.outcomes, found.request
    assert (who == np.flatnonzero(finished_requests(record))).all()
    for parts in (found.until_first_ps, found.after_first_ps):
        assert parts.shape == (len(who), len(COMPONENTS))
        assert (parts >= 0).all()
    ttft_ps = out.first_token_ps[who] - record.requests.arrival_ps[who]
    rest_ps = out.finish_ps[who] - out.first_token_ps[who]
    assert np.abs(found.until_first_ps.sum(axis=1) - ttft_ps).max(initial=0) <= EXACT_PS
    assert np.abs(found.after_first_ps.sum(axis=1) - rest_ps).max(initial=0) <= EXACT_PS


def of_case(case: Case, bare: CaseStepTime, replicas: int = 1) -> tuple[RunRecord, Waterfalls]:
    record = Cluster(
        case.requests, case.limits, CohortScheduler, case.step_time, RoundRobin(), replicas
    ).run()
    return record, waterfalls(record, rules_of(case.limits), case.step_time, bare)


@given(cases(), st.floats(0, 1), st.integers(1, 2))
@settings(max_examples=150)
def test_parts_sum_to_the_latency_on_random_scenarios(
    case: Case, host: float, replicas: int
) -> None:
    bare = replace(case.step_time, base_ps=round(case.step_time.base_ps * host))
    record, found = of_case(case, bare, replicas)
    assert_exact(record, found)
    for log in record.steps:
        parts = step_parts(log, case.step_time, bare)
        seen = parts.host_ps + parts.decode_ps + parts.added_ps
        assert (seen == parts.duration_ps).all()
        assert (parts.host_ps + parts.prefill_ps + parts.beside_ps == parts.duration_ps).all()


@given(cases(), st.integers(2, 5))
@settings(max_examples=30)
def test_a_price_that_makes_no_sense_still_leaves_exact_parts(case: Case, factor: int) -> None:
    dear = replace(case.step_time, base_ps=case.step_time.base_ps * factor)
    assert_exact(*of_case(case, dear))


def table(rows: list[tuple[float, int, int]]) -> RequestTable:
    """Return requests of (arrival in ms, prompt, output)."""
    return RequestTable(
        arrival_ps=np.array([round(ms * 1e9) for ms, _, _ in rows]),
        prompt_tokens=np.array([prompt for _, prompt, _ in rows]),
        output_tokens=np.array([output for _, _, output in rows]),
    )


def of_rows(
    rows: list[tuple[float, int, int]], limits: SchedulerLimits = LIMITS
) -> list[dict[str, dict[str, int]]]:
    record, found = of_case(Case("made", limits, STEP, table(rows)), BARE)
    assert_exact(record, found)
    return [
        {
            "until_first": dict(zip(COMPONENTS, first.tolist(), strict=True)),
            "after_first": dict(zip(COMPONENTS, later.tolist(), strict=True)),
        }
        for first, later in zip(found.until_first_ps, found.after_first_ps, strict=True)
    ]


def only(parts: dict[str, int], *names: str) -> bool:
    return all((value > 0) == (name in names) for name, value in parts.items())


def test_a_request_alone_has_only_its_own_work_and_the_host() -> None:
    (one,) = of_rows([(0, 1000, 5)])  # two chunks
    assert only(one["until_first"], "own_prefill", "host")
    assert only(one["after_first"], "own_decode", "host")
    assert one["until_first"]["host"] == 2 * HOST_PS
    assert one["after_first"]["host"] == 4 * HOST_PS


def test_two_prompts_in_one_step_delay_each_other_by_what_the_other_adds() -> None:
    first, second = of_rows([(0, 100, 1), (0, 200, 1)])
    price_ps = STEP.per_token_ps + STEP.per_context_ps
    assert only(first["until_first"], "own_prefill", "others_prefill", "host")
    assert first["until_first"]["others_prefill"] == 200 * price_ps
    assert second["until_first"]["others_prefill"] == 100 * price_ps


def test_a_prompt_beside_a_decode_is_prefill_of_others_to_it() -> None:
    first, second = of_rows([(0, 50, 4), (2.5, 300, 1)])
    assert first["after_first"]["others_prefill"] == 300 * (STEP.per_token_ps + STEP.per_context_ps)
    assert first["after_first"]["decode_interference"] == 0
    assert second["until_first"]["decode_interference"] > 0  # the step under way, then its share
    assert second["until_first"]["slot_queue"] == second["until_first"]["kv_queue"] == 0


def test_decodes_of_others_are_interference() -> None:
    first, _ = of_rows([(0, 50, 10), (0, 50, 10)])
    assert only(first["after_first"], "own_decode", "decode_interference", "host")
    added_ps = STEP.per_token_ps * 9 + STEP.per_context_ps * sum(range(51, 60))
    assert first["after_first"]["decode_interference"] == added_ps


def test_who_waits_for_a_slot_waits_in_that_queue() -> None:
    limits = replace(LIMITS, max_num_seqs=1)
    first, second = of_rows([(0, 50, 10), (0, 50, 1)], limits)
    assert first["until_first"]["slot_queue"] == 0
    whole_ps = sum(sum(part.values()) for part in first.values())
    assert second["until_first"]["slot_queue"] == whole_ps
    assert second["until_first"]["kv_queue"] == 0


def test_who_waits_for_blocks_waits_in_that_queue() -> None:
    limits = replace(LIMITS, num_blocks=11, max_model_len=160)
    _, second = of_rows([(0, 100, 20), (0, 100, 1)], limits)
    assert second["until_first"]["kv_queue"] > 19 * STEP.base_ps
    assert second["until_first"]["slot_queue"] == 0


def test_a_prompt_behind_a_long_one_waits_for_the_prefill_of_others() -> None:
    _, second = of_rows([(0, 1000, 1), (0, 500, 1)])
    assert second["until_first"]["others_prefill"] > 500 * STEP.per_token_ps
    assert second["until_first"]["kv_queue"] == second["until_first"]["slot_queue"] == 0


def test_what_a_preemption_costs_is_counted_once() -> None:
    limits = replace(LIMITS, num_blocks=9, max_model_len=112)
    _, second = of_rows([(0, 48, 40), (0, 48, 40)], limits)
    record = Cluster(
        table([(0, 48, 40), (0, 48, 40)]), limits, CohortScheduler, STEP, RoundRobin(), 1
    ).run()
    assert record.outcomes.preemptions.tolist() == [0, 1]
    (gap,) = zip(record.gaps.previous_step, record.gaps.step, strict=True)
    ends = record.steps[0].end_per_step_ps()
    assert second["after_first"]["preemption"] == ends[gap[1]] - ends[gap[0]]


@pytest.mark.parametrize("bare", [BARE, STEP])
def test_host_time_is_what_its_absence_would_save(bare: CaseStepTime) -> None:
    case = Case("made", LIMITS, STEP, table([(0, 100, 20), (3, 40, 7), (3, 60, 9)]))
    record, _ = of_case(case, bare)
    parts = step_parts(record.steps[0], STEP, bare)
    assert (parts.host_ps == STEP.base_ps - bare.base_ps).all()


def test_decode_prices_are_the_engines() -> None:
    record = Cluster(
        table([(0, 10, 30), (5, 10, 40)]), LIMITS, CohortScheduler, STEP, RoundRobin(), 1
    ).run()
    log = record.steps[0]
    row, place = log.row_of_step(), log.step_in_row()
    plain = log.prefill_seqs[row] == 0
    seqs = log.decode_seqs[row]
    prices = decode_prices_ps(STEP, seqs, log.decode_context_tokens[row] + place * seqs)
    assert (prices[plain] == log.duration_per_step_ps()[plain]).all()
