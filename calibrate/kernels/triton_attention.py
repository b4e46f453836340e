"""The Triton paged attention as one kernel: split decodes, tiled prefills, both for a mix."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

import torch

from calibrate.kernels.interface import AttentionShape, PagedBatch
from calibrate.kernels.triton_decode import DecodePlan, plan_decode, run_decode
from calibrate.kernels.triton_prefill import TILE_ROWS, run_prefill

HEAD_SIZES: Final = range(16, 129, 8)  # beyond 128 the prefill's tiles spill registers
FIRST_FP8: Final = (8, 9)  # the first compute capability that converts fp8 e4m3 in hardware
DTYPES: Final = (torch.bfloat16, torch.float16, torch.float32)
KV_DTYPES: Final = (*DTYPES, torch.float8_e4m3fn)


@dataclass(frozen=True, slots=True)
class TritonPlan:
    """Which kernels one call launches. Both decide by the device's lengths what is theirs."""

    shape: AttentionShape
    batch: PagedBatch
    decode: DecodePlan | None
    prefill: bool


def interpreted() -> bool:
    """Tell whether Triton runs its kernels in Python (``TRITON_INTERPRET=1``)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def missing_triton() -> str | None:
    """Say why no Triton kernel can run on this machine; None if they can."""
    if interpreted() or torch.cuda.is_available():
        return None
    return "no CUDA device (on a CPU only with TRITON_INTERPRET=1, slowly)"


class TritonAttention:
    """Grouped-query paged attention; a mixed call is two launches, decodes first."""

    name = "triton"

    def missing(self) -> str | None:
        """Say if there is no GPU, nor the interpreter."""
        return missing_triton()

    def refuses(self, shape: AttentionShape, batch: PagedBatch) -> str | None:
        """Refuse what the kernels were not written for."""
        if shape.heads % shape.kv_heads:
            return f"{shape.heads} query heads do not divide by {shape.kv_heads} KV heads"
        if shape.heads // shape.kv_heads > TILE_ROWS:
            return f"more than {TILE_ROWS} query heads to a KV head"
        if shape.head_size not in HEAD_SIZES:
            return f"heads of {shape.head_size}: allowed are multiples of 8 from 16 to 128"
        if shape.dtype not in DTYPES or shape.kv_dtype not in KV_DTYPES:
            return f"queries of {shape.dtype} over keys and values of {shape.kv_dtype}"
        return _refused_by_gpu(shape) if batch.block_table.is_cuda else None

    def plan(self, shape: AttentionShape, batch: PagedBatch) -> TritonPlan:
        """Choose the kernels and the decode's splits."""
        decodes = sum(tokens == 1 for tokens in batch.query_tokens)
        return TritonPlan(
            shape, batch, plan_decode(shape, batch) if decodes else None, decodes < batch.seqs
        )

    def run(
        self,
        planned: TritonPlan,
        query: torch.Tensor,
        key_cache: torch.Tensor,
        value_cache: torch.Tensor,
        out: torch.Tensor,
    ) -> None:
        """Launch what the plan says."""
        if planned.decode:
            run_decode(planned.decode, query, key_cache, value_cache, out)
        if planned.prefill:
            run_prefill(
                planned.shape, planned.batch, query, key_cache, value_cache, out,
                skip_decodes=planned.decode is not None,
            )  # fmt: skip


def _refused_by_gpu(shape: AttentionShape) -> str | None:
    """Say what the interpreter can do and the GPU cannot, or only with spilled registers."""
    if shape.dtype == torch.float32:
        return "float32 is for the interpreter: its tiles do not fit a GPU's registers"
    if shape.kv_dtype.itemsize == 1 and torch.cuda.get_device_capability() < FIRST_FP8:
        return "fp8 keys and values need compute capability 8.9"
    return None
