"""What the device must know of a step: seven lists of integers in one buffer, sent in one copy.

Rows lie packed: decodes first, then chunks, as the simulator's tables were measured. A batch
that is padded to a graph's size has rows of one token at block 0 behind its real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch

from calibrate.engine.blocks import BlockTables
from simserve.policy.scheduler import Scheduled

Int32 = npt.NDArray[np.int32]
IntArray = npt.NDArray[np.int64]
# Every list starts at a multiple of this many int32: 16-byte loads.
_ALIGN = 4
_WIDE = ("token_ids", "positions", "cache_slots", "last_rows")
"""The lists of int64, as the kernels want them; the others are int32."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the lists of a step of ``tokens`` tokens and ``seqs`` sequences lie in the buffer."""

    tokens: int
    seqs: int
    width: int  # of a block table

    def places(self) -> dict[str, slice]:
        """Return the place of every list, in int32."""
        sizes = {
            "token_ids": 2 * self.tokens,
            "positions": 2 * self.tokens,
            "cache_slots": 2 * self.tokens,
            "last_rows": 2 * self.seqs,
            "query_start": self.seqs + 1,
            "context_lens": self.seqs,
            "block_table": self.seqs * self.width,
        }
        starts = accumulate((-(-size // _ALIGN) * _ALIGN for size in sizes.values()), initial=0)
        return {
            name: slice(start, start + size)
            for (name, size), start in zip(sizes.items(), starts, strict=False)
        }

    @property
    def length(self) -> int:
        """Values of int32 in the buffer."""
        return int(self.places()["block_table"].stop)


@dataclass(frozen=True, slots=True)
class DeviceInputs:
    """A step's lists on the device, as views of one buffer."""

    token_ids: torch.Tensor  # int64[tokens]
    positions: torch.Tensor  # int64[tokens]
    cache_slots: torch.Tensor  # int64[tokens]: block id times block size, plus the place in it
    last_rows: torch.Tensor  # int64[seqs]: the row of each sequence that reaches the LM head
    query_start: torch.Tensor  # int32[seqs + 1]
    context_lens: torch.Tensor  # int32[seqs]
    block_table: torch.Tensor  # int32[seqs, width]


def device_inputs(buffer: torch.Tensor, layout: Layout) -> DeviceInputs:
    """Return the lists as views of ``buffer``, ``int32[at least layout.length]``."""
    views = {
        name: buffer[place].view(torch.int64) if name in _WIDE else buffer[place]
        for name, place in layout.places().items()
    }
    views["block_table"] = views["block_table"].view(layout.seqs, layout.width)
    return DeviceInputs(**views)


@dataclass(frozen=True, slots=True)
class HostStep:
    """The sequences of a step in the order of their rows: the real ones, then padding."""

    query_tokens: tuple[int, ...]
    context_tokens: tuple[int, ...]
    layout: Layout
    real_seqs: int


def order_of(scheduled: Sequence[Scheduled]) -> list[Scheduled]:
    """Return the entries of a step as they are packed: decodes first, else the given order."""
    decodes = [entry for entry in scheduled if entry.decode]
    return decodes + [entry for entry in scheduled if not entry.decode]


def fill(
    target: Int32,
    entries: Sequence[Scheduled],
    blocks: BlockTables,
    vocab_size: int,
    padded_seqs: int | None = None,
) -> HostStep:
    """Write a step's lists into ``target`` and return its shape.

    ``padded_seqs`` is the size of the graph that a batch of decodes is padded to.
    """
    real = len(entries)
    padding = max(0, (padded_seqs or real) - real)
    seqs = real + padding
    request, new, past = (
        np.array([entry[i] for entry in entries] + [fill_in] * padding, np.int64)
        for i, fill_in in enumerate((0, 1, 0))
    )
    rows = np.array([blocks.row(entry.request) for entry in entries] + [0] * padding, np.int64)
    ends = np.cumsum(new)
    layout = Layout(int(ends[-1]), seqs, blocks.width)
    position = np.arange(layout.tokens) + np.repeat(past - (ends - new), new)
    size = blocks.block_size
    block = blocks.table[np.repeat(rows, new), position // size]
    values = {
        "token_ids": token_ids(np.repeat(request, new), position, vocab_size),
        "positions": position,
        "cache_slots": block.astype(np.int64) * size + position % size,
        "last_rows": ends - 1,
        "query_start": np.append(0, ends),
        "context_lens": past + new,
        "block_table": blocks.table[rows].ravel(),
    }
    for name, place in layout.places().items():
        lies = target[place]
        (lies.view(np.int64) if name in _WIDE else lies)[:] = values[name]
    return HostStep(tuple(new.tolist()), tuple((past + new).tolist()), layout, real)


# Odd constants of a multiplicative hash (Knuth, The Art of Computer Programming 3, 6.4).
_MIX_REQUEST, _MIX_POSITION, _MIX_END = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
_MASK, _SHIFT = 0xFFFFFFFF, 15


def token_ids(request: IntArray, position: IntArray, vocab_size: int) -> IntArray:
    """Return the forced tokens of requests at positions: random, but always the same.

    A step samples as an engine does, but the next token does not depend on it: random
    weights would repeat one token for ever, and a recomputed prefix must be the same again.
    """
    mixed = (request + 1) * _MIX_REQUEST + position * _MIX_POSITION & _MASK
    mixed = (mixed ^ (mixed >> _SHIFT)) * _MIX_END & _MASK
    return np.asarray((mixed ^ (mixed >> _SHIFT)) % vocab_size, np.int64)
