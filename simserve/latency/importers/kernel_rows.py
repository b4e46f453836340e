"""Rows of the installed kernel tables as rows of ours: names, units, what a context counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from simserve.latency.importers.kernel_package import ELEMENT_BYTES, US_PER_MS, KernelTable
from simserve.latency.importers.regimes import flash_attention_2
from simserve.latency.importers.table_folder import Row
from simserve.latency.tables.lending import heads_apart
from simserve.latency.tables.limits import Heads
from simserve.latency.tables.schema import is_aligned

DTYPES = {"bfloat16": "bf16", "fp8": "fp8"}
"""The package's names of number formats that a profile holds, and ours."""
# The same of matrices; a GPU without it has no rows of ``nvfp4``.
GEMM_DTYPES = {**DTYPES, "nvfp4": "nvfp4"}
# The same of routed experts.
_MOE_DTYPES = {
    **GEMM_DTYPES,
    "fp8_block": "fp8-block",
    "int4_wo": "gptq",
    "w4a16_mxfp4": "mxfp4",
    "w4a8_mxfp4_mxfp8": "mxfp4",
}
# Kernels of FlashAttention-2, as the tables name them (before Hopper vLLM has no other).
_FLASH_ATTENTION_2 = ("vllm_flash_attn_fa2", "vllm_flash_attn")


def gemm_rows(table: KernelTable, dtype: str, shapes: set[tuple[int, int]]) -> Iterator[Row]:
    """Yield rows of ``gemm`` for these (n, k)."""
    columns = table.columns
    pairs = zip(columns["n"].tolist(), columns["k"].tolist(), strict=True)
    for index, pair in enumerate(pairs):
        if pair in shapes:
            m = int(columns["m"][index])
            yield {
                "dtype": dtype,
                "backend": str(columns["kernel_source"][index]),
                "m": m,
                "n": pair[0],
                "k": pair[1],
                "aligned": int(is_aligned(m)),
                **_time(columns["latency"][index]),
            }


def moe_rows(table: KernelTable) -> Iterator[Row]:
    """Yield rows of ``moe``; where several kernels were timed, the quickest."""
    columns = table.columns
    quickest: dict[tuple[str, int, str], int] = {}
    for index in range(len(table)):
        dtype = _MOE_DTYPES.get(str(columns["moe_dtype"][index]))
        if dtype is not None:
            routing = str(columns["distribution"][index])
            key = dtype, int(columns["num_tokens"][index]), routing
            best = quickest.setdefault(key, index)
            if columns["latency"][index] < columns["latency"][best]:
                quickest[key] = index
    for (dtype, tokens, routing), index in quickest.items():
        yield {
            "dtype": dtype,
            "experts": int(columns["num_experts"][index]),
            "topk": int(columns["topk"][index]),
            "hidden": int(columns["hidden_size"][index]),
            "inter": int(columns["inter_size"][index]),
            "tp": int(columns["moe_tp_size"][index]),
            "ep": int(columns["moe_ep_size"][index]),
            "tokens": tokens,
            "routing": routing,
            **_time(columns["latency"][index]),
        }


def nearest_heads(table: KernelTable, ours: str, wanted: Heads) -> Heads | None:
    """Return the heads of the table that are most like ``wanted`` in our table, or None."""
    columns = table.columns["num_heads"], table.columns["num_key_value_heads"]
    pairs = {(int(q), int(k)) for q, k in zip(*columns, strict=True)}
    known = [Heads(queries, keys, wanted.size) for queries, keys in sorted(pairs)]
    return min(known, key=lambda one: heads_apart(ours, wanted, one), default=None)


def decode_row(columns: Any, index: int, gpu: str) -> Row:
    """Return a row of ``attn_decode``: the context includes the new token."""
    batch, context = int(columns["batch_size"][index]), int(columns["step"][index]) + 1
    heads = _heads(columns, index)
    splits = heads["backend"] in _FLASH_ATTENTION_2
    return {
        **heads,
        "regime": flash_attention_2(gpu, batch, int(heads["hkv"])) if splits else "",
        "batch": batch,
        "ctx": context,
        "shape": "uniform",
        "sum_ctx": batch * context,
        "max_ctx": context,
        "cv": 0,
        **_time(columns["latency"][index]),
    }


def prefill_row(columns: Any, index: int, gpu: str) -> Row:
    """Return a row of ``attn_prefill``: ``n_req`` prompts of ``q`` new tokens each."""
    del gpu
    return {
        **_heads(columns, index),
        "n_req": int(columns["batch_size"][index]),
        "q": int(columns["isl"][index]),
        "past": int(columns["step"][index]),
        **_time(columns["latency"][index]),
    }


def _heads(columns: Any, index: int) -> dict[str, str | int]:
    size = int(columns["head_dim"][index])
    return {
        "backend": str(columns["kernel_source"][index]),
        "q_dtype": DTYPES.get(str(columns["attn_dtype"][index]), ""),
        "kv_dtype": DTYPES[str(columns["kv_cache_dtype"][index])],
        "hq": int(columns["num_heads"][index]),
        "hkv": int(columns["num_key_value_heads"][index]),
        "d": size,
        "dv": size,
    }


def engine_reduce_rows(table: KernelTable, gpus: int) -> Iterator[Row]:
    """Yield rows of ``comm`` by the engine's own all-reduce, in a graph and eager."""
    table = table.where(num_gpus=gpus)
    for index in range(len(table)):
        kernel = str(table.columns["kernel_source"][index])
        yield _reduce_row(table, index, "custom", int(not kernel.endswith("_eager")))


def nccl_rows(table: KernelTable, gpus: int) -> Iterator[Row]:
    """Yield rows of ``comm`` by NCCL."""
    table = table.where(num_gpus=gpus, nccl_dtype="half", op_name="all_reduce")
    for index in range(len(table)):
        yield _reduce_row(table, index, "nccl", 0)


def _reduce_row(table: KernelTable, index: int, kernel: str, graph: int) -> Row:
    columns = table.columns
    return {
        "op": "all_reduce",
        "impl": kernel,
        "gpus": int(columns["num_gpus"][index]),
        "bytes": int(columns["message_size"][index]) * ELEMENT_BYTES,
        "graph": graph,
        **_time(columns["latency"][index]),
    }


def _time(latency_ms: float) -> dict[str, float]:
    return {"us_p50": float(latency_ms) * US_PER_MS}
