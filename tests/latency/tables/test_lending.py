"""Heads that were not measured, and chunks on a past that was not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.latency.tables.chunk_grids import chunk_grid
from simserve.latency.tables.lending import heads_apart, lent_points
from simserve.latency.tables.limits import AttentionLimit, Heads
from tests.latency.tables.profiles import H100

KV_BYTES = 2.0


def limit_of(queries: int, keys: int) -> AttentionLimit:
    return AttentionLimit(Heads(queries, keys, 128), KV_BYTES, H100)


@given(
    keys=st.sampled_from([1, 2, 4, 8]),
    other=st.sampled_from([1, 2, 4, 8]),
    group=st.sampled_from([1, 4, 8]),
    batch=st.sampled_from([8, 16, 64]),
    context=st.integers(1, 1 << 17),
    seconds=st.floats(1e-2, 1.0),
)
def test_as_many_pairs_of_a_sequence_and_a_kv_head_take_the_same_time(
    keys: int, other: int, group: int, batch: int, context: int, seconds: float
) -> None:
    lent, mine = limit_of(group * other, other), limit_of(group * keys, keys)
    found = lent_points("attn_decode", {(batch, context): seconds}, lent, mine)
    assert found == {(batch * other / keys, context): pytest.approx(seconds)}


def test_heads_of_the_same_group_lend_to_decodes_before_heads_of_the_same_number() -> None:
    wanted = Heads(32, 32, 128)
    alike, near = Heads(8, 8, 128), Heads(32, 8, 128)
    assert heads_apart("attn_decode", wanted, alike) < heads_apart("attn_decode", wanted, near)
    assert heads_apart("attn_prefill", wanted, near) < heads_apart("attn_prefill", wanted, alike)


@given(new=st.integers(1, 4096), past=st.integers(0, 1 << 17))
def test_without_rows_on_a_past_a_chunk_is_monotone_and_never_below_the_datasheet(
    new: int, past: int
) -> None:
    limit = limit_of(32, 8)
    lengths = (1, 16, 256, 1024, 4096, 16_384)
    points: dict[tuple[float, float], float] = {
        (length, 0): 1e-5 + limit.chunk_s(length, 0) / 0.6 for length in lengths
    }
    grid = chunk_grid(points, limit)
    row = max(i for i, one in enumerate(grid.rows) if one <= new)
    column = max(i for i, one in enumerate(grid.columns) if one <= past)
    here = grid.times[row][column]
    assert here >= limit.chunk_s(grid.rows[row], grid.columns[column])
    assert here <= grid.times[row + 1][column] and here <= grid.times[row][column + 1]


def test_a_few_tokens_on_a_short_past_cost_little_more_than_a_launch() -> None:
    limit = limit_of(32, 8)
    launch_s = 1e-5
    points: dict[tuple[float, float], float] = {
        (length, 0): launch_s + limit.chunk_s(length, 0) / 0.6
        for length in (1, 16, 256, 1024, 4096, 16_384)
    }
    grid = chunk_grid(points, limit)
    at = grid.columns.index(512)
    assert launch_s <= grid.times[1][at] < 3 * launch_s
