"""A tiny package of kernel tables, laid out as the real one is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from simserve.latency.importers.kernel_package import KernelPackage

DATA = Path("systems") / "data"
DEVICE: dict[str, Any] = {"framework": "VLLM", "device": "NVIDIA H100 80GB HBM3"}
M = (1, 16, 17, 256)
SIZES = (1024, 2048, 4096, 6144, 8192, 16384, 65536)


def gemm_ms(m: int, n: int, k: int) -> float:
    """Return milliseconds that grow with everything."""
    return 0.005 + n * k * (1 + m / 64) * 1e-9


def write(root: Path, where: str, rows: list[dict[str, Any]]) -> None:
    """Write one table; ``where`` is its path without the suffix."""
    path = root / DATA / f"{where}_perf.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path)


def gemm_rows(dtypes: tuple[str, ...] = ("bfloat16", "fp8", "fp8_block")) -> list[dict[str, Any]]:
    return [
        DEVICE
        | {"kernel_source": "linear", "gemm_dtype": dtype, "m": m, "n": n, "k": k}
        | {"latency": gemm_ms(m, n, k)}
        for dtype in dtypes
        for m in M
        for n in SIZES
        for k in SIZES
    ]


def attention_rows(heads: tuple[int, int], lengths: str, sizes: tuple[int, ...]) -> list[Any]:
    rows = []
    for kv_dtype in ("bfloat16", "fp8"):
        for window in (0, 128):
            for batch in (1, 4):
                for size in sizes:
                    row = DEVICE | {
                        "kernel_source": "vllm_flash_attn_fa3",
                        "batch_size": batch,
                        "isl": 1,
                        "step": 0,
                        "num_heads": heads[0],
                        "num_key_value_heads": heads[1],
                        "head_dim": 128,
                        "attn_dtype": "bfloat16",
                        "kv_cache_dtype": kv_dtype,
                        "window_size": window,
                        "latency": 0.01 + batch * size * 1e-6,
                    }
                    rows.append(row | {lengths: size})
    return rows


def latent_rows(name: str, points: dict[tuple[int, int, int], float]) -> list[dict[str, Any]]:
    """Return modules by (batch, new tokens, past tokens), in milliseconds, with 16 heads."""
    return [
        DEVICE
        | {"kernel_source": kernel, "model": model, "op_name": name, "gemm_type": gemm_type}
        | {"kv_cache_dtype": "bfloat16", "num_heads": heads}
        | {"batch_size": batch, "isl": new, "step": past, "latency": latency_ms * slower}
        for (batch, new, past), latency_ms in points.items()
        for kernel, model, gemm_type, heads, slower in (
            ("FLASH_ATTN", "deepseek-ai/DeepSeek-V3", "bfloat16", 16, 1),
            ("SLOWER", "deepseek-ai/DeepSeek-V3", "bfloat16", 16, 2),
            ("FLASH_ATTN", "deepseek-ai/DeepSeek-V3", "fp8_block", 16, 3),
            ("FLASH_ATTN", "moonshotai/Kimi-K3", "bfloat16", 16, 0.5),
            ("FLASH_ATTN", "deepseek-ai/DeepSeek-V3", "bfloat16", 8, 0.5),
        )
    ]


def small_package(root: Path) -> KernelPackage:
    """Write the tables of one GPU for Llama-3.1-8B, at two versions, and return their package."""
    for version in ("0.9.0", "0.24.0"):
        write(root, f"h100_sxm/gemm/vllm/{version}/gemm", gemm_rows())
    decode = attention_rows((32, 8), "step", (1, 127, 1023))
    write(root, "h100_sxm/attention/vllm/0.24.0/generation_attention", decode)
    prefill = attention_rows((32, 8), "isl", (16, 256, 2048))
    write(root, "h100_sxm/attention/vllm/0.24.0/context_attention", prefill)
    reduces = [
        DEVICE | {"kernel_source": kernel, "num_gpus": gpus, "message_size": 1024, "latency": 0.005}
        for kernel in ("vLLM_custom_graph", "vLLM_custom_eager")
        for gpus in (2, 4)
    ]
    write(root, "h100_sxm/comm/vllm/0.24.0/custom_allreduce", reduces)
    nccl = [
        DEVICE
        | {"kernel_source": "NCCL", "nccl_dtype": dtype, "op_name": op, "num_gpus": 2}
        | {"message_size": 512, "latency": 0.007}
        for dtype in ("half", "int8")
        for op in ("all_reduce", "all_gather")
    ]
    write(root, "h100_sxm/comm/nccl/2.29.2/nccl", nccl)
    return KernelPackage(root, "0.12.0")
