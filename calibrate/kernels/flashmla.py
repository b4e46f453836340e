"""FlashMLA's dense decode, as vLLM ships it: absorbed latent attention for Hopper.

The call is that of vLLM 0.26.0 (third_party/flashmla/flash_mla_interface.py): the first call of
a step makes the tile schedule from the context lengths, all layers then share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch

from calibrate.kernels.interface import PagedBatch
from calibrate.kernels.latent import LatentShape
from calibrate.kernels.libraries import FLASH_MLA

_BLOCK_SIZE: Final = 64  # FlashMLABackend.get_supported_kernel_block_sizes
_SIZES: Final = (512, 64)  # latent and rope: head_dim 576, head_dim_v 512


@dataclass(frozen=True, slots=True)
class Planned:
    """The call and its tile schedule."""

    shape: LatentShape
    batch: PagedBatch
    tiles: torch.Tensor  # int32[parts, 8]: tile_scheduler_metadata
    splits: torch.Tensor  # int32[seqs + 1]: num_splits


class FlashMla:
    """Dense decode: every sequence has the same, small number of queries."""

    name = "flashmla"

    def __init__(self, ops: Any = None) -> None:
        self._given = ops

    def missing(self) -> str | None:
        """Say why the operator cannot be used on this machine; None if it can."""
        return None if self._given else FLASH_MLA.missing()

    def refuses(self, shape: LatentShape, batch: PagedBatch) -> str | None:
        """Say why such a call cannot be served; None if it can."""
        if (shape.latent_size, shape.rope_size) != _SIZES:
            return (
                f"latent and rope sizes are 512 and 64, not {shape.latent_size}, {shape.rope_size}"
            )
        if shape.block_size != _BLOCK_SIZE:
            return f"block size is {_BLOCK_SIZE}, not {shape.block_size}"
        if shape.dtype not in (torch.bfloat16, torch.float16) or shape.kv_dtype != shape.dtype:
            return "queries and cache are bf16, or both fp16"
        if len(set(batch.query_tokens)) != 1:
            return "every sequence has the same number of queries"
        return None

    def plan(self, shape: LatentShape, batch: PagedBatch) -> Planned:
        """Make the tile schedule."""
        return Planned(shape, batch, *self._schedule(shape, batch))

    def replan(self, planned: Planned, batch: PagedBatch) -> None:
        """Make the schedule anew, in place, for lengths that changed; outside a graph.

        A graph captured with the plan needs this before a replay with other lengths: the
        schedule says which blocks are read.
        """
        tiles, splits = self._schedule(planned.shape, batch)
        planned.tiles.copy_(tiles, non_blocking=True)
        planned.splits.copy_(splits, non_blocking=True)

    def run(
        self,
        planned: Planned,
        query: torch.Tensor,
        latent_cache: torch.Tensor,
        out: torch.Tensor,
    ) -> None:
        """Launch one call."""
        batch = planned.batch
        self._launch(
            planned.shape,
            batch,
            query.view(batch.seqs, -1, *query.shape[1:]),
            latent_cache.unsqueeze(-2),
            batch.block_table,
            (planned.tiles, planned.splits),
            out.view(batch.seqs, -1, *out.shape[1:]),
        )

    def _schedule(self, shape: LatentShape, batch: PagedBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tiles and splits, from a first call on one block of zeros.

        The schedule depends on the lengths and on the heads, not on what is read.
        """
        device = batch.context_lens.device
        per_seq = batch.query_tokens[0]
        query = torch.zeros(
            batch.seqs, per_seq, shape.heads, shape.row_size, dtype=shape.dtype, device=device
        )
        cache = torch.zeros(
            1, shape.block_size, 1, shape.row_size, dtype=shape.kv_dtype, device=device
        )
        table = torch.zeros_like(batch.block_table)
        _, _, tiles, splits = self._launch(shape, batch, query, cache, table, (None, None), None)
        return tiles, splits

    def _launch(
        self,
        shape: LatentShape,
        batch: PagedBatch,
        query: torch.Tensor,
        cache: torch.Tensor,
        table: torch.Tensor,
        schedule: tuple[torch.Tensor | None, torch.Tensor | None],
        out: torch.Tensor | None,
    ) -> Any:
        ops = self._given or FLASH_MLA.ops()
        return ops.dense_decode_fwd(
            query,
            cache,
            shape.latent_size,
            batch.context_lens,
            table,
            shape.scale,
            True,  # causal
            *schedule,
            out,
        )
