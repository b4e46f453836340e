"""Batches between two measured ones: at the same KV, and never out of order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.latency.tables.between_batches import at_equal_sums
from simserve.latency.tables.lines import Lines, through

CONTEXTS = (16, 256, 1024, 4096, 65_536)


def line(times: list[float]) -> Lines:
    """Return seconds by context that go through the origin beyond the last, as tables' do."""
    return through(CONTEXTS, times, times[-1] / CONTEXTS[-1], [""] * (len(times) + 1))


def between(batch: int, fewer: Lines, more: Lines) -> Lines:
    sums, seconds, slope = at_equal_sums(batch, (8, fewer), (32, more))
    return through(sums, seconds, slope, [""] * (len(sums) + 1))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Lines, Lines]:
    """Return two rows that grow with the context, the second nowhere the shorter."""
    steps = st.lists(st.floats(0, 1), min_size=len(CONTEXTS), max_size=len(CONTEXTS))
    fewer, more, low, high = [], [], 0.0, 0.0
    for one, other in zip(draw(steps), draw(steps), strict=True):
        low += one
        high = max(high + other, low)
        fewer.append(low)
        more.append(high)
    return line(fewer), line(more)


def test_what_the_summed_context_decides_alone_is_found_again_across_a_knee() -> None:
    knee = 8 * 4096

    def kernel_s(tokens: float) -> float:
        return 1.0 + max(0.0, tokens - knee) / 1000

    rows = [line([kernel_s(size * context) for context in CONTEXTS]) for size in (8, 32)]
    lines = between(16, *rows)
    for tokens in (knee / 2, knee, 4 * knee):
        assert lines.seconds(tokens) == pytest.approx(kernel_s(tokens))
    flat_s = 2 / 3 * rows[0].seconds(2048) + 1 / 3 * rows[1].seconds(2048)
    assert flat_s > 5 * kernel_s(knee)  # what a line at the same context would have said


@given(pairs(), st.integers(8, 32), st.integers(1, 1_000_000))
def test_times_lie_between_those_of_the_neighbours_with_contexts_of_the_same_length(
    rows: tuple[Lines, Lines], batch: int, context: int
) -> None:
    seconds = between(batch, *rows).seconds(batch * context)
    least, most = (one.seconds(context) for one in rows)
    assert least - 1e-9 <= seconds <= most + 1e-9


@given(pairs(), st.integers(8, 31), st.integers(1, 200_000), st.integers(0, 1000))
def test_more_decodes_or_longer_ones_never_take_less_time(
    rows: tuple[Lines, Lines], batch: int, context: int, more: int
) -> None:
    here = between(batch, *rows)
    seconds = here.seconds(batch * context)
    assert here.seconds(batch * context + more) >= seconds * (1 - 1e-12)
    assert between(batch + 1, *rows).seconds((batch + 1) * context) >= seconds * (1 - 1e-9)


@given(pairs(), st.integers(1, 200_000))
def test_measured_batches_stay_as_they_are(rows: tuple[Lines, Lines], context: int) -> None:
    for size, row in zip((8, 32), rows, strict=True):
        assert between(size, *rows).seconds(size * context) == pytest.approx(row.seconds(context))
