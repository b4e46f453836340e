"""Attention of mixed steps: laws of the surface, and of what a step makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise, product
from math import nextafter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.errors import InputError
from simserve.latency.tables.holes import fill_between, fill_beyond
from simserve.latency.tables.limits import AttentionLimit, Heads
from simserve.latency.tables.mixed import ChunkBeside, MixedSurfaces, Point, build_surface
from simserve.latency.tables.table_model import TableModel
from simserve.records.step import PrefillChunk, StepShape
from tests.latency.tables.profiles import (
    H100,
    LLAMA_8B,
    Row,
    mixed_rows,
    noisy_model,
    profile_of,
    sourced,
    tables_of,
)

LIMIT = AttentionLimit(Heads(32, 8, 128), 2.0, H100)
SIZES = st.lists(st.integers(1, 4000), min_size=1, max_size=4, unique=True)
MIXED_PARTS = ("attn_mixed", "attn_decode", "attn_prefill")


@st.composite
def ragged(draw: st.DrawFn) -> dict[Point, float]:
    axes = [draw(SIZES) for _ in range(4)]
    cells: list[Point] = sorted(product(axes[0], axes[1], axes[2], axes[3]))
    seed = draw(st.integers(0, 1000))
    random = np.random.Generator(np.random.PCG64(seed))
    kept = [cell for cell in cells if random.random() < 0.7] or cells[:1]
    return {cell: float(random.lognormal(-9, 1)) for cell in kept}


def surfaces(points: Mapping[Point, float]) -> MixedSurfaces:
    return MixedSurfaces({"": build_surface(points, LIMIT)}, LIMIT, 1, None, None)


def beside(one: MixedSurfaces, decodes: int) -> ChunkBeside:
    found = one.beside(decodes)
    assert found is not None
    return found


def at(one: MixedSurfaces, point: tuple[int, float, float, float]) -> float:
    decodes, context, past, new = point
    return beside(one, decodes).seconds(context, new, past)


@given(ragged())
def test_surface_is_exact_on_its_cleaned_rows(points: dict[Point, float]) -> None:
    one = surfaces(points)
    surface = one.surfaces[""]
    for place in np.ndindex(surface.times.shape):
        decodes, context, past, new = (
            sizes[index] for sizes, index in zip(surface.axes, place, strict=True)
        )
        got = beside(one, decodes).seconds(context, new, past)
        assert got == pytest.approx(surface.times[place], rel=1e-9)
        source = beside(one, decodes).source(context, new, past)
        assert (source == "exact") is ((decodes, context, past, new) in points)


def test_rows_that_are_monotone_are_kept_and_a_hole_lies_between_them() -> None:
    axes = (1, 8, 32), (128, 512, 2048), (0, 256, 1024), (16, 64, 256)
    points = {
        (n, ctx, past, q): 1e-4 + 1e-7 * n * ctx + 1e-8 * q * (past + q)
        for n in axes[0]
        for ctx in axes[1]
        for past in axes[2]
        for q in axes[3]
    }
    hole = (8, 512, 256, 64)
    truth = points.pop(hole)
    one = surfaces(points)
    for (n, ctx, past, q), seconds in points.items():
        assert beside(one, n).seconds(ctx, q, past) == pytest.approx(seconds, rel=1e-9)
    assert at(one, hole) == pytest.approx(truth, rel=0.1)
    assert beside(one, 8).source(512, 64, 256) == "interp"


@given(
    ragged(),
    st.tuples(*[st.integers(1, 6000)] * 4),
    st.tuples(*[st.integers(0, 3000)] * 4),
)
def test_surface_is_monotone_and_never_below_its_limit(
    points: dict[Point, float], start: Point, more: Point
) -> None:
    one = surfaces(points)
    for axis in range(4):
        end = tuple(a + b * (i == axis) for i, (a, b) in enumerate(zip(start, more, strict=True)))
        assert at(one, start) <= at(one, (end[0], end[1], end[2], end[3])) * (1 + 1e-9)
    surface = one.surfaces[""]
    assert all(np.diff(surface.times, axis=axis).min(initial=0) >= 0 for axis in range(4))
    for place in np.ndindex(surface.times.shape):
        knot = [sizes[index] for sizes, index in zip(surface.axes, place, strict=True)]
        assert surface.times[place] >= LIMIT.mixed_s(*knot) * (1 - 1e-12)


@given(ragged(), st.data())
def test_surface_is_continuous_at_knots_and_edges(
    points: dict[Point, float], data: st.DataObject
) -> None:
    one = surfaces(points)
    axes = one.surfaces[""].axes
    decodes, *knot = (data.draw(st.sampled_from(sizes)) for sizes in axes)
    chunk = beside(one, decodes)
    here = chunk.seconds(knot[0], knot[2], knot[1])
    for axis, towards in product(range(3), (-1.0, 1.0)):
        moved = [float(size) for size in knot]
        moved[axis] = nextafter(moved[axis], moved[axis] + towards)
        assert chunk.seconds(moved[0], moved[2], moved[1]) == pytest.approx(here, rel=1e-9)


@given(ragged())
def test_more_decodes_move_the_surface_by_no_more_than_their_share_of_a_gap(
    points: dict[Point, float],
) -> None:
    one = surfaces(points)
    batches, contexts, pasts, news = one.surfaces[""].axes
    for first, last in pairwise(batches):
        low, high = (
            beside(one, batch).seconds(contexts[-1], news[0], pasts[-1]) for batch in (first, last)
        )
        step = beside(one, first + 1).seconds(contexts[-1], news[0], pasts[-1]) - low
        assert step == pytest.approx((high - low) / (last - first), rel=1e-6, abs=1e-12)


def test_regimes_of_mixed_rows_are_never_mixed() -> None:
    def rows(regime: str, batches: tuple[int, ...], us: float) -> list[Row]:
        kept = [one for one in mixed_rows(LLAMA_8B, 1) if one["n_dec"] in batches]
        return [{**one, "regime": regime, "us_p50": us} for one in kept]

    tables = tables_of(LLAMA_8B, 1)
    tables["attn_mixed"] = [*rows("split", (1, 16), 1e6), *rows("unsplit", (256,), 9e6)]
    latency = TableModel(profile_of(tables), LLAMA_8B, H100, 1)
    # 8 KV heads on 132 SMs: 0.8 · 2 · 132 / 8 = 26.4 decodes.
    for decodes, seconds in ((16, 1.0), (26, 1.0), (27, 9.0), (256, 9.0)):
        parts = latency.parts(StepShape(decodes, decodes * 4096, (PrefillChunk(64, 0),)))
        (one,) = [part for part in parts if part.operator == "attn_mixed"]
        assert one.seconds >= 32 * seconds * (1 - 1e-9)
        assert one.seconds < 32 * seconds * 2


# --- steps ---


def attention_s(latency: TableModel, shape: StepShape) -> float:
    return sum(part.seconds for part in latency.parts(shape) if part.operator in MIXED_PARTS)


shapes = st.tuples(
    st.integers(1, 300),
    st.integers(1, 20_000),
    st.lists(
        st.builds(PrefillChunk, st.integers(1, 9000), st.integers(0, 70_000)),
        min_size=1,
        max_size=4,
    ),
)


@given(st.integers(0, 20), shapes)
def test_a_mixed_step_is_never_quicker_than_its_decodes_or_its_chunks(
    seed: int, shape: tuple[int, int, list[PrefillChunk]]
) -> None:
    decodes, context, chunks = shape
    latency = noisy_model(seed % 3)
    both = attention_s(latency, StepShape(decodes, decodes * context, tuple(chunks)))
    alone = attention_s(latency, StepShape(0, 0, tuple(chunks)))
    tabled = latency._operators.decodes[0].decode_lines(decodes, decodes)
    assert both >= max(alone, tabled.seconds(decodes * context)) * (1 - 1e-9)


@given(st.integers(0, 2), shapes)
def test_the_order_of_chunks_does_not_matter_and_a_further_one_takes_no_less_time(
    seed: int, shape: tuple[int, int, list[PrefillChunk]]
) -> None:
    decodes, context, chunks = shape
    latency = noisy_model(seed)
    whole = latency.step_s(StepShape(decodes, decodes * context, tuple(chunks)))
    turned = latency.step_s(StepShape(decodes, decodes * context, tuple(reversed(chunks))))
    assert turned == pytest.approx(whole, rel=1e-12)
    if len(chunks) > 1:
        fewer = latency.step_s(StepShape(decodes, decodes * context, tuple(chunks[1:])))
        assert whole >= fewer * (1 - 1e-12)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_without_rows_the_longer_part_and_a_share_of_the_shorter_count(share: float) -> None:
    tables = tables_of(LLAMA_8B, 1)
    del tables["attn_mixed"]
    profile = profile_of(tables, mixed_added_frac=sourced(share))
    latency = TableModel(profile, LLAMA_8B, H100, 1)
    whole = TableModel(profile_of(tables), LLAMA_8B, H100, 1)
    shape = StepShape(64, 64 * 2048, (PrefillChunk(1024, 4096),))
    parts = {one.operator: one.seconds for one in whole.parts(shape)}
    decode_s, chunk_s = parts["attn_decode"], parts["attn_prefill"]
    expected = max(decode_s, chunk_s) + share * min(decode_s, chunk_s)
    assert attention_s(latency, shape) == pytest.approx(expected)
    assert latency.step_s(shape) == pytest.approx(
        whole.step_s(shape) - (1 - share) * min(decode_s, chunk_s)
    )
    said = "the shorter" if share == 1 else f"{share:g} of the shorter"
    assert f"attention of mixed steps (the longer part and {said})" in latency.missing


def test_a_share_above_one_is_refused() -> None:
    with pytest.raises(InputError, match=r"mixed_added_frac\.value: got 1\.5, allowed: a number"):
        profile_of(tables_of(LLAMA_8B, 1), mixed_added_frac=sourced(1.5))


def test_uneven_decodes_are_left_aside() -> None:
    tables = tables_of(LLAMA_8B, 1)
    even = TableModel(profile_of(tables), LLAMA_8B, H100, 1)
    rows = [{**one, "max_ctx": 0} for one in tables["attn_mixed"]]
    tables["attn_mixed"] = [*rows, {**rows[7], "ctx": 200, "max_ctx": 900, "us_p50": 1e7}]
    latency = TableModel(profile_of(tables), LLAMA_8B, H100, 1)
    shape = StepShape(1, 200, (PrefillChunk(16, 1024),))
    assert latency.step_s(shape) == even.step_s(shape)


# --- holes ---


def test_a_hole_is_interpolated_along_both_axes_and_the_nearer_neighbours_count_more() -> None:
    grid = np.array([[1.0, 2.0, 5.0], [1.0, np.nan, 6.0], [3.0, 4.0, 9.0]])
    axes = (1, 3, 7), (1, 31, 63)
    filled = fill_between(grid, np.zeros((3, 3)), axes)
    down, across = 2 + 2 / 3, 1 + 5 * 30 / 62
    weights = 1 / 2, 1 / 5  # octaves from 2 to 8, and from 2 to 64
    expected = (down * weights[0] + across * weights[1]) / sum(weights)
    assert filled[1, 1] == pytest.approx(expected)
    np.testing.assert_array_equal(filled[~np.isnan(grid)], grid[~np.isnan(grid)])


def test_holes_at_the_edge_are_left_to_the_held_utilisation() -> None:
    grid = np.array([[1.0, 2.0], [2.0, np.nan]])
    limits = np.array([[0.5, 1.0], [1.0, 2.0]])
    inner = fill_between(grid, limits, ((1, 2), (1, 2)))
    assert np.isnan(inner[1, 1])
    # The shortest time, 1, is no work's: (1 + 1) / 2 and (2 + 1) of it remain.
    assert fill_beyond(inner, limits)[1, 1] == pytest.approx(3.0)
