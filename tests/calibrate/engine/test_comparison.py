"""Errors, traces and capacity: what the comparison of real and simulated runs rests on."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch")

import numpy as np

from calibrate.engine.replay import Replay
from calibrate.validate.errors_of import latency_errors, regime_of
from calibrate.validate.plans import CALIBRATION_SEED, PLANS, REPLAYS, validation_plan
from calibrate.validate.traces import TraceShape, burst, capacity_per_s, ramp, steady
from simserve.engine.cluster import Cluster
from simserve.errors import InputError
from simserve.policy.registry import SCHEDULERS
from simserve.policy.router import RoundRobin
from simserve.records.clock import PS_PER_S
from simserve.records.run_record import RunRecord
from simserve.records.step import PrefillChunk, StepShape
from tests.calibrate.engine.small import LIMITS, idle_runner, some_requests

SHAPE = TraceShape(
    name="a test",
    prompt_median=40,
    prompt_spread=0.6,
    most_prompt=90,
    output_median=12,
    output_spread=0.5,
    most_output=40,
)


def slowed(record: RunRecord, factor: int) -> RunRecord:
    """Return the run with every arrival and every time ``factor`` times as late."""
    out, requests = record.outcomes, record.requests
    times = {
        name: getattr(out, name) * factor
        for name in ("first_scheduled_ps", "first_token_ps", "finish_ps")
    }
    return replace(
        record,
        requests=replace(requests, arrival_ps=requests.arrival_ps * factor),
        outcomes=replace(out, **times),
    )


def test_a_run_has_no_error_against_itself_and_a_slower_one_has_its_factor() -> None:
    record = Replay(idle_runner(LIMITS), some_requests(20), LIMITS).run().record
    for name, errors in latency_errors(record, record).items():
        assert set(errors.signed.values()) == {0.0}, name
        assert errors.request_p90 == 0
    for errors in latency_errors(record, slowed(record, 2)).values():
        assert list(errors.signed.values()) == pytest.approx([1.0] * 4)
        assert errors.request_p50 == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("shape", "regime"),
    [
        (StepShape(3, 90), "decode"),
        (StepShape(0, 0, (PrefillChunk(5, 0),)), "prefill"),
        (StepShape(2, 30, (PrefillChunk(5, 0),)), "mixed"),
    ],
)
def test_steps_are_told_apart_by_what_they_compute(shape: StepShape, regime: str) -> None:
    assert regime_of(shape) == regime


def test_arrivals_have_the_asked_rate() -> None:
    requests = steady(SHAPE, 50.0, 200.0, seed=4)
    # 10,000 Poisson arrivals: a standard deviation of 100.
    assert len(requests) == pytest.approx(10_000, abs=400)
    assert (np.diff(requests.arrival_ps) >= 0).all()
    assert requests.arrival_ps.max() < 200 * PS_PER_S


def test_bursty_arrivals_have_the_same_rate_and_rougher_gaps() -> None:
    shape = replace(SHAPE, burstiness=0.5)
    requests = steady(shape, 50.0, 200.0, seed=4)
    gaps_s = np.diff(requests.arrival_ps) / PS_PER_S
    assert len(requests) == pytest.approx(10_000, abs=600)
    # Gamma: the variation is 1 / sqrt(shape).
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(2**0.5, rel=0.06)


def test_a_ramp_has_each_rate_for_an_equal_share() -> None:
    requests = ramp(SHAPE, (10.0, 20.0, 40.0), 300.0, seed=2)
    counts, _ = np.histogram(requests.arrival_ps / PS_PER_S, bins=3, range=(0, 300))
    # Four standard deviations of Poisson counts.
    for count, expected in zip(counts, (1000, 2000, 4000), strict=True):
        assert count == pytest.approx(expected, abs=4 * expected**0.5)


def test_lengths_have_the_asked_median_and_bounds() -> None:
    requests = burst(SHAPE, 4000, seed=1)
    assert np.median(requests.prompt_tokens) == pytest.approx(40, rel=0.05)
    assert np.median(requests.output_tokens) == pytest.approx(12, rel=0.08)
    assert requests.prompt_tokens.max() == 90
    assert requests.output_tokens.min() >= 1
    assert not requests.arrival_ps.any()


class Constant:
    """A latency model: every step takes a hundredth of a second."""

    def step_s(self, shape: StepShape) -> float:
        return 0.01


def test_capacity_is_what_a_longer_burst_would_finish() -> None:
    def of(count: int) -> float:
        requests = burst(SHAPE, count, CALIBRATION_SEED)
        make = SCHEDULERS["chunked-prefill"]
        run = Cluster(requests, LIMITS, make, Constant(), RoundRobin()).run()
        return capacity_per_s(run, LIMITS)

    assert of(60) == pytest.approx(of(600), rel=0.12)


def test_capacity_of_a_burst_that_never_queues_is_that_of_the_whole() -> None:
    requests = burst(SHAPE, 3, CALIBRATION_SEED)
    run = Cluster(requests, LIMITS, SCHEDULERS["chunked-prefill"], Constant(), RoundRobin()).run()
    assert capacity_per_s(run, LIMITS) == pytest.approx(3 / (run.end_ps / PS_PER_S))


@pytest.mark.parametrize("name", PLANS)
def test_no_replay_that_is_reported_has_the_seed_of_the_calibration(name: str) -> None:
    plan = validation_plan(name)
    assert CALIBRATION_SEED not in {spec.seed for spec in plan.replays}
    assert {"60 %", "other"} == {spec.repeats for spec in plan.replays} - {""}
    for spec in plan.replays:
        original = next((one for one in plan.replays if one.name == spec.repeats), spec)
        assert (spec.seed, spec.load, spec.other) == (
            original.seed, original.load, original.other
        )  # fmt: skip


def test_the_most_valuable_replays_come_first() -> None:
    assert [spec.name for spec in REPLAYS[:2]] == ["60 %", "other"]
    assert {spec.load for spec in REPLAYS} == {0.30, 0.60, 0.85}


@pytest.mark.parametrize("name", PLANS)
def test_the_longest_request_of_a_plan_fits_its_engine(name: str) -> None:
    plan = validation_plan(name)
    for shape in (plan.shape, plan.other):
        assert shape.most_prompt + shape.most_output <= plan.limits.max_model_len
    assert max(plan.setup.graph_sizes) <= plan.limits.max_num_seqs


def test_an_unknown_plan_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="plan: got h100, allowed: cpu-smoke, h200"):
        validation_plan("h100")
