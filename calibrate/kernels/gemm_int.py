"""Integer matrix products: int8 with int8 activations, and int4 weights alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from calibrate.kernels.quantise import Grouped4Bit, Scaled, grouped_4bit, scaled_rows

# ``torch._int_mm`` on a GPU asks for more rows than this (aten/src/ATen/native/cuda/Blas.cpp).
INT_MM_ROWS_ABOVE = 16
# 16-wide K tiles packed together; 2, 4 or 8, of which 8 reads the widest words.
INNER_K_TILES = 8
INT4_GROUP = 128  # as AWQ and GPTQ checkpoints usually have


class IntMmInt8:
    """``torch._int_mm``, then the scales: int32 accumulators become ``out``'s dtype.

    Both launches count: a model has no use for the accumulators alone. Engines fuse the two.
    """

    name = "int-mm"
    dtype = "int8"

    def missing(self) -> str | None:
        """Torch is always there."""
        return None

    def refuses(self, m: int, n: int, k: int) -> str | None:
        """Refuse what the GPU's kernel does, on every device."""
        if m <= INT_MM_ROWS_ABOVE:
            return f"M must be above {INT_MM_ROWS_ABOVE}, got {m}"
        if n % 8 or k % 8:
            return f"N and K must be multiples of 8, got N = {n}, K = {k}"
        return None

    def pack(self, weight: torch.Tensor) -> Scaled:
        """Return the weight with a scale per output channel."""
        return scaled_rows(weight, torch.int8)

    def pack_input(self, x: torch.Tensor) -> Scaled:
        """Return the activations with a scale per token."""
        return scaled_rows(x, torch.int8)

    def unpack(self, weight: Scaled) -> torch.Tensor:
        """Return the ``[N, K]`` values that the kernel multiplies, in float64."""
        return weight.double()

    def unpack_input(self, x: Scaled) -> torch.Tensor:
        """Return the ``[M, K]`` values that the kernel multiplies, in float64."""
        return x.double()

    def run(self, x: Scaled, weight: Scaled, out: torch.Tensor) -> None:
        """Write the scaled product."""
        sums = torch._int_mm(x.values, weight.values.t())
        out.copy_(sums.mul(x.scale).mul_(weight.scale.t()))


@dataclass(frozen=True, slots=True)
class PackedInt4:
    """A 4-bit weight in the order in which its kernel reads it."""

    packed: torch.Tensor
    scale_and_zero: torch.Tensor  # bfloat16[K / group, N, 2]
    plain: Grouped4Bit


class TinygemmInt4:
    """4-bit weights, bfloat16 activations: torch's tinygemm, made for few rows.

    The kernel has no ``out``: a copy of ``[M, N]`` is counted with it. Engines run Marlin.
    """

    name = "tinygemm"
    dtype = "awq"

    def missing(self) -> str | None:
        """Torch is always there."""
        return None

    def refuses(self, m: int, n: int, k: int) -> str | None:
        """Refuse what the packed layout cannot hold."""
        if n % 16 or k % INT4_GROUP:
            return f"N must be a multiple of 16, K of {INT4_GROUP}, got N = {n}, K = {k}"
        return None

    def pack(self, weight: torch.Tensor) -> PackedInt4:
        """Return the weight in 4 bits, in groups of ``INT4_GROUP``."""
        plain = grouped_4bit(weight, INT4_GROUP)
        if weight.device.type == "cpu":
            packed = torch._convert_weight_to_int4pack_for_cpu(plain.codes, INNER_K_TILES)
        else:
            pairs = plain.codes[:, ::2] << 4 | plain.codes[:, 1::2]
            packed = torch._convert_weight_to_int4pack(pairs.to(torch.uint8), INNER_K_TILES)
        both = torch.stack((plain.scale.t(), plain.zero.t()), dim=-1).contiguous()
        return PackedInt4(packed, both, plain)

    def pack_input(self, x: torch.Tensor) -> torch.Tensor:
        """Return the activations in bfloat16."""
        return x.to(torch.bfloat16).contiguous()

    def unpack(self, weight: PackedInt4) -> torch.Tensor:
        """Return the ``[N, K]`` values that the kernel multiplies, in float64."""
        return weight.plain.double()

    def unpack_input(self, x: torch.Tensor) -> torch.Tensor:
        """Return the ``[M, K]`` values that the kernel multiplies, in float64."""
        return x.double()

    def run(self, x: torch.Tensor, weight: PackedInt4, out: torch.Tensor) -> None:
        """Write the product."""
        multiply = (
            torch._weight_int4pack_mm_for_cpu
            if x.device.type == "cpu"
            else torch._weight_int4pack_mm
        )
        out.copy_(multiply(x, weight.packed, INT4_GROUP, weight.scale_and_zero))
