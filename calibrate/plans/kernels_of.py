"""The names of the kernels that a plan measures, as ``calibrate.kernels.registry`` has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Backends:
    """Names by kind of kernel.

    ``attention`` and ``mla`` are in order of preference: a run takes the first that the
    machine has. ``gemm`` goes by dtype.
    """

    attention: tuple[str, ...]
    mla: tuple[str, ...]
    gemm: Mapping[str, str]
    moe: str
    pointwise: str


H200 = Backends(
    # What vLLM runs on Hopper; then what needs a wheel; then what needs nothing.
    attention=("fa3", "flashinfer", "triton", "torch"),
    mla=("flashmla", "flashinfer-mla"),
    gemm=MappingProxyType({"bf16": "cublaslt-bf16", "fp8": "scaled-mm-row-fp8"}),
    moe="grouped-mm",
    pointwise="triton",
)
CPU = Backends(
    attention=("torch",),
    mla=(),
    gemm=MappingProxyType({"fp32": "torch-cpu-fp32"}),
    moe="torch",
    pointwise="torch",
)

VALUE_BYTES: Mapping[str, int] = MappingProxyType({"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1})
"""Bytes of one value of each dtype that plans use."""
