"""fp8 matrix products: ``torch._scaled_mm`` with a scale per row, or one per tensor."""

from __future__ import annotations

import torch

from calibrate.kernels.quantise import Scaled, scaled_rows, scaled_tensor

FP8 = torch.float8_e4m3fn
# First GPUs with fp8 matrix units: compute capability 8.9 (Ada), 9.0 (Hopper).
FIRST_CAPABILITY = (8, 9)


class ScaledFp8:
    """What both scalings share. Quantising the activations is a pointwise op of its own."""

    name: str
    dtype = "fp8"

    def missing(self) -> str | None:
        """Say if a GPU is there that has no fp8."""
        if torch.cuda.is_available() and torch.cuda.get_device_capability() < FIRST_CAPABILITY:
            return "the GPU has no fp8 matrix units (compute capability 8.9 or newer)"
        return None

    def refuses(self, m: int, n: int, k: int) -> str | None:
        """Refuse what cuBLASLt does: N and K must be multiples of 16."""
        if n % 16 or k % 16:
            return f"N and K must be multiples of 16, got N = {n}, K = {k}"
        return None

    def unpack(self, weight: Scaled) -> torch.Tensor:
        """Return the ``[N, K]`` values that the kernel multiplies, in float64."""
        return weight.double()

    def unpack_input(self, x: Scaled) -> torch.Tensor:
        """Return the ``[M, K]`` values that the kernel multiplies, in float64."""
        return x.double()


class RowScaledFp8(ScaledFp8):
    """A scale per token and per output channel."""

    name = "scaled-mm-row"

    def pack(self, weight: torch.Tensor) -> Scaled:
        """Return the weight with a scale per output channel, ``float32[N, 1]``."""
        return scaled_rows(weight, FP8)

    def pack_input(self, x: torch.Tensor) -> Scaled:
        """Return the activations with a scale per token, ``float32[M, 1]``."""
        return scaled_rows(x, FP8)

    def run(self, x: Scaled, weight: Scaled, out: torch.Tensor) -> None:
        """Write the product in ``out``'s dtype, which must be bfloat16 on a GPU."""
        torch._scaled_mm(
            x.values,
            weight.values.t(),
            scale_a=x.scale,
            scale_b=weight.scale.t(),
            out_dtype=out.dtype,
            use_fast_accum=True,
            out=out,
        )


class TensorScaledFp8(ScaledFp8):
    """One scale for the activations, one for the weight."""

    name = "scaled-mm-tensor"

    def pack(self, weight: torch.Tensor) -> Scaled:
        """Return the weight with one scale."""
        return scaled_tensor(weight, FP8)

    def pack_input(self, x: torch.Tensor) -> Scaled:
        """Return the activations with one scale."""
        return scaled_tensor(x, FP8)

    def run(self, x: Scaled, weight: Scaled, out: torch.Tensor) -> None:
        """Write the product in ``out``'s dtype."""
        torch._scaled_mm(
            x.values,
            weight.values.t(),
            scale_a=x.scale,
            scale_b=weight.scale,
            out_dtype=out.dtype,
            use_fast_accum=True,
            out=out,
        )
