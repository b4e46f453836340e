"""Arrival processes: their closed forms, and what does not change from run to run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simserve.errors import InputError
from simserve.inputs.units import MOST_PER_S
from simserve.inputs.workload import ArrivalsSpec
from simserve.records.clock import PS_PER_NS, PS_PER_S, PsArray
from simserve.traffic.arrivals import arrivals_within_ps, first_arrivals_ps
from simserve.traffic.limits import MOST_REQUESTS
from simserve.traffic.streams import random_stream

PROCESSES = [
    {"process": "poisson"},
    {"process": "constant"},
    {"process": "gamma", "burstiness": 0.25},
    {"process": "gamma", "burstiness": 4.0},
]


def spec(**values: Any) -> ArrivalsSpec:
    return ArrivalsSpec(**values)


def first(arrivals: ArrivalsSpec, count: int, seed: int = 1) -> PsArray:
    return first_arrivals_ps(arrivals, count, random_stream(seed, "arrivals"))


def within(arrivals: ArrivalsSpec, duration_s: float, seed: int = 1) -> PsArray:
    return arrivals_within_ps(arrivals, duration_s, random_stream(seed, "arrivals"))


def gaps_s(times_ps: PsArray) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.diff(times_ps, prepend=0) / PS_PER_S


@pytest.mark.parametrize("process", PROCESSES)
def test_gaps_have_the_asked_mean(process: dict[str, Any]) -> None:
    count, rate = 200_000, 8.0
    cv = {"poisson": 1.0, "constant": 0.0}.get(process["process"]) or 1.0
    if "burstiness" in process:
        cv = process["burstiness"] ** -0.5
    # The mean of n gaps has a standard error of cv/sqrt(n): five of them.
    tolerance = 5 * cv / count**0.5
    mean_s = gaps_s(first(spec(rate_per_s=rate, **process), count)).mean()
    assert mean_s * rate == pytest.approx(1, rel=tolerance)


@pytest.mark.parametrize("shape", [0.25, 1.0, 4.0])
def test_burstiness_is_the_shape_of_the_gaps(shape: float) -> None:
    arrivals = spec(process="gamma", rate_per_s=3.0, burstiness=shape)
    gaps = gaps_s(first(arrivals, 400_000))
    # Coefficient of variation shape^-1/2; its standard error here is below 0.4 %.
    assert gaps.std() / gaps.mean() == pytest.approx(shape**-0.5, rel=0.02)


def test_poisson_counts_per_second_vary_as_much_as_their_mean() -> None:
    times_ps = within(spec(process="poisson", rate_per_s=5.0), 50_000)
    counts = np.bincount(times_ps // PS_PER_S, minlength=50_000)
    # The variance of a Poisson count is its mean; standard error here 0.7 %.
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.035)


def test_gamma_with_shape_one_is_poisson() -> None:
    gamma = first(spec(process="gamma", rate_per_s=2.0, burstiness=1.0), 1000)
    np.testing.assert_array_equal(gamma, first(spec(process="poisson", rate_per_s=2.0), 1000))


def test_last_arrival_is_not_stretched_to_requests_over_rate() -> None:
    lasts = [first(spec(process="poisson", rate_per_s=1.0), 100, seed)[-1] for seed in range(200)]
    # Erlang with 100 stages: standard deviation 10 s; that of 200 values is known to 5 %.
    assert np.std(lasts) / PS_PER_S == pytest.approx(10, rel=0.25)


def test_constant_arrivals_are_exact_multiples_of_the_gap() -> None:
    times_ps = first(spec(process="constant", rate_per_s=3.0), 300_000)
    assert times_ps[[2, 29_999, 299_999]].tolist() == [s * PS_PER_S for s in (1, 10_000, 100_000)]


@pytest.mark.parametrize(
    ("rate", "duration_s", "count"), [(10.0, 60.0, 600), (0.7, 10.0, 7), (3.0, 1.0, 3)]
)
def test_constant_arrivals_fill_a_duration_to_its_end(
    rate: float, duration_s: float, count: int
) -> None:
    assert len(within(spec(process="constant", rate_per_s=rate), duration_s)) == count


def test_all_at_once_is_at_zero() -> None:
    assert first(spec(process="all-at-once"), 4).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("process", PROCESSES)
def test_longer_run_begins_with_the_shorter_one(process: dict[str, Any]) -> None:
    arrivals = spec(rate_per_s=20.0, **process)
    long = first(arrivals, 5000)
    np.testing.assert_array_equal(first(arrivals, 100), long[:100])
    for duration_s in (0.5, 10.0, 100.0):
        short = within(arrivals, duration_s)
        np.testing.assert_array_equal(short, long[: len(short)])
        assert short[-1] <= duration_s * PS_PER_S < long[len(short)]


@pytest.mark.parametrize("process", PROCESSES)
def test_times_never_go_back(process: dict[str, Any]) -> None:
    assert np.diff(first(spec(rate_per_s=1e6, **process), 10_000)).min() >= 0


def test_doubling_the_rate_halves_every_time() -> None:
    slow = first(spec(process="gamma", rate_per_s=1.0, burstiness=0.5), 1000)
    fast = first(spec(process="gamma", rate_per_s=2.0, burstiness=0.5), 1000)
    np.testing.assert_allclose(fast, slow / 2, atol=1, rtol=0)


def test_too_much_is_refused_before_it_is_drawn() -> None:
    poisson = spec(process="poisson", rate_per_s=1e6)
    with pytest.raises(InputError, match="num_requests"):
        first(poisson, MOST_REQUESTS + 1)
    with pytest.raises(InputError, match=f"at most {MOST_REQUESTS}"):
        within(poisson, 1e6)
    with pytest.raises(InputError, match="at most 53 days"):
        first(spec(process="poisson", rate_per_s=1e-9), 10)
    with pytest.raises(InputError, match="at most 53 days"):
        within(spec(process="poisson", rate_per_s=1e-9), 1e10)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("rate", [5e-324, 1e-300, MOST_PER_S])
def test_absurd_rate_is_refused_or_drawn_without_a_warning(
    process: dict[str, Any], rate: float
) -> None:
    arrivals = spec(rate_per_s=rate, **process)
    if rate > 1:
        assert 0 <= first(arrivals, 10).max() < PS_PER_NS  # a picosecond between them, in the mean
    else:
        with pytest.raises(InputError, match="53 days"):
            first(arrivals, 10)
        with pytest.raises(InputError, match="no request arrives"):
            within(arrivals, 60)


def test_duration_without_a_request_is_refused() -> None:
    with pytest.raises(InputError, match="in which no request arrives"):
        within(spec(process="constant", rate_per_s=0.1), 9)
