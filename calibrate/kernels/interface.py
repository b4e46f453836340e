"""What a kernel is to the harness and to the reference engine: prepare on the host, then launch.

Both use the very same objects, so that what is measured is what runs. ``plan`` does host work
and may allocate; ``run`` only launches, so that it can be captured in a CUDA graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """What is fixed for one layer on one GPU."""

    heads: int
    kv_heads: int
    head_size: int
    block_size: int = 16
    dtype: torch.dtype = torch.bfloat16  # of queries and outputs
    kv_dtype: torch.dtype = torch.bfloat16

    @property
    def scale(self) -> float:
        """The factor on the logits."""
        return float(self.head_size**-0.5)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values of one token in one layer."""
        return 2 * self.kv_heads * self.head_size * int(self.kv_dtype.itemsize)


@dataclass(frozen=True, slots=True)
class PagedBatch:
    """The sequences of one attention call, packed one after the other.

    Sequence ``i`` has ``query_tokens[i]`` new tokens, the last of ``context_tokens[i]`` tokens
    whose keys and values are in the blocks ``block_table[i]``. A decode has one query token.
    The tuples are the host's copy of the tensors. A padding row has one query token, one
    context token and points to block 0.
    """

    query_tokens: tuple[int, ...]
    context_tokens: tuple[int, ...]  # this call's tokens included
    query_start: torch.Tensor  # int32[seqs + 1], on the device
    context_lens: torch.Tensor  # int32[seqs], on the device
    block_table: torch.Tensor  # int32[seqs, max_blocks], on the device

    @property
    def seqs(self) -> int:
        """Sequences in the call."""
        return len(self.query_tokens)

    @property
    def tokens(self) -> int:
        """Rows of the packed queries."""
        return sum(self.query_tokens)


class PagedAttention(Protocol):
    """A paged attention kernel: causal, grouped query heads, any mix of prefill and decode."""

    name: str

    def missing(self) -> str | None:
        """Say why this kernel cannot run on this machine; None if it can."""
        ...

    def refuses(self, shape: AttentionShape, batch: PagedBatch) -> str | None:
        """Say why this kernel cannot serve such a call; None if it can."""
        ...

    def plan(self, shape: AttentionShape, batch: PagedBatch) -> Any:
        """Do the host's work for one call shape: scheduler metadata, workspaces, splits.

        A CUDA graph captured with the result may be replayed after the *contents* of
        ``batch``'s tensors changed, within the ``max`` of the planned context lengths;
        after ``replan``, where the kernel has it.
        """
        ...

    def run(
        self,
        planned: Any,
        query: torch.Tensor,  # [tokens, heads, head_size]
        key_cache: torch.Tensor,  # [num_blocks, block_size, kv_heads, head_size]
        value_cache: torch.Tensor,
        out: torch.Tensor,  # [tokens, heads, head_size]
    ) -> None:
        """Launch: write the attention of every query token into ``out``."""
        ...


@runtime_checkable
class Replanned(Protocol):
    """An attention kernel that divides its work by the lengths before it is launched.

    A graph is captured for the longest contexts. ``replan`` before a replay divides the work as
    ``plan`` would for the lengths of the day: so what an engine replays is what is measured. A
    kernel without it decides on the device, or by the number of sequences alone.
    """

    def replan(self, planned: Any, batch: PagedBatch) -> None:
        """Plan anew, in place, for lengths that changed; outside a graph."""
        ...


@runtime_checkable
class SometimesReplayable(Protocol):
    """A kernel of which some captured calls are of no use with other lengths."""

    def replayable(self, batch: PagedBatch) -> bool:
        """Tell whether a graph of such a call may be replayed with other lengths."""
        ...


def replayable(kernel: object, batch: PagedBatch) -> bool:
    """Tell whether a captured call may be replayed with other lengths; a kernel may say no."""
    return not isinstance(kernel, SometimesReplayable) or kernel.replayable(batch)


def replan(kernel: object, planned: Any, batch: PagedBatch) -> None:
    """Bring the plan of a graph up to date, if the kernel wants that."""
    if isinstance(kernel, Replanned) and replayable(kernel, batch):
        kernel.replan(planned, batch)


class Gemm(Protocol):
    """A matrix product ``x @ weight.T`` of one weight format."""

    name: str  # the backend, as in a profile's table: 'cublaslt', 'scaled-mm', 'torch-cpu' …
    dtype: str  # as in a profile's table: 'bf16', 'fp8', 'int8', 'awq', 'fp32'

    def missing(self) -> str | None:
        """Say why this kernel cannot run on this machine; None if it can."""
        ...

    def refuses(self, m: int, n: int, k: int) -> str | None:
        """Say why this kernel cannot serve such a shape; None if it can."""
        ...

    def pack(self, weight: torch.Tensor) -> Any:
        """Turn a ``[N, K]`` weight of the compute dtype into the kernel's own format."""
        ...

    def pack_input(self, x: torch.Tensor) -> Any:
        """Turn ``[M, K]`` activations into what ``run`` reads (quantised, if it must be)."""
        ...

    def run(self, x: Any, weight: Any, out: torch.Tensor) -> None:
        """Launch: write ``[M, N]`` into ``out``."""
        ...


@dataclass(frozen=True, slots=True)
class PointwiseCase:
    """One small kernel at one size, ready to launch again and again.

    ``buffers`` counts the rotating copies; ``run(i)`` works on copy ``i``. ``bytes_moved`` is
    read plus written for one call.
    """

    op: str  # as in pointwise.csv: norm, rope_store, qk_norm, act, embed, sample …
    tokens: int
    width: int
    bytes_moved: int
