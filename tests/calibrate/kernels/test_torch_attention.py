"""Paged attention in plain torch: any mix of sequences, equal to the reference."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrate.kernels.interface import AttentionShape
from calibrate.kernels.torch_cpu import (
    GATHER_TOKENS,
    TorchAttention,
    groups_of_similar_size,
)
from calibrate.kernels.trials import AttentionTrial, Lengths

CPU = torch.device("cpu")
sequences = st.lists(
    st.tuples(st.sampled_from([1, 1, 1, 2, 5, 19]), st.integers(0, 150)), min_size=1, max_size=9
)


@settings(max_examples=40)
@given(sequences, st.sampled_from([(1, 1), (4, 2), (6, 2)]), st.sampled_from([1, 4, 16]))
def test_any_mix_of_sequences_equals_the_reference(
    mix: list[tuple[int, int]], heads: tuple[int, int], block_size: int
) -> None:
    shape = AttentionShape(*heads, 16, block_size, torch.float32, torch.float32)
    lengths = Lengths("drawn", tuple((new, new + past) for new, past in mix))
    trial = AttentionTrial(TorchAttention(), shape, lengths, CPU)
    trial.fill(torch.Generator().manual_seed(len(mix)))
    trial.run()
    assert trial.error() <= trial.limit


@given(st.lists(st.integers(1, 400), max_size=60), st.integers(1, 500), st.integers(0, 50))
def test_groups_hold_every_sequence_once_within_memory_and_padding(
    blocks: list[int], limit: int, padding: int
) -> None:
    groups = list(groups_of_similar_size(blocks, limit, padding))
    assert sorted(index for group in groups for index in group) == list(range(len(blocks)))
    for group in groups:
        sizes = [blocks[index] for index in group]
        padded = max(sizes) * len(sizes)
        assert len(group) == 1 or padded <= limit
        assert padded <= sum(sizes) + padding


def test_groups_of_equal_sequences_are_as_large_as_memory_allows() -> None:
    groups = list(groups_of_similar_size([8] * 40, GATHER_TOKENS["cpu"] // 16, 0))
    assert [len(group) for group in groups] == [16, 16, 8]


def test_a_second_call_reuses_the_scratch_memory_of_a_larger_one() -> None:
    kernel = TorchAttention()
    shape = AttentionShape(4, 2, 16, dtype=torch.float32, kv_dtype=torch.float32)
    large = AttentionTrial(kernel, shape, Lengths("large", ((1, 300),)), CPU)
    small = AttentionTrial(kernel, shape, Lengths("small", ((1, 30),)), CPU)
    generator = torch.Generator().manual_seed(3)
    for trial in (large, small, large):
        trial.fill(generator)
        trial.run()
        assert trial.error() <= trial.limit
    assert small.planned.keys.data_ptr() == large.planned.keys.data_ptr()


def test_heads_that_do_not_divide_are_refused() -> None:
    trial = AttentionTrial(
        TorchAttention(), AttentionShape(6, 4, 16), Lengths("one", ((1, 4),)), CPU
    )
    assert "do not divide" in str(trial.refuses())
