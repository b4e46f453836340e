"""Cleaning and interpolation: exact on rows, monotone, within the limits, held beyond."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from simserve.latency.tables.curve import Curve, octaves, transferred
from simserve.latency.tables.gemms import surcharged
from simserve.latency.tables.grid import build_grid
from simserve.latency.tables.isotonic import isotonic, isotonic_grid
from simserve.latency.tables.lines import Lines, at_least, through, total

times = st.floats(1e-6, 1e-2)
series = st.lists(times, min_size=1, max_size=12)
sizes = st.lists(st.integers(1, 10_000), min_size=1, max_size=12, unique=True).map(sorted)


def limit(size: float) -> float:
    return max(2e-7 * size, 1e-6 + 1e-8 * size)


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    knots = draw(sizes)
    return Curve(knots, draw(st.lists(times, min_size=len(knots), max_size=len(knots))), limit)


@given(series)
def test_isotonic_fit_never_falls_and_keeps_the_mean(values: list[float]) -> None:
    fitted = isotonic(values)
    assert all(a <= b for a, b in pairwise(fitted))
    assert math.fsum(fitted) == pytest.approx(math.fsum(values))
    assert isotonic(fitted) == fitted


@given(series, series)
def test_isotonic_fit_is_closer_than_any_other_monotone_series(
    values: list[float], other: list[float]
) -> None:
    rival = np.maximum.accumulate(np.resize(other, len(values)))
    fitted = np.array(isotonic(values))
    assert np.sum((fitted - values) ** 2) <= np.sum((rival - values) ** 2) * (1 + 1e-9)


@given(sizes)
def test_monotone_times_are_left_as_they_are(knots: list[int]) -> None:
    measured = [limit(size) * 3 for size in knots]
    assert Curve(knots, measured, limit).times == measured


@given(curves())
def test_curve_is_exact_on_its_cleaned_rows(curve: Curve) -> None:
    for size, time in zip(curve.sizes, curve.times, strict=True):
        assert curve.answer(size) == (time, "exact")
    assert curve.times == sorted(curve.times)


@given(curves(), st.integers(1, 40_000), st.integers(0, 20_000))
def test_curve_is_monotone_and_never_below_its_limit(curve: Curve, size: int, more: int) -> None:
    assert curve.seconds(size + more) >= curve.seconds(size) * (1 - 1e-12)
    assert curve.seconds(size) >= limit(size) * (1 - 1e-12)  # rounding
    assert curve.seconds(size) >= curve.times[0] * (1 - 1e-12)


@given(curves())
def test_curve_is_continuous_at_its_edges(curve: Curve) -> None:
    for size in curve.sizes:
        around = [curve.seconds(size * (1 + step)) for step in (-1e-9, 0, 1e-9)]
        assert around == pytest.approx([curve.seconds(size)] * 3, rel=1e-4)


@given(curves(), st.floats(1, 20))
def test_twice_the_size_beyond_the_rows_takes_at_most_twice_as_long(
    curve: Curve, beyond: float
) -> None:
    size = curve.sizes[-1] * beyond
    assert curve.seconds(2 * size) <= 2 * curve.seconds(size) * (1 + 1e-12)
    assert curve.answer(2 * size).source == "extrap"


def test_utilisation_is_held_beyond_the_last_row_within_its_bounds() -> None:
    half = Curve([1000], [2 * limit(1000)], limit)
    assert half.seconds(4000) == pytest.approx(2 * limit(4000))
    idle = Curve([1], [1.0], limit)
    assert idle.seconds(1000) == 1.0  # at a utilisation of 1e-6 it would be 160 s
    assert idle.seconds(10**7) == pytest.approx(limit(10**7) / 0.02)


@given(curves(), st.integers(1, 40_000), st.integers(0, 20_000))
def test_transferred_curve_obeys_the_same_laws(curve: Curve, size: int, more: int) -> None:
    other = transferred((200, 100), lambda size: 2 * limit(size), {(100, 100): curve})
    assert other.seconds(size + more) >= other.seconds(size) * (1 - 1e-12)
    assert other.seconds(size) >= 2 * limit(size) * (1 - 1e-12)
    assert other.answer(size).source == "transfer"


def test_transfer_keeps_the_utilisation_and_weighs_the_nearer_shape_more() -> None:
    near, far = (Curve([1, 100], [u * limit(1), u * limit(100)], limit) for u in (2, 4))
    lent = transferred((100, 100), limit, {(200, 100): near, (100, 400): far})
    assert octaves((100, 100), (100, 400)) == 2
    assert lent.seconds(100) == pytest.approx(limit(100) / ((2 / 2 + 1 / 4) / 3))


@given(curves(), curves(), st.integers(17, 40_000), st.integers(1, 500))
def test_unaligned_rows_never_cost_less_than_aligned_ones_and_never_fall(
    smooth: Curve, rough: Curve, size: int, more: int
) -> None:
    both = surcharged(smooth, rough)
    for knot, time in zip(rough.sizes, rough.times, strict=True):
        assert max(both.seconds(knot), smooth.seconds(knot)) >= max(time, smooth.seconds(knot)) * (
            1 - 1e-12
        )
    assert both.seconds(size + more) >= both.seconds(size) * (1 - 1e-12)


# --- grids ---


@st.composite
def ragged(draw: st.DrawFn) -> dict[tuple[int, int], float]:
    rows = draw(st.lists(st.integers(1, 600), min_size=1, max_size=5, unique=True))
    columns = draw(st.lists(st.integers(1, 9000), min_size=1, max_size=5, unique=True))
    cells = draw(
        st.lists(
            st.tuples(st.sampled_from(rows), st.sampled_from(columns)), min_size=1, unique=True
        )
    )
    return {cell: draw(times) for cell in cells}


@given(ragged())
def test_grid_is_whole_monotone_and_never_below_its_limit(
    points: dict[tuple[int, int], float],
) -> None:
    grid = build_grid(points, lambda row, column: 1e-9 * row * column, (1000,), (20_000, 40_000))
    whole = np.array(grid.times)
    assert np.isfinite(whole).all()
    assert (np.diff(whole, axis=0) >= -1e-12 * whole[1:]).all()
    assert (np.diff(whole, axis=1) >= -1e-12 * whole[:, 1:]).all()
    assert (whole >= 1e-9 * np.outer(grid.rows, grid.columns) * (1 - 1e-12)).all()
    assert {
        (row, column)
        for row, sources in zip(grid.rows, grid.sources, strict=True)
        for column, source in zip(grid.columns, sources, strict=True)
        if source == "exact"
    } == set(points)


@given(ragged())
def test_cleaning_a_grid_twice_changes_nothing(points: dict[tuple[int, int], float]) -> None:
    rows, columns = (sorted({point[axis] for point in points}) for axis in (0, 1))
    raw = np.array([[points.get((row, column), np.nan) for column in columns] for row in rows])
    once = isotonic_grid(raw)
    assert np.array_equal(np.isnan(once), np.isnan(raw))
    np.testing.assert_allclose(isotonic_grid(once), once, rtol=1e-12)


def test_a_monotone_grid_keeps_its_measured_cells_and_fills_the_corner_from_them() -> None:
    points = {(1, 100): 1e-5, (1, 1000): 5e-5, (8, 100): 5e-5}
    grid = build_grid(points, lambda row, column: 1e-8 * row * column)
    assert grid.times[0] == (1e-5, 5e-5)
    assert grid.times[1][0] == 5e-5
    # The shortest time, 1e-5, is no work's: (1.8e-5 of 9e-5) and (2e-5 of 9e-5) are left to hold.
    assert grid.times[1][1] == pytest.approx(5e-5 * max(9e-5 / 1.8e-5, 9e-5 / 2e-5))


def test_a_kernel_that_takes_no_time_but_its_launch_costs_its_work_beyond_the_grid() -> None:
    launch_s, per_work_s = 1e-5, 1e-9
    sizes = [(row, column) for row in (1, 4) for column in (1, 4)]
    points = {size: launch_s + per_work_s * size[0] * size[1] for size in sizes}
    grid = build_grid(points, lambda row, column: per_work_s * row * column, (), (1_000_000,))
    expected = launch_s + per_work_s * 4 * 1_000_000
    assert grid.times[1][2] == pytest.approx(expected, rel=1e-3)


# --- lines ---


@st.composite
def lines(draw: st.DrawFn) -> Lines:
    knots = draw(sizes)
    heights = np.maximum.accumulate(
        draw(st.lists(times, min_size=len(knots), max_size=len(knots)))
    ).tolist()
    slope = draw(st.sampled_from([0.0, 1e-9, 1e-6]))
    return through(knots, heights, slope, ["interp"] * (len(knots) + 1))


@given(lines(), lines(), st.floats(0, 20_000))
def test_lines_add_up(one: Lines, other: Lines, size: float) -> None:
    both = total([one, other], 1e-3, 0.9)
    expected = 0.9 * (1e-3 + one.seconds(size) + other.seconds(size))
    assert both.seconds(size) == pytest.approx(expected, rel=1e-9)


@given(lines(), st.floats(0, 2e-2), st.floats(0, 20_000))
def test_lines_are_cut_at_a_floor(one: Lines, floor_s: float, size: float) -> None:
    cut = at_least(one, floor_s, 1e-4)
    assert cut.seconds(size) == pytest.approx(max(one.seconds(size), floor_s) + 1e-4, rel=1e-9)
    assert cut.starts[0] == 0
    assert list(cut.starts) == sorted(set(cut.starts))


@given(st.lists(times, min_size=2, max_size=6))
def test_lines_pass_through_their_points(heights: list[float]) -> None:
    assume(len(set(heights)) > 1)
    knots = list(range(1, len(heights) + 1))
    drawn = through(knots, heights, 0.0, ["interp"] * (len(heights) + 1))
    assert [drawn.seconds(knot) for knot in knots] == pytest.approx(heights)
