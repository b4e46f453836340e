"""FlashAttention-3 as vLLM ships it: one variable-length call, whatever the batch is.

The calls are those of vLLM 0.26.0 (vllm_flash_attn/flash_attn_interface.py and
v1/attention/backends/flash_attn.py, mla/flashattn_mla.py): causal, paged, with scheduler
metadata that is made once for all layers of a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch

from calibrate.kernels.interface import AttentionShape, PagedBatch
from calibrate.kernels.latent import LatentShape
from calibrate.kernels.libraries import FLASH_ATTENTION_3

# vLLM 0.26.0: flash_attn_max_num_splits_for_cuda_graph (config/attention.py), used for steps of
# up to max_cudagraph_capture_size tokens, 512 by default; 0 leaves it to FA3's heuristic.
GRAPH_SPLITS: Final = 32
MOST_GRAPH_TOKENS: Final = 512

_FP8: Final = torch.float8_e4m3fn
_LARGEST_HEAD: Final = 256
_HEAD_MULTIPLE: Final = 8
_LATENT_SIZES: Final = (512, 64)
_BLOCK_MULTIPLE: Final = 16  # FlashAttentionBackend.get_kv_cache_shape

# Arguments of the operator that a causal, paged call without new keys leaves alone.
_UNUSED: Final[dict[str, Any]] = {
    "k_new": None,
    "v_new": None,
    "cu_seqlens_k": None,
    "cu_seqlens_k_new": None,
    "seqused_q": None,
    "kv_batch_idx": None,
    "leftpad_k": None,
    "rotary_cos": None,
    "rotary_sin": None,
    "seqlens_rotary": None,
    "is_causal": True,
    "window_size_left": -1,
    "window_size_right": -1,
    "softcap": 0.0,
    "is_rotary_interleaved": True,
    "pack_gqa": None,
    "sm_margin": 0,
    "s_aux": None,
    "cp_world_size": 1,
    "cp_rank": 0,
    "cp_tot_seqused_k": None,
}
_UNUSED_IN_SCHEDULE: Final[dict[str, Any]] = {
    "cu_seqlens_k": None,
    "cu_seqlens_k_new": None,
    "seqused_q": None,
    "leftpad_k": None,
    "max_seqlen_k_new": 0,
    "is_causal": True,
    "window_size_left": -1,
    "window_size_right": -1,
    "has_softcap": False,
    "pack_gqa": None,
    "sm_margin": 0,
}


@dataclass(frozen=True, slots=True)
class _Heads:
    """What the scheduler wants to know about the heads."""

    num_heads: int
    num_heads_k: int
    headdim: int
    headdim_v: int
    page_size: int
    qkv_dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Planned:
    """A call, ready but for the tensors of the layer."""

    batch: PagedBatch
    heads: _Heads
    scale: float
    max_query: int
    max_context: int
    splits: int
    metadata: torch.Tensor  # int32, FA3's own layout
    descale: torch.Tensor | None  # float32[seqs, kv_heads] for an fp8 cache
    query: torch.Tensor | None  # fp8[tokens, heads, head_size] for an fp8 cache


class _Varlen:
    """The two operators, and the arguments that both layouts share."""

    name = "fa3"

    def __init__(self, ops: Any = None) -> None:
        self._given = ops

    def missing(self) -> str | None:
        """Say why the operators cannot be used on this machine; None if they can."""
        return None if self._given else FLASH_ATTENTION_3.missing()

    def replan(self, planned: Planned, batch: PagedBatch) -> None:
        """Make the metadata anew, in place, for lengths that changed; outside a graph.

        vLLM does so once a step. A graph that was captured with the plan stays right without,
        but splits the keys as the planned lengths wanted it. Query lengths stay as planned.
        """
        fresh = self._schedule(batch, planned.heads, planned.splits)
        planned.metadata.copy_(fresh, non_blocking=True)

    @property
    def _ops(self) -> Any:
        return self._given or FLASH_ATTENTION_3.ops()

    def _plan(
        self, batch: PagedBatch, heads: _Heads, scale: float, query_dtype: torch.dtype
    ) -> Planned:
        splits = GRAPH_SPLITS if batch.tokens <= MOST_GRAPH_TOKENS else 0
        device = batch.context_lens.device
        is_fp8, descale, query = heads.qkv_dtype == _FP8, None, None
        if is_fp8:
            descale = torch.ones(batch.seqs, heads.num_heads_k, device=device)
        if is_fp8 and query_dtype != _FP8:
            size = (batch.tokens, heads.num_heads, heads.headdim)
            query = torch.empty(size, dtype=_FP8, device=device)
        return Planned(
            batch=batch,
            heads=heads,
            scale=scale,
            max_query=max(batch.query_tokens),
            max_context=max(batch.context_tokens),
            splits=splits,
            metadata=self._schedule(batch, heads, splits),
            descale=descale,
            query=query,
        )

    def _schedule(self, batch: PagedBatch, heads: _Heads, splits: int) -> torch.Tensor:
        metadata: torch.Tensor = self._ops.get_scheduler_metadata(
            batch_size=batch.seqs,
            max_seqlen_q=max(batch.query_tokens),
            max_seqlen_k=max(batch.context_tokens),
            num_heads=heads.num_heads,
            num_heads_k=heads.num_heads_k,
            headdim=heads.headdim,
            headdim_v=heads.headdim_v,
            qkv_dtype=heads.qkv_dtype,
            seqused_k=batch.context_lens,
            cu_seqlens_q=batch.query_start,
            page_size=heads.page_size,
            num_splits=splits,
            **_UNUSED_IN_SCHEDULE,
        )
        return metadata

    def _launch(
        self,
        planned: Planned,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        out: torch.Tensor,
        q_v: torch.Tensor | None = None,
    ) -> None:
        batch = planned.batch
        self._ops.fwd(
            q=q,
            k=k,
            v=v,
            q_v=q_v,
            out=out,
            cu_seqlens_q=batch.query_start,
            seqused_k=batch.context_lens,
            max_seqlen_q=planned.max_query,
            max_seqlen_k=planned.max_context,
            page_table=batch.block_table,
            q_descale=planned.descale,
            k_descale=planned.descale,
            v_descale=planned.descale,
            softmax_scale=planned.scale,
            scheduler_metadata=planned.metadata,
            num_splits=planned.splits,
            **_UNUSED,
        )


class FlashAttention3(_Varlen):
    """Paged attention with grouped query heads; bf16, fp16 or fp8 keys and values."""

    def refuses(self, shape: AttentionShape, batch: PagedBatch) -> str | None:
        """Say why such a call cannot be served; None if it can."""
        if shape.dtype not in (torch.bfloat16, torch.float16):
            return f"queries are bf16 or fp16, not {shape.dtype}"
        if shape.kv_dtype not in (shape.dtype, _FP8):
            return f"keys are of the queries' dtype or fp8 e4m3, not {shape.kv_dtype}"
        if shape.head_size > _LARGEST_HEAD or shape.head_size % _HEAD_MULTIPLE:
            return f"head size is a multiple of {_HEAD_MULTIPLE} up to {_LARGEST_HEAD}"
        if shape.block_size % _BLOCK_MULTIPLE:
            return f"block size is a multiple of {_BLOCK_MULTIPLE}"
        return None

    def plan(self, shape: AttentionShape, batch: PagedBatch) -> Planned:
        """Make the scheduler's metadata and, for an fp8 cache, scales and room for queries."""
        heads = _Heads(
            num_heads=shape.heads,
            num_heads_k=shape.kv_heads,
            headdim=shape.head_size,
            headdim_v=shape.head_size,
            page_size=shape.block_size,
            qkv_dtype=shape.kv_dtype,
        )
        return self._plan(batch, heads, shape.scale, shape.dtype)

    def run(
        self,
        planned: Planned,
        query: torch.Tensor,
        key_cache: torch.Tensor,
        value_cache: torch.Tensor,
        out: torch.Tensor,
    ) -> None:
        """Launch one call; with an fp8 cache, after the conversion of the queries to fp8.

        FA3 multiplies fp8 with fp8 only. All scales are 1, as vLLM's are without calibration.
        """
        q = query if planned.query is None else planned.query.copy_(query)
        self._launch(planned, q, key_cache, value_cache, out)


class FlashAttention3Latent(_Varlen):
    """Absorbed latent attention: rope parts as queries and keys, latent parts beside them."""

    def refuses(self, shape: LatentShape, batch: PagedBatch) -> str | None:
        """Say why such a call cannot be served; None if it can."""
        if shape.dtype not in (torch.bfloat16, torch.float16) or shape.kv_dtype != shape.dtype:
            return "queries and cache are bf16, or both fp16"
        if (shape.latent_size, shape.rope_size) != (512, 64):
            return (
                f"latent and rope sizes are 512 and 64, not {shape.latent_size}, {shape.rope_size}"
            )
        if shape.block_size % _BLOCK_MULTIPLE:
            return f"block size is a multiple of {_BLOCK_MULTIPLE}"
        return None

    def plan(self, shape: LatentShape, batch: PagedBatch) -> Planned:
        """Make the scheduler's metadata."""
        heads = _Heads(
            num_heads=shape.heads,
            num_heads_k=1,
            headdim=shape.rope_size,
            headdim_v=shape.latent_size,
            page_size=shape.block_size,
            qkv_dtype=shape.kv_dtype,
        )
        return self._plan(batch, heads, shape.scale, shape.dtype)

    def run(
        self,
        planned: Planned,
        query: torch.Tensor,
        latent_cache: torch.Tensor,
        out: torch.Tensor,
    ) -> None:
        """Launch one call on views of the queries and of the cache; nothing is copied."""
        latent = planned.heads.headdim_v
        self._launch(
            planned,
            q=query[..., latent:],
            k=latent_cache[..., latent:].unsqueeze(-2),
            v=latent_cache[..., :latent].unsqueeze(-2),
            q_v=query[..., :latent],
            out=out,
        )
