"""Batches are equal, and count as independent only where they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.results.batch_means import (
    BATCH_COUNTS,
    INDEPENDENCE_LEVEL,
    Series,
    correlation_factor,
    independent_batches,
    looks_independent,
)


def autoregressive(requests: int, correlation: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=requests)
    values = np.empty(requests)
    last = 0.0
    for place, one in enumerate(noise.tolist()):
        last = correlation * last + one
        values[place] = last
    return values


@given(
    weights=st.lists(st.integers(1, 50), min_size=40, max_size=200),
    batches=st.integers(1, 20),
)
def test_batches_hold_every_entry_once_and_weigh_alike(weights: list[int], batches: int) -> None:
    series = Series.of_values(np.ones(len(weights)), np.array(weights))
    edges = series.edges(batches)
    assert edges[0] == 0 and edges[-1] == len(weights) and (np.diff(edges) >= 0).all()
    totals = np.add.reduceat(series.weights, edges[:-1][np.diff(edges) > 0])
    assert totals.sum() == sum(weights)
    # A batch ends with the entry that fills it, so it is off by less than one entry at each end.
    if (np.diff(edges) > 0).all():
        assert np.abs(totals - sum(weights) / batches).max() <= 2 * max(weights)


def test_independent_batches_are_refused_as_rarely_as_the_level_says() -> None:
    rng = np.random.default_rng(1)
    refused = sum(not looks_independent(rng.normal(size=(1, 20))) for _ in range(2000))
    # Four standard errors of 2,000 draws, and a little for the normal approximation.
    assert refused / 2000 == pytest.approx(INDEPENDENCE_LEVEL, abs=0.03)


def test_correlated_batches_are_refused() -> None:
    found = [looks_independent(autoregressive(20, 0.9, seed).reshape(1, 20)) for seed in range(100)]
    assert sum(found) < 10


def test_only_neighbours_within_a_run_count() -> None:
    # Levels that differ from run to run, and nothing else: neighbours across runs do not exist.
    means = np.repeat(np.arange(20.0).reshape(20, 1), 1, axis=1)
    assert looks_independent(means)
    assert correlation_factor(means) == 1.0


def test_a_drift_has_no_independent_batches() -> None:
    drifting = np.arange(5000.0) + np.random.default_rng(0).normal(size=5000)
    assert independent_batches([Series.of_values(drifting)]) is None


def test_more_correlation_leaves_fewer_batches_or_none() -> None:
    def batches(correlation: float) -> list[int]:
        found = [
            independent_batches([Series.of_values(autoregressive(2000, correlation, seed))])
            for seed in range(20)
        ]
        return [0 if one is None else one.count for one in found]

    assert np.mean(batches(0.0)) > np.mean(batches(0.995))
    assert max(batches(0.0)) == BATCH_COUNTS[0]


def test_many_runs_are_one_batch_each_and_few_are_cut() -> None:
    rng = np.random.default_rng(2)
    runs = [Series.of_values(rng.normal(size=400)) for _ in range(25)]
    many, few = independent_batches(runs), independent_batches(runs[:3])
    assert many is not None and many.per_run == 1 and many.count == 25
    assert few is not None and few.per_run > 1 and few.count >= 10


def test_a_sample_of_a_few_requests_has_no_batches() -> None:
    assert independent_batches([Series.of_values(np.random.default_rng(0).normal(size=50))]) is None


def test_correlation_widens_and_its_absence_does_not() -> None:
    assert correlation_factor(autoregressive(20, 0.9, 3).reshape(1, 20)) > 1.5
    alternating = np.tile([1.0, -1.0], 10).reshape(1, 20)
    assert correlation_factor(alternating) == 1.0
    assert correlation_factor(np.ones((1, 20))) == 1.0
