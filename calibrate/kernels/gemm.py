"""Matrix products of plain floats: torch on the CPU, cuBLASLt on a GPU."""

from __future__ import annotations

import torch


class PlainGemm:
    """``torch.mm`` of one dtype: oneDNN or MKL on a CPU, cuBLAS or cuBLASLt on a GPU."""

    name: str
    dtype: str
    torch_dtype: torch.dtype

    def missing(self) -> str | None:
        """Torch is always there."""
        return None

    def refuses(self, m: int, n: int, k: int) -> str | None:
        """Every size is served."""
        return None if min(m, n, k) > 0 else "a matrix needs at least one row and one column"

    def pack(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight in this dtype, ``[N, K]`` as engines keep it."""
        return weight.to(self.torch_dtype).contiguous()

    def pack_input(self, x: torch.Tensor) -> torch.Tensor:
        """Return the activations in this dtype."""
        return x.to(self.torch_dtype).contiguous()

    def unpack(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the ``[N, K]`` values that the kernel multiplies, in float64."""
        return weight.double()

    def unpack_input(self, x: torch.Tensor) -> torch.Tensor:
        """Return the ``[M, K]`` values that the kernel multiplies, in float64."""
        return x.double()

    def run(self, x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
        """Write ``x @ weight.T``; accumulated in float32."""
        torch.mm(x, weight.t(), out=out)


class CpuFloat32(PlainGemm):
    """float32 on the CPU."""

    name = "torch-cpu"
    dtype = "fp32"
    torch_dtype = torch.float32


class CpuBfloat16(PlainGemm):
    """bfloat16 on the CPU."""

    name = "torch-cpu"
    dtype = "bf16"
    torch_dtype = torch.bfloat16


class CublasLtBfloat16(PlainGemm):
    """bfloat16 on a GPU: what engines run for unquantised weights."""

    name = "cublaslt"
    dtype = "bf16"
    torch_dtype = torch.bfloat16

    def missing(self) -> str | None:
        """Say if there is no GPU."""
        return None if torch.cuda.is_available() else "no CUDA device"
