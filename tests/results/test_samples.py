from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.results.samples import Sample, percentile_word

durations = st.floats(min_value=0, max_value=1e4, allow_subnormal=False)
counted = st.lists(st.tuples(durations, st.integers(1, 9)), min_size=1, max_size=12)
quantiles = st.floats(min_value=0, max_value=100)


def _both(pairs: list[tuple[float, int]]) -> tuple[Sample, np.ndarray]:
    values = np.array([value for value, _ in pairs])
    counts = np.array([count for _, count in pairs], np.int64)
    return Sample(values, counts), np.repeat(values, counts)


@given(counted, quantiles)
def test_weighted_percentile_is_numpys_of_the_expanded_list(
    pairs: list[tuple[float, int]], q: float
) -> None:
    sample, expanded = _both(pairs)
    assert sample.percentile(q) == np.percentile(expanded, q, method="linear")


@given(st.lists(durations, min_size=1, max_size=30), quantiles)
def test_plain_percentile_is_numpys(values: list[float], q: float) -> None:
    assert Sample(np.array(values)).percentile(q) == np.percentile(values, q)


@given(counted)
def test_moments_are_numpys_of_the_expanded_list(pairs: list[tuple[float, int]]) -> None:
    sample, expanded = _both(pairs)
    largest = float(expanded.max())
    assert sample.size == len(expanded)
    assert sample.median == np.median(expanded)
    # Sums in another order: rounding of a few units in the last place of the largest value.
    assert sample.mean == pytest.approx(expanded.mean(), rel=1e-12, abs=1e-12 * largest)
    assert sample.std == pytest.approx(expanded.std(), rel=1e-6, abs=1e-7 * largest)


def test_a_sample_without_values_has_no_statistics() -> None:
    assert Sample(np.empty(0)).statistics_ms((50, 99)) == {}


def test_statistics_are_in_ms_under_vllms_names() -> None:
    statistics = Sample(np.array([0.001, 0.003])).statistics_ms((99, 99.9))
    assert list(statistics) == ["mean", "median", "std", "p99", "p99.9"]
    assert statistics["mean"] == 2.0
    assert statistics["std"] == pytest.approx(1.0)


def test_percentiles_are_named_as_vllm_names_them() -> None:
    assert [percentile_word(q) for q in (99, 99.0, 99.9, 5)] == ["p99", "p99", "p99.9", "p5"]
