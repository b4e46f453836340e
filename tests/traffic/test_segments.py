"""Shared prefixes: the vectorised count against token lists compared one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.records.requests import RequestTable, SegmentTable
from simserve.traffic.segments import (
    infinite_cache_hit_frac,
    reordered,
    reusable_tokens,
    segments_of_blocks,
    shared_prefix_tokens,
)

Prompt = list[tuple[int, int]]


def table_of(prompts: list[Prompt], outputs: list[tuple[int, int]] | None = None) -> RequestTable:
    """Return requests with these (segment, tokens) prompts and (segment, tokens) outputs."""
    entries = [entry for prompt in prompts for entry in prompt]
    segments = SegmentTable(
        offsets=np.cumsum([0, *map(len, prompts)]),
        segment=np.array([segment for segment, _ in entries]),
        tokens=np.array([tokens for _, tokens in entries]),
    )
    lengths = [sum(tokens for _, tokens in prompt) for prompt in prompts]
    return RequestTable(
        arrival_ps=np.zeros(len(prompts), dtype=np.int64),
        prompt_tokens=np.array(lengths),
        output_tokens=np.array([tokens for _, tokens in outputs or [(0, 1)] * len(prompts)]),
        segments=segments,
        output_segment=None if outputs is None else np.array([segment for segment, _ in outputs]),
    )


def tokens_of(prompt: Prompt) -> list[tuple[int, int]]:
    return [(segment, k) for segment, tokens in prompt for k in range(tokens)]


def agreement(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> int:
    differs = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differs, min(len(one), len(other)))


entries = st.tuples(st.integers(0, 2), st.integers(1, 4))
requests = st.lists(
    st.tuples(st.lists(entries, min_size=1, max_size=4), entries), min_size=1, max_size=8
)


@settings(max_examples=300)
@given(requests, st.booleans())
def test_shared_prefix_is_the_longest_agreement_of_tokens_with_an_earlier_request(
    drawn: list[tuple[Prompt, tuple[int, int]]], outputs_repeat: bool
) -> None:
    prompts = [prompt for prompt, _ in drawn]
    table = table_of(prompts, [output for _, output in drawn] if outputs_repeat else None)
    seen: list[list[tuple[int, int]]] = [[]]
    expected = []
    for prompt, output in drawn:
        expected.append(max(agreement(tokens_of(prompt), earlier) for earlier in seen))
        seen.append(tokens_of([*prompt, output] if outputs_repeat else prompt))
    assert shared_prefix_tokens(table).tolist() == expected


def test_prompts_without_segments_share_nothing() -> None:
    plain = RequestTable(
        arrival_ps=np.zeros(2, dtype=np.int64),
        prompt_tokens=np.array([5, 5]),
        output_tokens=np.array([1, 1]),
    )
    assert shared_prefix_tokens(plain).tolist() == [0, 0]
    assert infinite_cache_hit_frac(plain, 16) == 0


def test_rest_of_a_prompt_counts_as_a_block_in_the_hit_share() -> None:
    table = table_of([[(0, 40)], [(0, 40)], [(0, 39)], [(1, 40)]])
    # Blocks of 16: 3 each. The second prompt repeats all three, and so does the third.
    assert infinite_cache_hit_frac(table, 16) == 6 / 12


def test_block_that_is_partly_shared_is_no_hit() -> None:
    table = table_of([[(0, 40)], [(0, 31), (1, 9)]])
    assert infinite_cache_hit_frac(table, 16) == 1 / 6


def test_reusable_tokens_are_full_blocks_and_never_the_last_token() -> None:
    table = table_of([[(0, 48)], [(0, 48)], [(0, 47)], [(0, 49)], [(0, 16)], [(0, 17)]])
    assert reusable_tokens(table, 16).tolist() == [0, 32, 32, 48, 0, 16]


def test_later_turn_reuses_what_the_earlier_one_generated() -> None:
    turns = table_of([[(0, 20)], [(0, 20), (9, 12), (1, 8)]], [(9, 12), (10, 5)])
    assert reusable_tokens(turns, 16).tolist() == [0, 32]


def test_blocks_cover_each_prompt_with_a_rest_at_its_end() -> None:
    table = segments_of_blocks(
        np.array([40, 16, 5]), np.array([3, 1, 1]), np.array([0, 1, 2, 0, 3]), 16
    )
    assert table is not None
    assert table.offsets.tolist() == [0, 3, 4, 5]
    assert table.tokens.tolist() == [16, 16, 8, 16, 5]


def test_no_ids_at_all_make_no_table() -> None:
    none = np.empty(0, dtype=np.int64)
    assert segments_of_blocks(np.array([40]), np.array([0]), none, 16) is None


@given(requests, st.randoms(use_true_random=False))
def test_reordering_keeps_every_request_with_its_own_segments(
    drawn: list[tuple[Prompt, tuple[int, int]]], random: np.random.Generator
) -> None:
    prompts = [prompt for prompt, _ in drawn]
    order = np.arange(len(prompts))
    random.shuffle(order)
    before, after = table_of(prompts).segments, table_of([prompts[i] for i in order]).segments
    assert before is not None
    assert after is not None
    moved = reordered(before, order)
    for name in ("offsets", "segment", "tokens"):
        np.testing.assert_array_equal(getattr(moved, name), getattr(after, name))


def test_many_entries_are_counted_without_a_walk_in_python() -> None:
    blocks, sharers = 200, 500
    prompts = [[*((k, 16) for k in range(blocks)), (blocks + i, 1)] for i in range(sharers)]
    assert shared_prefix_tokens(table_of(prompts)).sum() == (sharers - 1) * blocks * 16


@pytest.mark.parametrize("block_tokens", [1, 16, 512])
def test_hit_share_of_equal_prompts_is_all_but_the_first(block_tokens: int) -> None:
    table = table_of([[(0, 100), (1, 20)]] * 10)
    assert infinite_cache_hit_frac(table, block_tokens) == pytest.approx(0.9)
