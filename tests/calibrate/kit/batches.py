"""Random paged batches, and caches full of numbers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from hypothesis import strategies as st

from calibrate.kernels.interface import PagedBatch


@dataclass(frozen=True)
class Lengths:
    """New and context tokens of every sequence."""

    new: tuple[int, ...]
    contexts: tuple[int, ...]


def lengths(new: st.SearchStrategy[int], most: int = 5) -> st.SearchStrategy[Lengths]:
    """Draw up to ``most`` sequences; the decodes lead, as engines order them."""
    sequence = st.tuples(new, st.integers(0, 40))

    def ordered(drawn: list[tuple[int, int]]) -> Lengths:
        drawn.sort(key=lambda each: each[0] > 1)
        return Lengths(tuple(new for new, _ in drawn), tuple(new + past for new, past in drawn))

    return st.lists(sequence, min_size=1, max_size=most).map(ordered)


def paged(lengths: Lengths, block_size: int, seed: int = 0) -> tuple[PagedBatch, int]:
    """Return a batch with shuffled blocks, and how many blocks its cache has."""
    counts = [-(-context // block_size) for context in lengths.contexts]
    order = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(seed)) + 1
    table = torch.zeros(len(counts), max(counts) + 1, dtype=torch.int32)
    for row, ids in enumerate(torch.split(order.int(), counts)):
        table[row, : len(ids)] = ids
    starts = [0, *itertools.accumulate(lengths.new)]
    batch = PagedBatch(
        lengths.new,
        lengths.contexts,
        torch.tensor(starts, dtype=torch.int32),
        torch.tensor(lengths.contexts, dtype=torch.int32),
        table,
    )
    return batch, sum(counts) + 1


def numbers(*shape: int, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> torch.Tensor:
    """Return normally distributed numbers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(dtype)
