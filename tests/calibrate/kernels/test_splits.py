"""Into how many shares a decode's contexts are cut: by the number of sequences alone."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

import torch
from hypothesis import given
from hypothesis import strategies as st

from calibrate.kernels.interface import AttentionShape, PagedBatch
from calibrate.kernels.triton_decode import (
    H200_SMS,
    MAX_SPLITS,
    PROGRAMS_PER_SM,
    choose_splits,
    plan_decode,
)

SLOTS = H200_SMS * PROGRAMS_PER_SM
CONTEXTS = st.lists(st.integers(1, 200_000), min_size=1, max_size=300)


def batch(*contexts: int, chunk: int = 0) -> PagedBatch:
    empty = torch.empty(0, dtype=torch.int32)
    new = (1,) * len(contexts) + (chunk,) * (chunk > 0)
    return PagedBatch(new, (*contexts, *(chunk,) * (chunk > 0)), empty, empty, empty)


@given(st.integers(1, 300), st.sampled_from([1, 2, 8]))
def test_there_is_always_a_number_of_shares_that_fills_the_gpu_well(
    decodes: int, kv_heads: int
) -> None:
    splits = choose_splits(decodes, kv_heads, H200_SMS)
    assert 1 <= splits <= MAX_SPLITS
    programs = decodes * kv_heads * splits
    waves = -(-programs // SLOTS)
    most = min(SLOTS, decodes * kv_heads * MAX_SPLITS)
    assert programs / (waves * SLOTS) >= 0.8 * most / SLOTS


@given(CONTEXTS, st.integers(1, 300_000))
def test_a_table_row_launches_the_grid_that_an_engine_captures_for_its_longest_context(
    contexts: list[int], longest: int
) -> None:
    shape = AttentionShape(8, 2, 64)
    measured = plan_decode(shape, batch(*contexts))
    captured = plan_decode(shape, batch(*[max(longest, *contexts)] * len(contexts)))
    assert measured.splits == captured.splits
    assert measured.partial.shape == captured.partial.shape


def test_a_lone_context_is_cut_until_the_gpu_is_full() -> None:
    assert 0.8 * SLOTS <= 8 * choose_splits(1, 8, H200_SMS) <= SLOTS


def test_a_batch_that_fills_the_gpu_is_not_cut() -> None:
    assert choose_splits(128, 8, H200_SMS) == 1


def test_a_chunk_beside_decodes_takes_no_memory_for_shares() -> None:
    """Gigabytes, if there were room for the shares of every token."""
    shape = AttentionShape(32, 8, 128)
    assert plan_decode(shape, batch(500, chunk=8192)).partial.nbytes < 2**22
