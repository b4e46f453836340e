"""Blocks of uneven decodes on the slots of a GPU, against a queue followed block by block."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.latency.tables.waves import Waves, parse_waves
from simserve.latency.tables.waves_fit import UnevenCall, fit_waves
from simserve.records.step import PrefillChunk

SLOTS = 64
MOST_ERROR = 0.3  # where many blocks end at the same instant: see the constants of waves.py
contexts = st.lists(st.integers(200, 5000), min_size=4, max_size=120)


def followed(blocks: Sequence[float], heads: int, waves: Waves) -> float:
    """Return the tokens of a queue whose next block goes to the first idle slot."""
    queue = [one + waves.overhead_tokens for _ in range(heads) for one in blocks]
    ends = [0.0] * waves.slots
    for block in queue:
        heapq.heapreplace(ends, ends[0] + block)
    ends.sort()
    taken, before = waves.floor_tokens, 0.0
    for place, end in enumerate(ends):
        busy = len(ends) - place
        taken += (end - before) * max(1.0, busy / waves.full_slots)
        before = end
    return taken


def error(sizes: Sequence[int], heads: int, overhead: float) -> float:
    """Return how far the ratio to even decodes is off, relative to the queue's own."""
    waves = Waves(SLOTS, overhead, 0.4 * SLOTS, 100.0)
    even = followed([sum(sizes) / len(sizes)] * len(sizes), heads, waves)
    truth = followed(sizes, heads, waves) / even
    return abs(waves.decodes(np.array(sizes), heads) / truth - 1)


@settings(max_examples=150)
@given(contexts, st.sampled_from([1, 2, 8]), st.sampled_from([0.0, 64.0]))
def test_uneven_decodes_take_what_a_queue_of_their_blocks_does(
    sizes: list[int], heads: int, overhead: float
) -> None:
    assert error(sizes, heads, overhead) < MOST_ERROR


def test_nearly_all_uneven_decodes_take_just_what_a_queue_of_their_blocks_does() -> None:
    draw = np.random.default_rng(5)
    errors = []
    for _ in range(600):
        count = draw.integers(4, 121)
        some = draw.integers(200, 5001, size=count if draw.random() < 0.5 else 2)
        sizes = draw.choice(some, size=count).tolist()
        errors.append(error(sizes, int(draw.choice([1, 2, 8])), float(draw.choice([0.0, 64.0]))))
    assert np.percentile(errors, 90) < 0.005
    assert np.percentile(errors, 98) < 0.03


@given(st.integers(1, 5000), st.integers(1, 300), st.integers(1, 32))
def test_even_decodes_cost_what_even_ones_do(context: int, count: int, heads: int) -> None:
    waves = Waves(SLOTS, 64.0, 12.0, 500.0)
    each = np.full(count, context)
    assert waves.decodes(each, heads) == 1
    assert waves.mixed(each, (PrefillChunk(100, 0),), heads) == 1
    knots = ((float(count), 1.0),)
    assert waves.decodes(each, heads, knots) == pytest.approx(1)


def test_one_long_context_among_short_ones_takes_longer_than_their_mean() -> None:
    waves = Waves(SLOTS, 0.0, 12.0, 0.0)
    assert waves.decodes(np.array([8000] + [100] * 30), 1) > 2
    beside = (PrefillChunk(64, 0),)
    assert waves.mixed(np.array([8000] + [100] * 30), beside, 1) > 2


def test_between_measured_batches_time_goes_by_rounds_of_blocks() -> None:
    waves = Waves(SLOTS, 0.0, float(SLOTS), 0.0)
    knots = ((64.0, 0.5), (128.0, 0.5))  # lines between say 1.5 rounds
    assert waves.decodes(np.full(96, 1000), 1, knots) == pytest.approx(2 / 1.5)


@pytest.mark.parametrize(
    "value", [None, 3, [1, 2, 3], [0, 1, 1, 1], [1.5, 1, 1, 1], [8, 1, 0, 1], [8, -1, 1, 1]]
)
def test_waves_are_four_numbers_in_their_ranges(value: object) -> None:
    with pytest.raises(ValueError, match="four numbers"):
        parse_waves(value)


def test_waves_come_back_from_what_a_profile_writes() -> None:
    waves = Waves(128, 64.0, 51.2, 500.0)
    assert parse_waves(waves.numbers) == waves


def calls_of(waves: Waves, heads: int, noise: float = 0.0) -> list[UnevenCall]:
    rng = np.random.default_rng(0)
    calls = []
    for _ in range(80):
        count, longest = int(rng.integers(20, 100)), int(rng.integers(500, 6000))
        sizes = np.where(rng.random(count) < 0.3, longest, longest // 6)
        ratio = waves.decodes(sizes, heads) * float(np.exp(noise * rng.standard_normal()))
        calls.append(UnevenCall(sizes, (), ratio))
    return calls


def test_a_fit_finds_the_waves_that_its_calls_come_from() -> None:
    truth = Waves(100, 64.0, 40.0, 500.0)
    found = fit_waves(calls_of(truth, 4, noise=0.01), 4, 100)
    assert found is not None
    assert found.p50_pct < 2 < found.even_p50_pct
    assert found.waves.slots == 100
    assert "40 others err by" in found.told


def test_a_kernel_that_balances_its_load_has_no_waves() -> None:
    rng = np.random.default_rng(1)
    even = [
        UnevenCall(one.contexts, (), float(np.exp(0.01 * rng.standard_normal())))
        for one in calls_of(Waves(100, 64.0, 40.0, 500.0), 4)
    ]
    assert fit_waves(even, 4, 100) is None
    assert fit_waves(even[:10], 4, 100) is None
