"""Down-sampling hides nothing: extremes are kept, and areas are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.report.charts.downsample import QUANTILES, band, cdf, joined, strip
from simserve.results.samples import Sample

COUNTS = st.integers(min_value=0, max_value=50)
STEPS = st.lists(st.tuples(st.integers(0, 40), COUNTS), min_size=1, max_size=60)


def _series(steps: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    times = np.cumsum([gap for gap, _ in steps]).astype(float)
    return times, np.array([value for _, value in steps], float)


@given(steps=STEPS, columns=st.integers(1, 40))
def test_a_band_holds_every_value_and_each_edge_of_it_is_taken(
    steps: list[tuple[int, int]], columns: int
) -> None:
    times, values = _series(steps)
    end = float(times[-1]) + 1.0
    found = band(times, values, 0.0, end, columns)
    lasting = np.diff(np.append(times, end))
    for time, value, held_for in zip(times, values, lasting, strict=True):
        if held_for > 0:
            at = min(int(np.searchsorted(found.edges, time, side="right")) - 1, columns - 1)
            assert found.low[at] <= value <= found.high[at]
    seen = {*values[lasting > 0].tolist()} | ({0.0} if times[0] > 0 else set())
    assert set(found.low.tolist()) | set(found.high.tolist()) <= seen
    assert found.high.max() == max(seen)
    assert found.low.min() == min(seen)


@given(steps=STEPS, columns=st.integers(1, 40))
def test_the_mean_of_a_band_keeps_the_area(steps: list[tuple[int, int]], columns: int) -> None:
    times, values = _series(steps)
    end = float(times[-1]) + 1.0
    found = band(times, values, 0.0, end, columns)
    area = float(np.dot(values, np.diff(np.append(times, end))))
    assert np.dot(found.mean, np.diff(found.edges)) == pytest.approx(area, abs=1e-6)
    assert (found.low - 1e-9 <= found.mean).all()
    assert (found.mean <= found.high + 1e-9).all()


def test_a_joined_band_holds_those_it_is_made_of() -> None:
    bands = [
        band(np.array([0.0, 2.0]), np.array([float(level), 9.0 - level]), 0.0, 4.0, 8)
        for level in range(3)
    ]
    found = joined(bands)
    for one in bands:
        assert (found.low <= one.low).all()
        assert (found.high >= one.high).all()


def test_a_distribution_is_drawn_at_its_own_percentiles() -> None:
    sample = Sample(np.random.default_rng(3).lognormal(size=20_000))
    values_s, shares = cdf(sample)
    assert len(values_s) == len(QUANTILES)
    assert (np.diff(values_s) >= 0).all()
    assert values_s == pytest.approx(np.percentile(sample.values_s, QUANTILES))
    assert (shares[0], shares[-1]) == (0.0, 1.0)


def test_strips_count_everything_once() -> None:
    rng = np.random.default_rng(4)
    times, values = np.sort(rng.uniform(0, 9, 500)), rng.lognormal(size=500)
    found = strip(times, values, (50.0, 99.0), 20)
    assert found.counts.sum() == 500
    assert (found.percentiles[50.0] <= found.percentiles[99.0]).all()
    everything = strip(times, values, (50.0,), 1)
    assert everything.percentiles[50.0][0] == pytest.approx(np.median(values))
