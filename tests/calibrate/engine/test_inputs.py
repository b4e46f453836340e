"""The lists of a step: every token finds its cache slot."""

from __future__ import annotations

from itertools import pairwise

import pytest

pytest.importorskip("torch")

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from calibrate.engine.blocks import BlockTables
from calibrate.engine.inputs import (
    DeviceInputs,
    HostStep,
    Layout,
    device_inputs,
    fill,
    order_of,
    token_ids,
)
from calibrate.engine.warm_up import tables_of
from simserve.policy.scheduler import Scheduled
from tests.calibrate.engine.small import LIMITS

BUFFER_WORDS = 4096


def filled(
    entries: list[Scheduled], tables: BlockTables, padded: int | None = None
) -> tuple[HostStep, DeviceInputs]:
    staging = torch.zeros(BUFFER_WORDS, dtype=torch.int32)
    host = fill(staging.numpy(), entries, tables, 120, padded)
    return host, device_inputs(staging, host.layout)


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 60)), min_size=1, max_size=6))
def test_every_token_is_stored_where_its_block_table_says(
    chunks: list[tuple[int, int]],
) -> None:
    tables = tables_of(LIMITS, [new + past for new, past in chunks])
    entries = [Scheduled(i, new, past, False) for i, (new, past) in enumerate(chunks)]
    host, inputs = filled(entries, tables)
    row = 0
    for seq, (new, past) in enumerate(chunks):
        blocks = tables.blocks_of(seq)
        for position in range(past, past + new):
            slot = int(inputs.cache_slots[row])
            assert int(inputs.positions[row]) == position
            assert (slot // 8, slot % 8) == (blocks[position // 8], position % 8)
            row += 1
        assert int(inputs.last_rows[seq]) == row - 1
        assert inputs.block_table[seq, : len(blocks)].tolist() == blocks
    assert host.context_tokens == tuple(new + past for new, past in chunks)
    assert inputs.query_start.tolist() == [0, *np.cumsum([new for new, _ in chunks]).tolist()]
    assert inputs.context_lens.tolist() == list(host.context_tokens)


def test_padding_rows_are_one_token_at_block_zero() -> None:
    tables = tables_of(LIMITS, [30, 5, 9])
    entries = [Scheduled(i, 1, past - 1, True) for i, past in enumerate((30, 5, 9))]
    host, inputs = filled(entries, tables, padded=8)
    assert host.real_seqs == 3
    assert host.query_tokens == (1,) * 8
    assert inputs.context_lens.tolist() == [30, 5, 9, 1, 1, 1, 1, 1]
    assert inputs.cache_slots[3:].tolist() == [0] * 5
    assert not inputs.block_table[3:].any()


def test_decodes_are_packed_before_chunks_else_in_their_order() -> None:
    entries = [Scheduled(4, 7, 0, False), Scheduled(2, 1, 9, True), Scheduled(9, 1, 3, False)]
    entries.append(Scheduled(0, 1, 5, True))
    assert [entry.request for entry in order_of(entries)] == [2, 0, 4, 9]


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 64))
def test_lists_neither_overlap_nor_break_their_alignment(
    tokens: int, seqs: int, width: int
) -> None:
    layout = Layout(tokens, seqs, width)
    places = list(layout.places().values())
    assert all(place.start % 4 == 0 for place in places)
    assert all(one.stop <= other.start for one, other in pairwise(places))
    assert layout.length == places[-1].stop


def test_forced_tokens_depend_on_request_and_position_alone() -> None:
    positions = np.arange(2000)
    first = token_ids(np.full(2000, 3), positions, 120)
    assert (first[500:600] == token_ids(np.full(100, 3), positions[500:600], 120)).all()
    assert first.min() >= 0
    assert first.max() < 120
    assert len(set(first.tolist())) == 120  # all of the vocabulary
    other = token_ids(np.full(2000, 4), positions, 120)
    assert (first == other).mean() < 0.05
