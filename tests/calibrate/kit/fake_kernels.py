"""Stand-ins for compiled kernels: the real signatures, the float64 reference inside.

The signatures are those that the operators of vLLM 0.26.0's files register with torch, and those
of flashinfer-python 0.6.8.post1. Each checks what the real one requires of its arguments.
"""
# mypy: disable-error-code="no-untyped-def"
# The arguments are those of C++ operators, by name.

from __future__ import annotations

import types
from typing import Any

import torch

from calibrate.kernels import reference
from calibrate.kernels.interface import AttentionShape, PagedBatch


def latent(batch: PagedBatch, query: Any, cache: Any, value_size: int, scale: float) -> Any:
    return reference.latent_attention(batch, query, cache, value_size, scale)


def host_copy(start: torch.Tensor, contexts: torch.Tensor, table: torch.Tensor) -> PagedBatch:
    """Return a batch from what a kernel was given."""
    for each in (start, contexts, table):
        assert each.dtype == torch.int32
        assert each.stride(-1) == 1
    new = tuple((start[1:] - start[:-1]).tolist())
    return PagedBatch(new, tuple(contexts.tolist()), start, contexts, table)


class Fa3:
    """``torch.ops._vllm_fa3_C``."""

    def __init__(self) -> None:
        self.scheduled: list[dict[str, Any]] = []
        self.launched: list[dict[str, Any]] = []

    def get_scheduler_metadata(
        self, *, batch_size, max_seqlen_q, max_seqlen_k, num_heads, num_heads_k, headdim,
        headdim_v, qkv_dtype, seqused_k, cu_seqlens_q, cu_seqlens_k, cu_seqlens_k_new,
        seqused_q, leftpad_k, page_size, max_seqlen_k_new, is_causal, window_size_left,
        window_size_right, has_softcap, num_splits, pack_gqa, sm_margin,
    ):  # fmt: skip
        self.scheduled.append(locals())
        assert is_causal
        assert (window_size_left, window_size_right, has_softcap) == (-1, -1, False)
        assert batch_size == len(seqused_k) == len(cu_seqlens_q) - 1
        # The size that vLLM reserves: a semaphore, and four numbers a sequence, in fours.
        size = 1 + -(-batch_size // 4) * 4 * 4
        return torch.full((size,), int(seqused_k.sum()), dtype=torch.int32)

    def fwd(
        self, *, q, k, v, k_new, v_new, q_v, out, cu_seqlens_q, cu_seqlens_k, cu_seqlens_k_new,
        seqused_q, seqused_k, max_seqlen_q, max_seqlen_k, page_table, kv_batch_idx, leftpad_k,
        rotary_cos, rotary_sin, seqlens_rotary, q_descale, k_descale, v_descale, softmax_scale,
        is_causal, window_size_left, window_size_right, softcap, is_rotary_interleaved,
        scheduler_metadata, num_splits, pack_gqa, sm_margin, s_aux, cp_world_size, cp_rank,
        cp_tot_seqused_k,
    ):  # fmt: skip
        self.launched.append(locals())
        assert is_causal
        assert (window_size_left, window_size_right, softcap) == (-1, -1, 0.0)
        assert (cp_world_size, cp_rank, sm_margin) == (1, 0, 0)
        assert q.dtype == k.dtype == v.dtype
        assert k.shape[:3] == v.shape[:3]
        assert out.dtype == (torch.bfloat16 if q.dtype == torch.float8_e4m3fn else q.dtype)
        assert all(each.stride(-1) == 1 for each in (q, k, v, out))
        # TMA wants strides of 16 bytes and more.
        assert all(stride * k.element_size() % 16 == 0 for stride in k.stride()[:-1])
        batch = host_copy(cu_seqlens_q, seqused_k, page_table)
        assert max_seqlen_q == max(batch.query_tokens)
        assert max_seqlen_k >= max(batch.context_tokens)
        assert len(scheduler_metadata) == 1 + -(-batch.seqs // 4) * 4 * 4
        for descale in (q_descale, k_descale, v_descale):
            if descale is not None:
                assert descale.dtype == torch.float32
                assert descale.shape == (batch.seqs, k.shape[2])
        if q_v is None:
            shape = AttentionShape(q.shape[1], k.shape[2], q.shape[2])
            assert softmax_scale == shape.scale
            out.copy_(reference.attention(shape, batch, q, k, v))
        else:
            query, cache = torch.cat((q_v, q), dim=-1), torch.cat((v, k), dim=-1)[:, :, 0]
            out.copy_(latent(batch, query, cache, v.shape[-1], softmax_scale))
        return [out, None, None, None]


class FlashMla:
    """``torch.ops._flashmla_C``: without a schedule it makes one, with one it obeys it."""

    def __init__(self) -> None:
        self.calls = 0

    def dense_decode_fwd(
        self, q, kcache, head_size_v, seqlens_k, block_table, softmax_scale, is_causal,
        tile_scheduler_metadata, num_splits, out_,
    ):  # fmt: skip
        self.calls += 1
        seqs, queries, heads, size = q.shape
        assert (size, head_size_v) == (576, 512)
        assert kcache.shape[1:] == (64, 1, 576)
        assert is_causal
        assert block_table.dtype == seqlens_k.dtype == torch.int32
        assert int(block_table.max()) < len(kcache)
        if tile_scheduler_metadata is None:
            assert num_splits is None
            total = int(seqlens_k.sum())
            tile_scheduler_metadata = torch.full((132, 8), total, dtype=torch.int32)
            num_splits = torch.zeros(seqs + 1, dtype=torch.int32)
            num_splits[1:] = seqlens_k
        else:
            assert num_splits[1:].tolist() == seqlens_k.tolist(), "a schedule of other lengths"
            assert (tile_scheduler_metadata == seqlens_k.sum()).all()
        out = torch.empty(seqs, queries, heads, 512, dtype=q.dtype) if out_ is None else out_
        start = torch.arange(0, seqs * queries + 1, queries, dtype=torch.int32)
        batch = host_copy(start, seqlens_k, block_table)
        values = latent(batch, q.flatten(0, 1), kcache[:, :, 0], 512, softmax_scale)
        out.copy_(values.view(out.shape))
        return out, None, tile_scheduler_metadata, num_splits


class _Paged:
    """What the two wrappers of paged attention share."""

    def __init__(self, workspace: torch.Tensor, kv_layout: str, **options: Any) -> None:
        assert workspace.dtype == torch.uint8
        assert kv_layout == "NHD"
        assert options.pop("backend") == "fa2"
        self.options, self.plans = options, 0

    def _keep(self, qo_start, start, block_ids, last_tokens, page_size, **heads: Any) -> None:
        assert start.dtype == block_ids.dtype == last_tokens.dtype == torch.int32
        assert len(block_ids) == start[-1]
        assert start.device.type == last_tokens.device.type == "cpu"
        self.plans += 1
        self.qo_start, self.heads = qo_start, heads
        self.contexts = (start[1:] - start[:-1] - 1) * page_size + last_tokens
        rows = block_ids.split((start[1:] - start[:-1]).tolist())
        self.table = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)

    def run(self, q, paged_kv_cache, *, out):
        heads, (keys, values) = self.heads, paged_kv_cache
        assert q.dtype == heads["q_data_type"] == heads["o_data_type"] == out.dtype
        assert keys.dtype == values.dtype == heads["kv_data_type"]
        assert keys.stride() == values.stride()
        batch = host_copy(self.qo_start, self.contexts, self.table)
        assert len(q) == len(out) == batch.tokens
        shape = AttentionShape(heads["num_qo_heads"], heads["num_kv_heads"], heads["head_dim"])
        assert heads["sm_scale"] == shape.scale
        out.copy_(reference.attention(shape, batch, q, keys, values))
        return out


class BatchDecodeWithPagedKVCacheWrapper(_Paged):
    def plan(
        self, indptr, indices, last_page_len, num_qo_heads, num_kv_heads, head_dim, page_size,
        *, q_data_type, kv_data_type, o_data_type, sm_scale,
    ):  # fmt: skip
        if self.options["use_cuda_graph"]:
            seqs = len(last_page_len)
            assert len(self.options["paged_kv_indptr_buffer"]) == seqs + 1
            assert len(self.options["paged_kv_last_page_len_buffer"]) == seqs
            assert len(self.options["paged_kv_indices_buffer"]) >= len(indices)
        self._keep(
            torch.arange(len(indptr), dtype=torch.int32), indptr, indices, last_page_len, page_size,
            num_qo_heads=num_qo_heads, num_kv_heads=num_kv_heads, head_dim=head_dim,
            q_data_type=q_data_type, kv_data_type=kv_data_type, o_data_type=o_data_type,
            sm_scale=sm_scale,
        )  # fmt: skip


class BatchPrefillWithPagedKVCacheWrapper(_Paged):
    def plan(
        self, qo_indptr, paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len, num_qo_heads,
        num_kv_heads, head_dim_qk, page_size, *, causal, q_data_type, kv_data_type, o_data_type,
        sm_scale,
    ):  # fmt: skip
        assert causal
        self._keep(
            qo_indptr, paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len, page_size,
            num_qo_heads=num_qo_heads, num_kv_heads=num_kv_heads, head_dim=head_dim_qk,
            q_data_type=q_data_type, kv_data_type=kv_data_type, o_data_type=o_data_type,
            sm_scale=sm_scale,
        )  # fmt: skip


class BatchMLAPagedAttentionWrapper:
    def __init__(
        self, workspace, use_cuda_graph, qo_indptr, kv_indptr, kv_indices, kv_len_arr, backend
    ) -> None:
        assert use_cuda_graph
        self.room = len(qo_indptr), len(kv_indptr), len(kv_indices), len(kv_len_arr)

    def plan(
        self, qo_indptr, kv_indptr, kv_indices, kv_len_arr, num_heads, head_dim_ckv, head_dim_kpe,
        page_size, causal, sm_scale, q_data_type, kv_data_type,
    ):  # fmt: skip
        needed = len(qo_indptr), len(kv_indptr), len(kv_indices), len(kv_len_arr)
        assert all(have >= want for have, want in zip(self.room, needed, strict=True))
        assert causal
        counts = (kv_indptr[1:] - kv_indptr[:-1]).tolist()
        assert counts == [-(-int(tokens) // page_size) for tokens in kv_len_arr]
        table = torch.nn.utils.rnn.pad_sequence(list(kv_indices.split(counts)), batch_first=True)
        self.batch, self.scale = host_copy(qo_indptr, kv_len_arr, table), sm_scale

    def run(self, q_nope, q_pe, ckv_cache, kpe_cache, *, out):
        query, cache = torch.cat((q_nope, q_pe), -1), torch.cat((ckv_cache, kpe_cache), -1)
        out.copy_(latent(self.batch, query, cache, q_nope.shape[-1], self.scale))
        return out


flashinfer = types.SimpleNamespace(
    BatchDecodeWithPagedKVCacheWrapper=BatchDecodeWithPagedKVCacheWrapper,
    BatchPrefillWithPagedKVCacheWrapper=BatchPrefillWithPagedKVCacheWrapper,
    mla=types.SimpleNamespace(BatchMLAPagedAttentionWrapper=BatchMLAPagedAttentionWrapper),
)
