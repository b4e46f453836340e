"""Absorbed multi-head latent attention (DeepSeek's MLA): what its kernels are, and a plain one.

After the key projection has been absorbed into the queries, all heads read the same latent
cache, one row per token: a latent part, which is also what is summed, and a rope part
(DeepSeek-V2, arXiv 2405.04434, section 2.1). The batch is the one of paged attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from calibrate.kernels.interface import PagedBatch
from calibrate.kernels.reference import paged_rows, visible


@dataclass(frozen=True, slots=True)
class LatentShape:
    """What is fixed for one layer on one GPU; the sizes are DeepSeek-V2's and V3's."""

    heads: int
    latent_size: int = 512
    rope_size: int = 64
    block_size: int = 64
    dtype: torch.dtype = torch.bfloat16  # of queries and outputs
    kv_dtype: torch.dtype = torch.bfloat16
    head_size: int = 128 + 64  # of a head before absorption, rope part included

    @property
    def row_size(self) -> int:
        """Values of one token in the cache, and of one head of a query."""
        return self.latent_size + self.rope_size

    @property
    def scale(self) -> float:
        """The factor on the logits: that of the heads before absorption."""
        return float(self.head_size**-0.5)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of one token in one layer."""
        return self.row_size * int(self.kv_dtype.itemsize)


class LatentAttention(Protocol):
    """A paged latent attention kernel; ``plan`` and ``run`` are as in ``PagedAttention``."""

    name: str

    def missing(self) -> str | None:
        """Say why this kernel cannot run on this machine; None if it can."""
        ...

    def refuses(self, shape: LatentShape, batch: PagedBatch) -> str | None:
        """Say why this kernel cannot serve such a call; None if it can."""
        ...

    def plan(self, shape: LatentShape, batch: PagedBatch) -> Any:
        """Do the host's work for one call shape."""
        ...

    def run(
        self,
        planned: Any,
        query: torch.Tensor,  # [tokens, heads, latent_size + rope_size]
        latent_cache: torch.Tensor,  # [num_blocks, block_size, latent_size + rope_size]
        out: torch.Tensor,  # [tokens, heads, latent_size]
    ) -> None:
        """Launch: write the attention of every query token into ``out``."""
        ...


class TorchLatent:
    """Latent attention in plain torch, one sequence after the other, in float32."""

    name = "torch"

    def missing(self) -> str | None:
        """Return None: it runs wherever torch does."""
        return None

    def refuses(self, shape: LatentShape, batch: PagedBatch) -> str | None:
        """Return None: it serves every call."""
        return None

    def plan(self, shape: LatentShape, batch: PagedBatch) -> tuple[LatentShape, PagedBatch]:
        """Return the call: there is nothing to prepare."""
        return shape, batch

    def run(
        self,
        planned: tuple[LatentShape, PagedBatch],
        query: torch.Tensor,
        latent_cache: torch.Tensor,
        out: torch.Tensor,
    ) -> None:
        """Write ``softmax(query · rows) @ latent`` of every sequence into ``out``."""
        shape, batch = planned
        first = 0
        for seq, (queries, context) in enumerate(
            zip(batch.query_tokens, batch.context_lens.tolist(), strict=True)
        ):
            rows = paged_rows(latent_cache, batch.block_table[seq], context).float()
            logits = query[first : first + queries].float() @ rows.T * shape.scale
            hidden = ~visible(queries, context, query.device)[:, None, :]
            weights = logits.masked_fill(hidden, -torch.inf).softmax(dim=-1)
            out[first : first + queries] = (weights @ rows[:, : shape.latent_size]).to(out.dtype)
            first += queries
