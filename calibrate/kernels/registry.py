"""Every kernel by name: a factory, where it runs, and why it is missing if it is."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import torch

from calibrate.kernels.interface import Gemm, PagedAttention
from calibrate.kernels.latent import LatentAttention
from calibrate.kernels.moe import Experts
from calibrate.kernels.pointwise import PointwiseOps

K = TypeVar("K")
CPU: Final = ("cpu",)
CUDA: Final = ("cuda",)
ANY: Final = ("cpu", "cuda")


@dataclass(frozen=True, slots=True)
class Entry(Generic[K]):
    """A factory that imports its module only when it is called."""

    module: str  # in calibrate.kernels
    attribute: str
    devices: tuple[str, ...]  # device types that it can serve
    captured: bool = True  # it can run inside a CUDA graph

    def __call__(self) -> K:
        """Return a new kernel object.

        Raises:
            ImportError: if something that the module needs is not installed.
        """
        made: K = getattr(
            importlib.import_module(f"calibrate.kernels.{self.module}"), self.attribute
        )()
        return made


ATTENTION: Final[dict[str, Entry[PagedAttention]]] = {
    "torch": Entry("torch_cpu", "TorchAttention", ANY),
    "triton": Entry("triton_attention", "TritonAttention", ANY),
    "fa3": Entry("fa3", "FlashAttention3", CUDA),
    "flashinfer": Entry("flashinfer_backend", "FlashInfer", CUDA),
}
# Absorbed multi-head latent attention.
MLA: Final[dict[str, Entry[LatentAttention]]] = {
    "torch": Entry("latent", "TorchLatent", ANY, captured=False),
    "fa3": Entry("fa3", "FlashAttention3Latent", CUDA),
    "flashmla": Entry("flashmla", "FlashMla", CUDA),
    "flashinfer-mla": Entry("flashinfer_backend", "FlashInferMla", CUDA),
}
GEMM: Final[dict[str, Entry[Gemm]]] = {
    "torch-cpu-fp32": Entry("gemm", "CpuFloat32", CPU),
    "torch-cpu-bf16": Entry("gemm", "CpuBfloat16", CPU),
    "cublaslt-bf16": Entry("gemm", "CublasLtBfloat16", CUDA),
    "scaled-mm-row-fp8": Entry("gemm_fp8", "RowScaledFp8", CUDA),
    "scaled-mm-tensor-fp8": Entry("gemm_fp8", "TensorScaledFp8", ANY),
    "int-mm-int8": Entry("gemm_int", "IntMmInt8", ANY),
    "tinygemm-int4": Entry("gemm_int", "TinygemmInt4", ANY),
}
MOE: Final[dict[str, Entry[Experts]]] = {
    "torch": Entry("moe", "LoopedExperts", CPU, captured=False),
    "grouped-mm": Entry("moe", "GroupedMm", ANY),
}
OPS: Final[dict[str, Entry[PointwiseOps]]] = {
    "torch": Entry("pointwise", "TorchOps", ANY),
    "triton": Entry("triton_pointwise", "TritonOps", ANY),
}


@dataclass(frozen=True, slots=True)
class Listed(Generic[K]):
    """One kernel on one device: the object, or why there is none."""

    name: str
    kernel: K | None
    missing: str | None


def survey(
    table: Mapping[str, Entry[K]], device: torch.device, without: Collection[str] = ()
) -> Iterator[Listed[K]]:
    """Yield every kernel of a table that is meant for a device, present or missing.

    Those ``without`` are missing: nothing of theirs is loaded, which alone may end a process.
    """
    for name, entry in table.items():
        if device.type not in entry.devices:
            continue
        if name in without:
            yield Listed(name, None, "left out")
            continue
        try:
            kernel = entry()
        except (ImportError, AttributeError, OSError) as error:
            yield Listed(name, None, f"not installed: {error}")
            continue
        reason: str | None = kernel.missing()  # type: ignore[attr-defined]
        yield Listed(name, None if reason else kernel, reason)


def available(table: Mapping[str, Entry[K]], device: torch.device) -> dict[str, K]:
    """Return the kernels of a table that can run on a device, by name."""
    return {
        listed.name: listed.kernel for listed in survey(table, device) if listed.kernel is not None
    }
