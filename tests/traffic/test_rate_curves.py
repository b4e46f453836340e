"""Rates that change with time, and vLLM's own benchmark clock: their laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simserve.errors import InputError
from simserve.inputs.workload import ArrivalsSpec, read_workload
from simserve.records.clock import PS_PER_S, PsArray
from simserve.traffic.arrivals import arrivals_within_ps, first_arrivals_ps
from simserve.traffic.streams import random_stream

RAMP = ({"duration_s": 100, "rate_per_s": 0, "to_rate_per_s": 20},)
STEPS = (
    {"duration_s": 50, "rate_per_s": 2},
    {"duration_s": 30, "rate_per_s": 0},
    {"duration_s": 20, "rate_per_s": 4, "to_rate_per_s": 12},
)
CHANGING: list[dict[str, Any]] = [
    {"process": "piecewise", "steps": STEPS},
    {"process": "piecewise", "steps": RAMP, "rate_per_s": 7.0, "burstiness": 0.5},
    {"process": "diurnal", "rate_per_s": 5.0, "peak_to_mean": 2.0, "period_s": 100},
    {"process": "diurnal", "rate_per_s": 5.0, "peak_to_mean": 1.5, "period_s": 90, "peak_at_s": 10},
    {"process": "on-off", "rate_per_s": 5.0, "on_s": 2, "off_s": 3},
    {"process": "on-off", "rate_per_s": 5.0, "on_s": 2, "off_s": 3, "off_rate_frac": 0.5},
]


def spec(**values: Any) -> ArrivalsSpec:
    workload = {"prompt_tokens": 1, "output_tokens": 1, "num_requests": 1}
    arrivals = read_workload({**workload, "arrivals": values}).arrivals
    assert arrivals is not None
    return arrivals


def first(arrivals: ArrivalsSpec, count: int, seed: int = 1) -> PsArray:
    rng, phases = random_stream(seed, "arrivals"), random_stream(seed, "arrival phases")
    return first_arrivals_ps(arrivals, count, rng, phases)


def within(arrivals: ArrivalsSpec, duration_s: float, seed: int = 1) -> PsArray:
    rng, phases = random_stream(seed, "arrivals"), random_stream(seed, "arrival phases")
    return arrivals_within_ps(arrivals, duration_s, rng, phases)


def counts(times_ps: PsArray, duration_s: int, bin_s: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.bincount(times_ps // (bin_s * PS_PER_S), minlength=duration_s // bin_s + 1)[
        : duration_s // bin_s
    ]


@pytest.mark.parametrize("values", CHANGING)
def test_longer_run_of_a_changing_rate_begins_with_the_shorter_one(values: dict[str, Any]) -> None:
    arrivals = spec(**values)
    long = first(arrivals, 20_000)
    assert np.diff(long).min() >= 0
    np.testing.assert_array_equal(first(arrivals, 300), long[:300])
    short = within(arrivals, 130.0)
    np.testing.assert_array_equal(short, long[: len(short)])
    assert short[-1] <= 130 * PS_PER_S < long[len(short)]


@pytest.mark.parametrize("values", [one for one in CHANGING if one.get("burstiness") is None])
def test_changing_rate_has_the_asked_mean(values: dict[str, Any]) -> None:
    asked = values.get("rate_per_s", (2 * 50 + 8 * 20) / 100)
    duration_s = 90_000
    count = len(within(spec(**values), duration_s))
    # Poisson: sqrt(n). The phases of on-off add: the time spent on has a standard error of
    # sqrt(2 on off)² ... below 1 % here; five of them.
    tolerance = 5 * (asked * duration_s) ** -0.5 + (0.03 if values["process"] == "on-off" else 0)
    assert count / duration_s == pytest.approx(asked, rel=tolerance)


def test_piecewise_rate_follows_its_steps_over_and_over() -> None:
    rounds = 400
    times = within(spec(process="piecewise", steps=STEPS), 100.0 * rounds)
    by_phase = np.bincount(times % (100 * PS_PER_S) // (10 * PS_PER_S), minlength=10)
    expected = np.array([20] * 5 + [0] * 3 + [60, 100]) * rounds
    # Each is a Poisson count: five standard deviations.
    assert (np.abs(by_phase - expected) <= 5 * expected**0.5).all()


def test_ramp_counts_grow_with_the_square_of_time() -> None:
    times_s = first(spec(process="piecewise", steps=RAMP), 700, seed=3) / PS_PER_S
    expected = 0.1 * times_s**2  # the integral of 0.2 t; the ramp has 1000 requests
    # Arrival k comes when k ± sqrt(k) have been expected.
    k = np.arange(1, 701)
    assert (np.abs(expected - k) <= 5 * k**0.5).all()


def test_given_mean_rate_rescales_the_steps() -> None:
    plain, scaled = (
        within(spec(process="piecewise", steps=STEPS, **more), 50_000.0)
        for more in ({}, {"rate_per_s": 5.2})
    )
    assert len(scaled) / len(plain) == pytest.approx(2, rel=0.03)  # 5 standard errors


def test_diurnal_rate_peaks_where_and_as_high_as_asked() -> None:
    arrivals = spec(process="diurnal", rate_per_s=5, peak_to_mean=1.6, period_s=100, peak_at_s=30)
    days = 500
    times = within(arrivals, 100.0 * days)
    by_phase = np.bincount(times % (100 * PS_PER_S) // PS_PER_S, minlength=100)
    middle = np.arange(100) + 0.5
    expected = 5 * days * (1 + 0.6 * np.cos(2 * np.pi * (middle - 30) / 100))
    assert (np.abs(by_phase - expected) <= 5 * expected**0.5).all()


def test_on_off_counts_vary_far_more_than_poisson_ones() -> None:
    arrivals = spec(process="on-off", rate_per_s=5, on_s=10, off_s=30)
    per_10_s = counts(within(arrivals, 50_000.0), 50_000, 10)
    assert (per_10_s == 0).mean() > 0.4  # pauses of 30 s cover most windows of 10 s
    assert per_10_s.var() / per_10_s.mean() > 20  # 1 for Poisson


def test_pause_keeps_its_share_of_the_burst_rate() -> None:
    arrivals = spec(process="on-off", rate_per_s=50, on_s=1000, off_s=1000, off_rate_frac=0.25)
    per_10_s = counts(within(arrivals, 100_000.0), 100_000, 10)
    # Two humps, around 800 and 200 in 10 s.
    assert ((np.abs(per_10_s - 800) < 150) | (np.abs(per_10_s - 200) < 80)).mean() > 0.9


def test_phases_do_not_touch_the_gaps_stream() -> None:
    short, long = (
        spec(process="on-off", rate_per_s=5, on_s=on_s, off_s=1e-6) for on_s in (1e4, 1e5)
    )
    # With pauses of a microsecond both are the same Poisson process.
    np.testing.assert_allclose(first(short, 200), first(long, 200), rtol=1e-4, atol=1e8)


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
@pytest.mark.parametrize("more", [{}, {"burstiness": 0.3}])
def test_last_request_of_vllm_bench_comes_at_requests_over_rate(
    count: int, more: dict[str, float]
) -> None:
    times = first(spec(process="vllm-bench", rate_per_s=3.0, **more), count)
    assert times[-1] == round(count / 3.0 * PS_PER_S)
    assert np.diff(times, prepend=0).min() >= 0


def test_vllm_bench_is_poisson_stretched() -> None:
    plain = first(spec(process="poisson", rate_per_s=3.0), 500)
    stretched = first(spec(process="vllm-bench", rate_per_s=3.0), 500)
    np.testing.assert_allclose(stretched, plain * (stretched[-1] / plain[-1]), atol=1)


@pytest.mark.parametrize("shape", ["linear", "exponential"])
def test_ramp_up_of_vllm_bench_goes_by_request_number(shape: str) -> None:
    arrivals = spec(
        process="vllm-bench", ramp_up=shape, start_rate_per_s=1, end_rate_per_s=16, burstiness=1e9
    )
    gaps_s = np.diff(first(arrivals, 1001), prepend=0) / PS_PER_S  # nearly without chance
    rates = 1 / gaps_s
    middle = 8.5 if shape == "linear" else 4.0
    assert rates[[0, 500, 1000]] == pytest.approx([1, middle, 16], rel=0.01)


def test_vllm_bench_needs_a_number_of_requests() -> None:
    entry = {
        "arrivals": {"process": "vllm-bench", "rate_per_s": 1},
        "prompt_tokens": 1,
        "output_tokens": 1,
        "duration_s": 9,
    }
    with pytest.raises(InputError, match="num_requests for vllm-bench"):
        read_workload(entry)
