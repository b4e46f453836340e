"""A real run: its record obeys the laws, and the simulator decides just the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch")

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrate.engine.replay import SCHEDULER, Replay, ReplayResult
from calibrate.engine.runner import Runner
from calibrate.engine.warm_up import warm_up
from calibrate.validate.identity import compare_structure
from simserve.errors import InputError, SimserveError
from simserve.policy.limits import SchedulerLimits
from simserve.records.clock import NEVER_PS, PS_PER_S
from simserve.records.requests import RequestTable
from simserve.records.run_record import FINISHED, REJECTED, RunRecord
from simserve.records.step_log import StepLog
from simserve.results.metrics import measure
from tests.calibrate.engine.small import (
    LIMITS,
    idle_runner,
    small_runner,
    some_requests,
    table,
    with_limits,
)

SMALL_POOL = 24


@pytest.fixture(scope="module")
def runner() -> Runner:
    made = small_runner()
    warm_up(made)
    return made


def replayed(runner: Any, requests: RequestTable, limits: SchedulerLimits) -> ReplayResult:
    return Replay(runner, requests, limits).run()


# -- structure, exactly


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("blocks", [101, SMALL_POOL])
def test_simulator_reproduces_every_step_of_a_real_run(
    runner: Runner, ahead: bool, blocks: int
) -> None:
    limits = with_limits(async_scheduling=ahead, num_blocks=blocks)
    result = replayed(runner, some_requests(30, gap_s=0.004), limits)
    report = compare_structure(result.record, limits, SCHEDULER)
    assert report.differences == ()
    assert report.steps > 100
    assert (report.preemptions > 0) == (blocks == SMALL_POOL)
    assert any(shape.prefill and shape.decode_seqs for shape in result.steps.shapes)
    assert any(past for shape in result.steps.shapes for _, past in shape.prefill)  # in chunks


LIMITS_DRAWN = st.builds(
    with_limits,
    async_scheduling=st.booleans(),
    num_blocks=st.integers(21, 60),
    max_num_seqs=st.integers(1, 6),
    max_num_batched_tokens=st.integers(8, 60),
    long_prefill_token_threshold=st.sampled_from([0, 9]),
    scheduling_policy=st.sampled_from(["fcfs", "priority"]),
    scheduler_reserve_full_isl=st.booleans(),
    watermark=st.sampled_from([0.0, 0.1]),
)


@settings(max_examples=25)
@given(LIMITS_DRAWN, st.integers(0, 10_000), st.sampled_from([0.0, 1e-5, 1e-3]))
def test_simulator_reproduces_any_schedule(
    limits: SchedulerLimits, seed: int, gap_s: float
) -> None:
    requests = some_requests(14, seed, gap_s)
    priority = np.random.default_rng(seed).integers(0, 3, 14)
    requests = replace(requests, priority=priority)
    result = replayed(idle_runner(limits), requests, limits)
    assert compare_structure(result.record, limits, SCHEDULER).differences == ()


@settings(max_examples=10)
@given(st.booleans(), st.integers(0, 10_000))
def test_the_plain_scheduler_drives_the_engine_as_well(ahead: bool, seed: int) -> None:
    limits = with_limits(async_scheduling=ahead, num_blocks=SMALL_POOL)
    requests = some_requests(10, seed, 1e-5)
    record = Replay(idle_runner(limits), requests, limits, "chunked-prefill-plain").run().record
    assert compare_structure(record, limits, SCHEDULER).differences == ()


def altered(record: RunRecord, column: str, step: int, by: int) -> RunRecord:
    values = getattr(record.steps[0], column).copy()
    values[step] += by
    log: StepLog = replace(record.steps[0], **{column: values})
    return replace(record, steps=(log,))


@pytest.mark.parametrize(
    "column",
    ["start_ps", "duration_ps", "decode_seqs", "prefill_tokens", "admitted", "preempted",
     "finished", "running", "waiting", "free_blocks", "free_blocks_end"],
)  # fmt: skip
@pytest.mark.parametrize("ahead", [False, True])
def test_an_altered_step_is_found(column: str, ahead: bool) -> None:
    limits = with_limits(async_scheduling=ahead, num_blocks=SMALL_POOL)
    record = replayed(idle_runner(limits), some_requests(20, 3, 1e-5), limits).record
    assert compare_structure(record, limits, SCHEDULER).same
    wrong = altered(record, column, record.steps[0].total_steps // 2, 1)
    assert not compare_structure(wrong, limits, SCHEDULER).same


def test_an_altered_request_is_found() -> None:
    limits = with_limits(num_blocks=SMALL_POOL)
    record = replayed(idle_runner(limits), some_requests(20, 3, 1e-5), limits).record
    preemptions = record.outcomes.preemptions + (np.arange(20) == 7)
    wrong = replace(record, outcomes=replace(record.outcomes, preemptions=preemptions))
    differences = compare_structure(wrong, limits, SCHEDULER).differences
    assert any(one.startswith("request 7: preemptions is ") for one in differences)


def test_a_step_left_out_is_found() -> None:
    record = replayed(idle_runner(LIMITS), some_requests(8), LIMITS).record
    log = record.steps[0]
    fewer = {name: getattr(log, name)[:-1] for name in StepLog.__dataclass_fields__
             if isinstance(getattr(log, name), np.ndarray)}  # fmt: skip
    wrong = replace(record, steps=(replace(log, **fewer),))
    assert not compare_structure(wrong, LIMITS, SCHEDULER).same


# -- what a replay is


def test_every_request_gets_its_tokens_and_nobody_is_early(runner: Runner) -> None:
    requests = some_requests(20)
    record = replayed(runner, requests, LIMITS).record
    out = record.outcomes
    assert (out.status == FINISHED).all()
    assert (out.generated_tokens == requests.output_tokens).all()
    assert (requests.arrival_ps <= out.first_scheduled_ps).all()
    assert (out.first_scheduled_ps < out.first_token_ps).all()
    assert (out.first_token_ps <= out.finish_ps).all()
    assert measure(record).completed == 20


def test_a_step_after_a_pause_starts_at_the_arrival() -> None:
    requests = table([0.5, 2.25], [9, 9], [2, 2])
    record = replayed(idle_runner(LIMITS), requests, LIMITS).record
    starts_ps = record.steps[0].start_ps
    assert starts_ps[0] == requests.arrival_ps[0]
    assert starts_ps[2] == requests.arrival_ps[1]


def test_steps_follow_each_other_without_a_gap_while_somebody_waits() -> None:
    requests = table([0.0] * 12, [60] * 12, [9] * 12)
    steps = replayed(idle_runner(LIMITS), requests, LIMITS).record.steps[0].expand()
    assert (steps["start_ps"][1:] == steps["end_ps"][:-1]).all()


def test_a_request_that_fills_the_context_stops_there_or_is_rejected() -> None:
    requests = table([0.0, 0.0], [150, 160], [40, 5])
    out = replayed(idle_runner(LIMITS), requests, LIMITS).record.outcomes
    assert out.generated_tokens.tolist() == [10, 0]
    assert out.status.tolist() == [FINISHED, REJECTED]
    assert out.finish_ps[1] == NEVER_PS


def test_a_request_that_never_fits_ends_the_replay_with_a_reason() -> None:
    limits = with_limits(num_blocks=5)
    with pytest.raises(SimserveError, match="1 requests were never finished"):
        replayed(idle_runner(limits), table([0.0], [100], [5]), limits)


def test_a_token_that_is_none_of_the_vocabulary_ends_the_replay() -> None:
    broken = idle_runner(LIMITS)
    broken._sampled += 120
    with pytest.raises(SimserveError, match="a sampled token is not one of 120"):
        replayed(broken, table([0.0], [10], [5]), LIMITS)


def test_a_logit_that_is_no_number_ends_the_replay() -> None:
    runner = small_runner()
    runner.model.last_norm = runner.model.last_norm * float("nan")
    with pytest.raises(SimserveError, match="a logit is not finite"):
        replayed(runner, table([0.0], [10], [5]), LIMITS)


def test_preempted_requests_compute_their_tokens_again() -> None:
    limits = with_limits(num_blocks=SMALL_POOL)
    requests = some_requests(20, 3, 1e-5)
    idle = idle_runner(limits)
    record = replayed(idle, requests, limits).record
    computed = sum(entry.new_tokens for step in idle.prepared for entry in step)
    once = int((requests.prompt_tokens + requests.output_tokens - 1).sum())
    assert record.outcomes.preemptions.sum() > 0
    assert computed > once
    whole = replayed(calm := idle_runner(LIMITS), requests, LIMITS).record
    assert whole.outcomes.preemptions.sum() == 0
    assert sum(entry.new_tokens for step in calm.prepared for entry in step) == once


def test_measured_times_lie_within_their_steps(runner: Runner) -> None:
    result = replayed(runner, some_requests(15), LIMITS)
    measured = result.steps.table(result.record)
    wall_s = measured["t_end"] - measured["t_start"]
    # Launching overlaps with what is launched.
    parts_s = sum(measured[name] for name in ("t_sched", "t_prep", "t_gpu", "t_out"))
    assert (measured["t_gpu"] > 0).all()
    assert (parts_s <= wall_s * (1 + 1e-9) + 1e-9).all()
    assert (parts_s > 0.5 * wall_s).mean() > 0.9
    tokens = measured["n_dec"] + measured["q_tokens"]
    assert (tokens == result.record.steps[0].expand()["tokens"]).all()
    graphs = measured["graph_size"]
    assert (graphs[measured["n_pre"] > 0] == 0).all()
    assert (graphs[measured["n_pre"] == 0] >= measured["n_dec"][measured["n_pre"] == 0]).all()


def test_the_measured_table_can_be_read_back(runner: Runner, tmp_path: Any) -> None:
    import pyarrow.parquet as pq

    result = replayed(runner, some_requests(5), LIMITS)
    result.steps.save(result.record, tmp_path / "measured.parquet")
    read = pq.read_table(tmp_path / "measured.parquet").to_pydict()
    assert read["t_gpu"] == result.steps.column("t_gpu").tolist()
    new = [sum(int(one.split("+")[0]) for one in text.split()) for text in read["chunks"]]
    assert new == read["q_tokens"]
    assert [path.name for path in tmp_path.iterdir()] == ["measured.parquet"]


def test_time_on_a_cpu_is_that_of_its_steps_and_pauses(runner: Runner) -> None:
    requests = table([0.0, 100.0], [20, 20], [5, 5])
    record = replayed(runner, requests, LIMITS).record
    assert record.end_ps > 100 * PS_PER_S
    busy_ps = int(record.steps[0].duration_ps.sum())
    assert busy_ps < 5 * PS_PER_S


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_blocks": 200}, "num_blocks: got 200, allowed: at most 101"),
        ({"block_size": 16}, "block_size: got 16, allowed: 8"),
        ({"max_num_seqs": 9}, "max_running: got 9, allowed: at most 6"),
        ({"enable_prefix_caching": True}, "enable_prefix_caching: got True"),
    ],
)
def test_limits_that_the_runner_was_not_made_for_are_refused(
    changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Replay(idle_runner(LIMITS), some_requests(3), with_limits(**changed))


def test_requests_that_wait_for_answers_or_are_given_up_are_refused() -> None:
    requests = some_requests(3)
    waiting = replace(requests, users=1, think_ps=np.zeros(3, np.int64))
    with pytest.raises(InputError, match="arrivals that wait for nobody"):
        Replay(idle_runner(LIMITS), waiting, LIMITS)
    impatient = replace(requests, give_up_ps=np.full(3, PS_PER_S))
    with pytest.raises(InputError, match="patient"):
        Replay(idle_runner(LIMITS), impatient, LIMITS)
