"""What a replica holds over time is what its log says, step by step."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from simserve.inputs.scenario import load_scenario
from simserve.planning.run_scenario import run
from simserve.records.step_log import StepLog
from simserve.results.counters import counters
from simserve.results.engine_use import engine_use
from simserve.results.result import Result
from tests.results.reference_run import Options, random_requests, run_reference

SHAPES = {
    "async": ["workload.num_requests=60"],
    "synchronous": ["workload.num_requests=60", "async_scheduling=false"],
    "idle in between": ["workload.num_requests=30", "rate_per_s=0.5"],
    "short of blocks": [
        *("workload.num_requests=60", "rate_per_s=40", "num_gpu_blocks=700"),
        "max_model_len=8192",
    ],
}


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def result(request: pytest.FixtureRequest) -> Result:
    return run(load_scenario(settings=SHAPES[request.param]))


def _reference() -> tuple[StepLog, ...]:
    options = Options(slots=4, preempt_chance=0.05)
    return run_reference(random_requests(40, 5, 200.0), options, 2).record.steps


def test_counters_are_the_columns_of_the_log_at_the_start_of_every_step(result: Result) -> None:
    for log in (*result.record.steps, *_reference()):
        found, columns = counters(log), log.expand()
        # The last entry at a step's start is the step's own: an idle spell ends there at most.
        at = np.searchsorted(found.time_ps, columns["start_ps"], side="right") - 1
        steps = columns["start_ps"].argsort(kind="stable")
        assert (steps == np.arange(len(steps))).all()
        assert (found.time_ps[at] == columns["start_ps"]).all()
        assert (found.kv_blocks[at] == log.num_blocks - columns["free_blocks"]).all()
        for name, column in (("running", "running"), ("waiting", "waiting")):
            assert (getattr(found, name)[at] == columns[column]).all()
        assert (found.batch_tokens[at] == columns["tokens"]).all()


def test_nothing_runs_between_two_steps_and_the_time_never_goes_back(result: Result) -> None:
    for log in (*result.record.steps, *_reference()):
        found, columns = counters(log), log.expand()
        assert (np.diff(found.time_ps) >= 0).all()
        idle = np.flatnonzero(columns["end_ps"][:-1] < columns["start_ps"][1:])
        at = np.searchsorted(found.time_ps, columns["end_ps"][idle], side="right") - 1
        assert (found.batch_tokens[at] == 0).all()
        assert (found.kv_blocks[at] == log.num_blocks - columns["free_blocks_end"][idle]).all()
        assert len(found.time_ps) == log.total_steps + len(idle) + 1


def test_the_counters_of_a_saved_log_are_those_of_the_run(result: Result) -> None:
    for log in result.record.steps:
        columns = log.expand()
        names = [one.name for one in dataclasses.fields(StepLog)]
        one_each: dict[str, Any] = {name: columns[name] for name in names if name in columns}
        saved = dataclasses.replace(
            log,
            **one_each,
            steps=np.ones(log.total_steps, np.int64),
            duration_ps=columns["end_ps"] - columns["start_ps"],
            duration_growth_ps=np.zeros(log.total_steps, np.int64),
            left=None,
            given_back=None,
            scheduled_ahead=False,
        )
        for field in dataclasses.fields(counters(log)):
            here, there = (getattr(counters(one), field.name) for one in (log, saved))
            assert np.array_equal(here, there), field.name


def test_the_peak_and_the_mean_of_kv_use_are_those_of_the_engine_s_use(result: Result) -> None:
    use, record = engine_use(result.record), result.record
    [log] = record.steps
    found = counters(log)
    assert use.kv_peak_frac == pytest.approx(found.kv_blocks.max() / log.num_blocks)
    first_ps = int(record.requests.arrival_ps[0])
    lasting = np.diff(np.append(found.time_ps, record.end_ps)).astype(float)
    mean = np.dot(found.kv_blocks, lasting) / (record.end_ps - first_ps) / log.num_blocks
    assert use.kv_mean_frac == pytest.approx(mean)
