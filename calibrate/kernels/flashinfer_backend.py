"""FlashInfer's paged kernels: decode on tensor cores, prefill, and latent attention.

A step is split as vLLM splits it (0.26.0, v1/attention/backends/flashinfer.py): the decodes
that lead the batch in one call, the rest in another. FlashInfer divides the work on the host,
so a captured decode needs ``replan`` before a replay with other lengths.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from calibrate.kernels.interface import AttentionShape, PagedBatch
from calibrate.kernels.latent import LatentShape
from calibrate.kernels.libraries import missing_gpu
from simserve.errors import one_line, reason_of

# vLLM 0.26.0: VLLM_FLASHINFER_WORKSPACE_BUFFER_SIZE (envs.py).
_WORKSPACE_BYTES: Final = 394 * 2**20
_FP8: Final = torch.float8_e4m3fn
# FlashInfer's own fa3 takes ten minutes to compile and is slower (mini-sglang forces fa2).
_BACKEND: Final = "fa2"
_NO_JIT: Final = "FLASHINFER_DISABLE_JIT"  # read by FlashInfer: prebuilt modules only


@dataclass(frozen=True, slots=True)
class _Pages:
    """The blocks of some sequences, one sequence after the other."""

    start: torch.Tensor  # int32[seqs + 1], on the host
    last_tokens: torch.Tensor  # int32[seqs], on the host: tokens in the last block
    block_ids: torch.Tensor  # int32[start[-1]], on the device


@dataclass(slots=True)
class _Part:
    """Consecutive sequences that one wrapper serves."""

    wrapper: Any
    seqs: slice
    rows: slice  # of the packed queries
    is_decode: bool


@dataclass(slots=True)
class Planned:
    """A batch, divided."""

    shape: Any
    parts: list[_Part]
    copied: torch.cuda.Event | None = None  # the last plan has left the host's buffers


class _Package:
    """The package ``flashinfer``, or what a test gives in its place."""

    def __init__(self, package: Any = None) -> None:
        self._given = package
        self._in_flight: list[Planned] = []

    @property
    def _package(self) -> Any:
        return self._given or importlib.import_module("flashinfer")

    def missing(self) -> str | None:
        """Say why FlashInfer cannot be used on this machine; None if it can."""
        if self._given:
            return None
        reason = missing_gpu()
        if reason is None:
            try:
                importlib.import_module("flashinfer")
            except (ImportError, OSError, RuntimeError, AttributeError) as error:
                reason = f"flashinfer cannot be imported: {one_line(reason_of(error))}"
        return reason

    def _wait(self, planned: Planned) -> None:
        """Wait until the GPU has read the last plan: the next is written into the same memory."""
        if planned.copied is not None:
            planned.copied.synchronize()

    def _mark(self, planned: Planned, device: torch.device) -> None:
        """Keep the wrappers until the GPU has read the plan, whoever drops them before.

        FlashInfer copies from pinned memory of its own, of which torch does not know that a
        copy is under way: it would give the memory to the next wrapper.
        """
        if device.type != "cuda":
            return
        planned.copied = torch.cuda.Event()
        planned.copied.record()
        waiting = [each for each in self._in_flight if not _was_read(each)]
        self._in_flight = [*waiting, planned]

    def _not_compiled(self, kind: str, *arguments: Any) -> str | None:
        """Say that a module would have to be compiled where that is switched off."""
        return None if self._given else _not_prebuilt(kind, arguments)


@functools.cache
def _not_prebuilt(kind: str, arguments: tuple[Any, ...]) -> str | None:
    if not os.environ.get(_NO_JIT):
        return None
    modules = importlib.import_module("flashinfer.jit.attention.modules")
    folder = importlib.import_module("flashinfer.jit.env").FLASHINFER_AOT_DIR
    name: str = getattr(modules, f"get_batch_{kind}_uri")(*arguments)
    if (Path(folder) / name / f"{name}.so").is_file():
        return None
    return f"no prebuilt module {name}, and ${_NO_JIT} is set"


class FlashInfer(_Package):
    """Paged attention with grouped query heads; bf16, fp16 or fp8 keys and values."""

    name = "flashinfer"

    def refuses(self, shape: AttentionShape, batch: PagedBatch) -> str | None:
        """Say why such a call cannot be served; None if it can."""
        if shape.dtype not in (torch.bfloat16, torch.float16):
            return f"queries are bf16 or fp16, not {shape.dtype}"
        if shape.kv_dtype not in (shape.dtype, _FP8):
            return f"keys are of the queries' dtype or fp8 e4m3, not {shape.kv_dtype}"
        size, dtypes = shape.head_size, (shape.dtype, shape.kv_dtype, shape.dtype, torch.int32)
        return self._not_compiled("prefill", _BACKEND, *dtypes, size, size, 0, False, False, False)

    def plan(self, shape: AttentionShape, batch: PagedBatch) -> Planned:
        """Divide the batch and plan a call for each part."""
        ones = itertools.takewhile(lambda queries: queries == 1, batch.query_tokens)
        decodes = sum(ones)
        planned = Planned(shape, [])
        if decodes:
            seqs = slice(0, decodes)
            wrapper = self._decode_wrapper(batch, seqs, fixed=decodes == batch.seqs)
            planned.parts.append(_Part(wrapper, seqs, seqs, True))
        if decodes < batch.seqs:
            wrapper = self._package.BatchPrefillWithPagedKVCacheWrapper(
                _workspace(batch.block_table.device), "NHD", backend=_BACKEND
            )
            seqs, rows = slice(decodes, batch.seqs), slice(decodes, batch.tokens)
            planned.parts.append(_Part(wrapper, seqs, rows, False))
        self.replan(planned, batch)
        return planned

    def replan(self, planned: Planned, batch: PagedBatch) -> None:
        """Plan anew for lengths that changed; outside a graph.

        Query lengths stay as planned. Where a call is not ``replayable``, a graph of it is of
        no use afterwards.
        """
        self._wait(planned)
        for part in planned.parts:
            pages = _pages(batch, part.seqs, planned.shape.block_size)
            plan = self._plan_decode if part.is_decode else self._plan_prefill
            plan(part, planned.shape, batch, pages)
        self._mark(planned, batch.block_table.device)

    def replayable(self, batch: PagedBatch) -> bool:
        """Tell whether a graph of such a call may be replayed with other lengths.

        FlashInfer fixes buffers only where it plans for graphs, which costs prefills time:
        vLLM does so for decodes alone.
        """
        return set(batch.query_tokens) == {1}

    def run(
        self,
        planned: Planned,
        query: torch.Tensor,
        key_cache: torch.Tensor,
        value_cache: torch.Tensor,
        out: torch.Tensor,
    ) -> None:
        """Launch one call for each part."""
        for part in planned.parts:
            part.wrapper.run(query[part.rows], (key_cache, value_cache), out=out[part.rows])

    def _decode_wrapper(self, batch: PagedBatch, seqs: slice, fixed: bool) -> Any:
        """Return a wrapper whose buffers a graph may keep, if they are ``fixed``."""
        table = batch.block_table
        buffers = {}
        if fixed:
            buffers = {
                "paged_kv_indptr_buffer": table.new_zeros(seqs.stop + 1),
                "paged_kv_indices_buffer": table.new_zeros(table.numel()),
                "paged_kv_last_page_len_buffer": table.new_zeros(seqs.stop),
            }
        return self._package.BatchDecodeWithPagedKVCacheWrapper(
            _workspace(table.device),
            "NHD",
            use_cuda_graph=fixed,
            use_tensor_cores=True,  # as vLLM does, for all group sizes
            backend=_BACKEND,
            **buffers,
        )

    def _plan_decode(
        self, part: _Part, shape: AttentionShape, batch: PagedBatch, pages: _Pages
    ) -> None:
        part.wrapper.plan(
            indptr=pages.start,
            indices=pages.block_ids,
            last_page_len=pages.last_tokens,
            num_qo_heads=shape.heads,
            num_kv_heads=shape.kv_heads,
            head_dim=shape.head_size,
            page_size=shape.block_size,
            q_data_type=shape.dtype,
            kv_data_type=shape.kv_dtype,
            o_data_type=shape.dtype,
            sm_scale=shape.scale,
        )

    def _plan_prefill(
        self, part: _Part, shape: AttentionShape, batch: PagedBatch, pages: _Pages
    ) -> None:
        part.wrapper.plan(
            qo_indptr=_starts(batch.query_tokens[part.seqs]),
            paged_kv_indptr=pages.start,
            paged_kv_indices=pages.block_ids,
            paged_kv_last_page_len=pages.last_tokens,
            num_qo_heads=shape.heads,
            num_kv_heads=shape.kv_heads,
            head_dim_qk=shape.head_size,
            page_size=shape.block_size,
            causal=True,
            q_data_type=shape.dtype,
            kv_data_type=shape.kv_dtype,
            o_data_type=shape.dtype,
            sm_scale=shape.scale,
        )


class FlashInferMla(_Package):
    """Absorbed latent attention, on the code path that FlashInfer chooses for the GPU."""

    name = "flashinfer-mla"

    def refuses(self, shape: LatentShape, batch: PagedBatch) -> str | None:
        """Say why such a call cannot be served; None if it can."""
        if shape.dtype not in (torch.bfloat16, torch.float16) or shape.kv_dtype != shape.dtype:
            return "queries and cache are bf16, or both fp16"
        dtypes = (shape.dtype, shape.kv_dtype, shape.dtype, torch.int32)
        backend = "fa2"
        if not self._given:
            utils = importlib.import_module("flashinfer.utils")
            backend = utils.determine_mla_backend(batch.block_table.device)
        sizes = (shape.latent_size, shape.rope_size)
        return self._not_compiled("mla", backend, *dtypes, *sizes, False)

    def plan(self, shape: LatentShape, batch: PagedBatch) -> Planned:
        """Plan one call for the whole batch, with buffers that a graph may keep."""
        table = batch.block_table
        wrapper = self._package.mla.BatchMLAPagedAttentionWrapper(
            _workspace(table.device),
            use_cuda_graph=True,
            qo_indptr=table.new_zeros(batch.seqs + 1),
            kv_indptr=table.new_zeros(batch.seqs + 1),
            kv_indices=table.new_zeros(table.numel()),
            kv_len_arr=table.new_zeros(batch.seqs),
            backend="auto",
        )
        everything = _Part(wrapper, slice(0, batch.seqs), slice(0, batch.tokens), False)
        planned = Planned(shape, [everything])
        self.replan(planned, batch)
        return planned

    def replan(self, planned: Planned, batch: PagedBatch) -> None:
        """Plan anew for lengths that changed, in the same buffers; outside a graph."""
        self._wait(planned)
        shape, (part,) = planned.shape, planned.parts
        pages = _pages(batch, part.seqs, shape.block_size)
        part.wrapper.plan(
            qo_indptr=_starts(batch.query_tokens),
            kv_indptr=pages.start,
            kv_indices=pages.block_ids,
            kv_len_arr=torch.tensor(batch.context_tokens, dtype=torch.int32),
            num_heads=shape.heads,
            head_dim_ckv=shape.latent_size,
            head_dim_kpe=shape.rope_size,
            page_size=shape.block_size,
            causal=True,
            sm_scale=shape.scale,
            q_data_type=shape.dtype,
            kv_data_type=shape.kv_dtype,
        )
        self._mark(planned, batch.block_table.device)

    def run(
        self,
        planned: Planned,
        query: torch.Tensor,
        latent_cache: torch.Tensor,
        out: torch.Tensor,
    ) -> None:
        """Launch one call on views of the queries and of the cache; nothing is copied."""
        latent = planned.shape.latent_size
        planned.parts[0].wrapper.run(
            query[..., :latent],
            query[..., latent:],
            latent_cache[..., :latent],
            latent_cache[..., latent:],
            out=out,
        )


@functools.cache
def _workspace(device: torch.device) -> torch.Tensor:
    """Return the scratch memory that all wrappers of a device share: calls follow each other."""
    size = _WORKSPACE_BYTES if device.type == "cuda" else 1
    return torch.zeros(size, dtype=torch.uint8, device=device)


def _starts(lengths: tuple[int, ...]) -> torch.Tensor:
    """Return where each of some pieces starts, and where the last one ends."""
    return torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)


def _pages(batch: PagedBatch, seqs: slice, block_size: int) -> _Pages:
    """Return the blocks of the sequences ``seqs`` in the order of their tokens."""
    contexts = np.asarray(batch.context_tokens[seqs], dtype=np.int64)
    blocks = -(-contexts // block_size)
    start = np.concatenate(([0], np.cumsum(blocks)))
    table = batch.block_table[seqs]
    row_starts = np.arange(len(blocks)) * table.shape[1]
    places = np.arange(start[-1]) + np.repeat(row_starts - start[:-1], blocks)
    block_ids = table.reshape(-1).index_select(0, torch.from_numpy(places).to(table.device))
    last_tokens = (contexts - 1) % block_size + 1
    return _Pages(
        torch.from_numpy(start.astype(np.int32)),
        torch.from_numpy(last_tokens.astype(np.int32)),
        block_ids,
    )


def _was_read(planned: Planned) -> bool:
    return planned.copied is None or bool(planned.copied.query())
