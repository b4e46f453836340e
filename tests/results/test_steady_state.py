"""What a run says about its deployment: intervals, or one sentence why not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import simserve
from simserve.planning.run_scenario import run
from simserve.results.batch_means import Series
from simserve.results.intervals import Estimates
from simserve.results.metrics import LATENCY_METRICS
from simserve.results.result import Result
from simserve.results.steady_state import (
    SLOW_PACE,
    STATISTICS,
    point_statistics,
    steady_state,
)
from tests.results.reference_run import Options
from tests.results.scenarios import result


def simulated(small: Path, *settings: str) -> Result:
    return run(simserve.load_scenario(small, settings=list(settings)))


def test_a_steady_run_has_an_interval_or_a_reason_for_every_number(small: Path) -> None:
    state = simulated(small, "workload.num_requests=2000").steady_state
    assert state.reason is None
    assert set(state.latencies) == set(LATENCY_METRICS)
    for found in state.latencies.values():
        assert tuple(found) == STATISTICS
        assert all((one.low is None) == (one.reason is not None) for one in found.values())
    assert all(one.low is not None for one in state.rates.values())


def shipped(rate: float, seed: int) -> Result:
    settings = [f"workload.arrivals.rate_per_s={rate}", "workload.num_requests=3000"]
    return run(simserve.load_scenario(settings=settings, seed=seed))


def test_where_the_batch_wanders_slowly_what_contains_decode_steps_has_no_interval() -> None:
    # At 26/s a run of this length is worth two independent ones; other noise hides it in E2E.
    states = [shipped(26, seed).steady_state for seed in range(6)]
    steady = [one for one in states if one.reason is None]
    assert len(steady) >= 4
    dashed = [
        one
        for one in steady
        if all(
            each.low is None
            for name in ("tpot", "itl", "e2el")
            for each in one.latencies[name].values()
        )
    ]
    assert len(dashed) >= len(steady) - 2


def test_what_contains_decode_steps_is_not_better_known_than_they_are() -> None:
    sample = shipped(10, 0).sample
    place = np.arange(len(sample.latencies["tpot"].weights))
    # Five waves: the sum of a request's steps may look well known, and hangs on these.
    waves = Series.of_values(0.01 + 0.002 * np.sin(place / len(place) * 10 * np.pi))
    slow = dataclasses.replace(sample, latencies={**sample.latencies, "tpot": waves})
    before, after = steady_state([sample]), steady_state([slow])
    for name in ("mean", "p50"):
        assert before.latencies["e2el"][name].low is not None
        assert after.latencies["e2el"][name].reason == SLOW_PACE
        assert after.latencies["e2el"][name].value == before.latencies["e2el"][name].value
        assert after.latencies["ttft"][name] == before.latencies["ttft"][name]


def test_where_it_does_not_every_mean_has_one() -> None:
    for seed in range(3):
        state = shipped(10, seed).steady_state
        assert all(state.latencies[name]["mean"].low is not None for name in ("ttft", "e2el"))


def test_several_runs_add_up_how_often_decoding_slowed_down() -> None:
    samples = [shipped(26, seed).sample for seed in range(4)]
    series = [one.latencies["tpot"] for one in samples]
    alone = sum(Estimates([one]).slow_rises for one in series)
    # Against the median of all, a run rises about as often as against its own.
    assert Estimates(series).slow_rises == pytest.approx(alone, rel=0.4)


def test_a_run_that_serves_nobody_has_no_rates() -> None:
    state = result(options=Options(longest=0)).steady_state
    assert (state.reason, dict(state.rates)) == ("no request was finished", {})


def test_a_constant_pace_does_not_wander() -> None:
    assert Estimates([Series.of_values(np.full(500, 0.01))]).slow_rises == np.inf


def test_the_rates_are_those_of_the_arrivals(small: Path) -> None:
    found = simulated(small, "workload.num_requests=2000").steady_state.rates["requests"]
    assert found.low is not None and found.high is not None
    assert found.low < 20 < found.high


def test_an_overloaded_run_has_no_interval_but_a_sentence() -> None:
    state = result(None, Options(slots=1), requests=300, gap_ms=10, replicas=1).steady_state
    assert state.reason == "the run is overloaded"
    assert not state.latencies and not state.rates


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["arrivals={process: all-at-once}"], "come at once"),
        (["arrivals={process: diurnal, rate_per_s: 9, peak_to_mean: 2, period_s: 60}"], "the day"),
        (["arrivals={process: piecewise, steps: [{duration_s: 1, rate_per_s: 9}]}"], "in steps"),
    ],
)
def test_a_rate_that_changes_has_intervals_over_whole_runs_only(
    small: Path, settings: list[str], words: str
) -> None:
    changed = [f"workload.{one}" for one in settings]
    one = simulated(small, *changed)
    assert one.steady_state.reason is not None and words in one.steady_state.reason
    runs = [run(simserve.load_scenario(small, settings=changed, seed=seed)) for seed in range(6)]
    state = steady_state([each.sample for each in runs])
    assert state.reason is None and state.whole_runs
    mean = state.interval("e2el", "mean")
    assert mean is not None and mean.low is not None
    assert all(each.sample.window.drain_requests == 0 for each in runs)


def test_more_replications_narrow_every_interval(small: Path) -> None:
    samples = [
        run(
            simserve.load_scenario(small, settings=["workload.num_requests=1500"], seed=seed)
        ).sample
        for seed in range(8)
    ]
    one, many = steady_state(samples[:1]), steady_state(samples)
    for metric in ("ttft", "e2el"):
        before, after = one.interval(metric, "p50"), many.interval(metric, "p50")
        assert before is not None and before.half_width is not None
        assert after is not None and after.half_width is not None
        assert after.half_width < before.half_width


def test_the_values_of_one_run_are_those_of_its_window(small: Path) -> None:
    sample = simulated(small, "workload.num_requests=400").sample
    found = point_statistics(sample)
    values = sample.latencies["ttft"].values
    assert found["ttft"]["mean"] == pytest.approx(values.mean())
    assert found["ttft"]["p99"] == np.sort(values)[int(np.ceil(0.99 * len(values))) - 1]


@pytest.mark.parametrize("think_time_s", [0, 2])
def test_users_obey_the_interactive_response_time_law(small: Path, think_time_s: float) -> None:
    arrivals = f"{{process: closed-loop, users: 20, think_time_s: {think_time_s}}}"
    settings = [f"workload.arrivals={arrivals}", "workload.num_requests=3000"]
    state = run(simserve.load_scenario(small, settings=settings)).steady_state
    assert state.reason is None
    served, latency = state.rates["requests"], state.interval("e2el", "mean")
    assert latency is not None and served.low is not None and served.high is not None
    # Users = throughput x (latency + time to think), Denning and Buzen, 1978.
    assert served.low < 20 / (latency.value + think_time_s) < served.high * 1.02


def test_a_loaded_result_says_the_same(small: Path, tmp_path: Path) -> None:
    before = simulated(small, "workload.num_requests=500")
    before.save(tmp_path / "run")
    after = Result.load(tmp_path / "run")
    assert after.steady_state.latencies == before.steady_state.latencies
