"""Into how many shares a decode's contexts are cut."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

import torch
from hypothesis import given
from hypothesis import strategies as st

from calibrate.kernels.interface import PagedBatch
from calibrate.kernels.triton_decode import (
    H200_SMS,
    MAX_SPLITS,
    PROGRAMS_PER_SM,
    SHARE_STEP,
    choose_splits,
)

SLOTS = H200_SMS * PROGRAMS_PER_SM


def batch(*contexts: int) -> PagedBatch:
    empty = torch.empty(0, dtype=torch.int32)
    return PagedBatch((1,) * len(contexts), contexts, empty, empty, empty)


@given(st.lists(st.integers(1, 200_000), min_size=1, max_size=300), st.sampled_from([1, 2, 8]))
def test_shares_are_never_smaller_than_a_step_nor_too_many(
    contexts: list[int], kv_heads: int
) -> None:
    splits = choose_splits(batch(*contexts), kv_heads, H200_SMS)
    assert 1 <= splits <= min(MAX_SPLITS, -(-max(contexts) // SHARE_STEP))


def test_a_lone_long_context_is_cut_until_the_gpu_is_full() -> None:
    splits = choose_splits(batch(65_536), 8, H200_SMS)
    assert 0.8 * SLOTS <= 8 * splits <= SLOTS


def test_a_batch_that_fills_the_gpu_is_not_cut() -> None:
    assert choose_splits(batch(*[4096] * 128), 8, H200_SMS) == 1


def test_one_long_context_among_short_ones_is_cut_as_if_it_were_nearly_alone() -> None:
    alone = choose_splits(batch(65_536), 8, H200_SMS)
    among = choose_splits(batch(65_536, *[128] * 127), 8, H200_SMS)
    assert alone / 2 <= among <= alone
