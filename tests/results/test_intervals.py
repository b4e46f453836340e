"""Laws of intervals: they scale, shrink, hold their value, and say why they are missing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.results.batch_means import Series
from simserve.results.critical_values import normal, student_t
from simserve.results.intervals import (
    FEW_RISES_OF_MEAN,
    FEW_RUNS,
    NOT_INDEPENDENT,
    NOTHING_MEASURED,
    SHORT_TAIL,
    Estimates,
    Interval,
)
from tests.results.queues import Queue

PERCENTILES = (50, 90, 95, 99)


def of(values: np.ndarray, counts: np.ndarray | None = None) -> Estimates:
    return Estimates([Series.of_values(values, counts)])


def all_of(estimates: Estimates) -> list[Interval]:
    found = [estimates.mean(), *(estimates.percentile(q) for q in PERCENTILES)]
    return [one for one in found if one is not None]


@pytest.mark.parametrize(
    ("degrees", "value"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (19, 2.093), (60, 2.0)]
)
def test_students_t_is_that_of_the_tables(degrees: int, value: float) -> None:
    assert student_t(degrees) == pytest.approx(value, abs=5e-4)


def test_students_t_falls_to_the_normal() -> None:
    values = [student_t(degrees) for degrees in range(1, 200)]
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(normal(), rel=0.01)
    assert student_t(9, 0.99) == pytest.approx(3.250, abs=5e-4)


@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.001, 0.25, 4.0, 1024.0]))
@settings(max_examples=25)
def test_scaling_all_latencies_scales_every_interval(seed: int, scale: float) -> None:
    values = np.random.default_rng(seed).lognormal(size=2000)
    for plain, scaled in zip(all_of(of(values)), all_of(of(values * scale)), strict=True):
        assert scaled.value == pytest.approx(plain.value * scale)
        assert (scaled.low is None) == (plain.low is None)
        if plain.low is not None and plain.high is not None:
            assert scaled.low == pytest.approx(plain.low * scale)
            assert scaled.high == pytest.approx(plain.high * scale)


@given(seed=st.integers(0, 10_000), requests=st.integers(0, 3000))
@settings(max_examples=40)
def test_an_interval_holds_its_value_or_says_why_there_is_none(seed: int, requests: int) -> None:
    values = np.random.default_rng(seed).exponential(size=requests)
    for one in all_of(of(values)):
        assert (one.low is None) == (one.high is None) == (one.reason is not None)
        if one.low is not None and one.high is not None:
            assert one.low <= one.value <= one.high


def test_intervals_shrink_with_the_root_of_the_sample() -> None:
    queue = Queue("M/M/1", 0.5)
    widths = []
    for requests in (10_000, 160_000):
        halves = []
        for seed in range(12):
            mean = of(queue.sojourn_times(requests, seed)).mean()
            if mean is not None and mean.half_width is not None:
                halves.append(mean.half_width)
        assert len(halves) >= 10
        widths.append(float(np.mean(halves)))
    # A root of 16 is 4; half-widths of twelve runs of twenty batches are known to about 5 %.
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.3)


def test_the_same_sample_gives_the_same_interval() -> None:
    values = Queue("M/D/1", 0.8).sojourn_times(5000, 1)
    assert all_of(of(values)) == all_of(of(values.copy()))


def test_independent_requests_carry_a_p99_from_four_thousand_on() -> None:
    # Every fourth of them rises above the median, and one in a hundred lies beyond.
    rng = np.random.default_rng(4)
    few = [of(rng.normal(size=3500)).percentile(99) for _ in range(20)]
    many = [of(rng.normal(size=4500)).percentile(99) for _ in range(20)]
    assert all(one is not None and one.low is None for one in few)
    assert sum(one is not None and one.low is not None for one in many) >= 15
    reasons = {one.reason for one in few if one is not None}
    assert reasons <= {SHORT_TAIL, NOT_INDEPENDENT}


def test_what_is_printed_is_not_decided_by_how_lucky_the_run_was() -> None:
    """Of runs that are too short, the lucky ones look quiet, and must not be let pass for it."""
    queue, printed, truth = Queue("M/M/1", 0.8), 0, 0
    for seed in range(100):
        estimates = of(queue.sojourn_times(1000, seed))
        printed += sum(one.low is not None for one in all_of(estimates))
        truth += estimates.at_share(0.99) >= queue.percentile(99)
    assert printed == 0
    assert truth < 40  # a run of this length has most often missed the long busy spell


def test_a_spell_counts_once_however_many_requests_it_holds() -> None:
    rng = np.random.default_rng(5)
    spells = np.repeat(np.tile([0.0, 10.0], 12), 200) + rng.normal(size=4800)
    in_spells, mixed = of(spells).mean(), of(rng.permutation(spells)).mean()
    assert in_spells is not None and in_spells.reason in (FEW_RISES_OF_MEAN, NOT_INDEPENDENT)
    assert mixed is not None and mixed.low is not None


@given(seed=st.integers(0, 1000), copies=st.integers(1, 4))
@settings(max_examples=20)
def test_more_of_the_same_kind_never_takes_an_interval_away(seed: int, copies: int) -> None:
    rng = np.random.default_rng(seed)
    runs = [Series.of_values(rng.exponential(size=1000)) for _ in range(20 + copies)]
    few, more = Estimates(runs[:20]), Estimates(runs)
    for q in PERCENTILES:
        one, other = few.percentile(q), more.percentile(q)
        assert one is not None and other is not None
        assert one.low is None or other.low is not None


def test_a_correlated_sample_is_worth_less_than_an_independent_one() -> None:
    independent = of(np.random.default_rng(0).exponential(size=10_000)).mean()
    queueing = of(Queue("M/M/1", 0.8).sojourn_times(10_000, 0)).mean()
    assert independent is not None and independent.effective_size is not None
    assert queueing is not None and queueing.effective_size is not None
    assert independent.effective_size > 3000 > 1000 > queueing.effective_size


def test_counts_stand_for_repeats() -> None:
    values = np.random.default_rng(6).exponential(size=4000)
    counts = np.full(4000, 3)
    single, repeated = of(values), of(np.repeat(values, 3))
    counted = of(values, counts)
    for q in PERCENTILES:
        one, other = counted.percentile(q), repeated.percentile(q)
        assert one is not None and other is not None
        assert one.value == pytest.approx(other.value, rel=1e-12)
    mean, plain = counted.mean(), single.mean()
    assert mean is not None and plain is not None and mean.value == pytest.approx(plain.value)


def test_a_percentile_is_a_value_of_the_sample() -> None:
    values = np.arange(1.0, 1001.0)
    np.random.default_rng(0).shuffle(values)
    for q in PERCENTILES:
        found = of(values).percentile(q)
        assert found is not None and found.value == q * 10


def test_equal_values_are_known_exactly() -> None:
    for one in all_of(of(np.full(1000, 0.25))):
        assert one.low == one.value == one.high == 0.25


def test_nothing_measured_has_no_estimate() -> None:
    empty = of(np.empty(0))
    assert empty.mean() is None and empty.percentile(99) is None
    assert empty.reason == NOTHING_MEASURED


def test_whole_runs_are_batches_only_if_there_are_enough() -> None:
    rng = np.random.default_rng(8)
    runs = [Series.of_values(rng.normal(size=300)) for _ in range(8)]
    few = Estimates(runs[:4], whole_runs=True)
    assert few.reason == FEW_RUNS
    enough = Estimates(runs, whole_runs=True).mean()
    assert enough is not None and enough.low is not None


def test_a_skewed_sample_gets_a_lopsided_interval() -> None:
    values = np.random.default_rng(3).lognormal(0, 2, 3000)
    found = of(values).mean()
    assert found is not None and found.low is not None and found.high is not None
    assert found.high - found.value > found.value - found.low


@given(seed=st.integers(0, 1000))
@settings(max_examples=20)
def test_mirrored_values_get_the_mirrored_interval(seed: int) -> None:
    values = np.random.default_rng(seed).exponential(size=1001)
    one, other = of(values).mean(), of(-values).mean()
    assert one is not None and other is not None
    assert (one.low is None) == (other.low is None)
    if one.low is not None and one.high is not None:
        assert other.low == pytest.approx(-one.high, rel=1e-3)
        assert other.high == pytest.approx(-one.low, rel=1e-3)


def test_the_longer_tail_stretches_the_interval_most_where_least_was_seen() -> None:
    def stretch(requests: int) -> float:
        found = [of(Queue("M/M/1", 0.5).sojourn_times(requests, seed)).mean() for seed in range(20)]
        sides = [
            (one.high - one.value) / (one.value - one.low)
            for one in found
            if one is not None and one.low is not None and one.high is not None
        ]
        return float(np.mean(sides))

    short, longer, long = stretch(1000), stretch(4000), stretch(64_000)
    assert short > longer > long > 1
    assert long < 1.2


def test_symmetric_values_get_nearly_symmetric_intervals() -> None:
    for seed in range(10):
        one = of(np.random.default_rng(seed).normal(size=2000)).mean()
        assert one is not None
        if one.low is not None and one.high is not None:
            assert one.high - one.value == pytest.approx(one.value - one.low, rel=0.1)


def test_whole_runs_get_students_t_however_skewed_they_are() -> None:
    rng = np.random.default_rng(2)
    runs = [Series.of_values(rng.lognormal(0, 1, 300)) for _ in range(6)]
    one = Estimates(runs, whole_runs=True).mean()
    assert one is not None and one.low is not None and one.high is not None
    means = [float(run.values.mean()) for run in runs]
    half = student_t(5) * float(np.std(means, ddof=1)) / math.sqrt(6)
    assert one.high - one.value == pytest.approx(half)
    assert one.value - one.low == pytest.approx(half)


def test_relative_half_width_is_of_the_wider_side() -> None:
    one = Interval(value=10.0, low=9.0, high=13.0)
    assert one.half_width == 3.0 and one.relative_half_width == 0.3
    assert Interval(value=0.0, low=0.0, high=1.0).relative_half_width is None
    assert math.isclose(float(one.as_dict(1000)["high"]), 13_000)
