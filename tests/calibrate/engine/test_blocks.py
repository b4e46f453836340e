"""Block tables: what the scheduler counts, with ids."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from hypothesis import given
from hypothesis import strategies as st

from calibrate.engine.blocks import BlockCountError, BlockTables
from simserve.errors import InputError
from simserve.policy.scheduler import Admission, Scheduled
from tests.calibrate.engine.small import LIMITS, with_limits


def come(request: int) -> Admission:
    return Admission(request, 0, False)


def grow(request: int, to: int) -> Scheduled:
    return Scheduled(request, to, 0, False)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 60), st.booleans()), max_size=60))
def test_no_block_ever_belongs_to_two_requests(moves: list[tuple[int, int, bool]]) -> None:
    tables = BlockTables(LIMITS)
    tokens: dict[int, int] = {}
    for request, more, leaves in moves:
        admitted = [] if request in tokens else [come(request)]
        total = tokens.get(request, 0) + more
        held = {other: -(-many // 8) for other, many in {**tokens, request: total}.items()}
        if sum(held.values()) > LIMITS.usable_blocks or total > LIMITS.max_model_len:
            continue
        tokens[request] = total
        tables.apply(admitted, [], [grow(request, total)], 100 - sum(held.values()))
        if leaves:
            del tokens[request]
            tables.finish([request], 100 - sum(held.values()) + held[request])
        blocks = [block for one in tokens for block in tables.blocks_of(one)]
        assert len(blocks) == len(set(blocks)) == 100 - tables.free_blocks
        assert all(1 <= block <= 100 for block in blocks)
        assert [len(tables.blocks_of(one)) for one in tokens] == [
            -(-many // 8) for many in tokens.values()
        ]


def test_requests_keep_their_blocks_when_they_grow() -> None:
    tables = BlockTables(LIMITS)
    tables.apply([come(3)], [], [grow(3, 20)], 97)
    before = tables.blocks_of(3)
    tables.apply([], [], [grow(3, 41)], 94)
    assert tables.blocks_of(3)[:3] == before


def test_preempted_requests_give_everything_back() -> None:
    tables = BlockTables(LIMITS)
    tables.apply([come(0), come(1)], [], [grow(0, 80), grow(1, 8)], 89)
    tables.apply([], [0], [grow(1, 9)], 98)
    with pytest.raises(KeyError):
        tables.row(0)
    tables.finish([0, 1], 100)  # the last token of a preempted request may still come


def test_padding_rows_point_to_block_zero_whatever_happens() -> None:
    tables = BlockTables(LIMITS)
    for request in range(6):
        tables.apply([come(request)], [], [grow(request, 100)], 100 - 13 * (request + 1))
    assert not tables.table[0].any()
    assert all(tables.row(request) > 0 for request in range(6))


def test_a_count_that_differs_from_the_schedulers_is_an_error() -> None:
    tables = BlockTables(LIMITS)
    with pytest.raises(BlockCountError, match="99 of 100 blocks are free, the scheduler counts 98"):
        tables.apply([come(0)], [], [grow(0, 8)], 98)


def test_more_blocks_than_there_are_is_an_error() -> None:
    tables = BlockTables(with_limits(num_blocks=3))
    with pytest.raises(BlockCountError, match="none is free"):
        tables.apply([come(0)], [], [grow(0, 17)], 0)


def test_prefix_caching_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"enable_prefix_caching: got True, allowed: False"):
        BlockTables(with_limits(enable_prefix_caching=True))


def test_shared_tokens_are_refused() -> None:
    tables = BlockTables(LIMITS)
    with pytest.raises(BlockCountError, match="shares 16 cached tokens"):
        tables.apply([Admission(0, 16, False)], [], [grow(0, 17)], 97)
