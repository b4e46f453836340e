"""Values in fewer bits with the scales to read them by: rows, tensors and groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

# The largest value of each format. e4m3fn: OCP 8-bit floating point, 448. int8 is symmetric.
LARGEST: Final = {torch.float8_e4m3fn: 448.0, torch.int8: 127.0}
TINY: Final = 1e-12  # keeps the scale of a row of zeros above zero


@dataclass(frozen=True, slots=True)
class Scaled:
    """``values · scale``: ``[rows, K]`` times ``[rows, 1]``, or a scalar scale."""

    values: torch.Tensor
    scale: torch.Tensor  # float32

    def double(self) -> torch.Tensor:
        """Return the values that it stands for, in float64."""
        return self.values.float().double() * self.scale.double()


def into_range(x: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return ``x / scale`` in a format, rounded to nearest, clamped to its range."""
    limit = LARGEST[dtype]
    scaled = (x.float() / scale).clamp(-limit, limit)
    return (scaled if dtype.is_floating_point else scaled.round()).to(dtype)


def scaled_rows(x: torch.Tensor, dtype: torch.dtype) -> Scaled:
    """Return ``x`` with one scale per row: its largest value becomes the format's largest."""
    scale = x.float().abs().amax(dim=-1, keepdim=True).clamp(min=TINY) / LARGEST[dtype]
    return Scaled(into_range(x, scale, dtype), scale)


def scaled_tensor(x: torch.Tensor, dtype: torch.dtype) -> Scaled:
    """Return ``x`` with one scale for all."""
    scale = x.float().abs().amax().clamp(min=TINY) / LARGEST[dtype]
    return Scaled(into_range(x, scale, dtype), scale)


@dataclass(frozen=True, slots=True)
class Grouped4Bit:
    """Codes 0 to 15 with a scale and a zero point for each group of a row.

    A value is ``(code - 8) · scale + zero``: the convention of torch's int4 kernels.
    """

    codes: torch.Tensor  # int32[N, K]
    scale: torch.Tensor  # bfloat16[N, K / group]
    zero: torch.Tensor  # bfloat16[N, K / group]

    def double(self) -> torch.Tensor:
        """Return the values that it stands for, in float64."""
        groups = self.scale.shape[1]
        rows = self.codes.shape[0]
        codes = self.codes.double().view(rows, groups, -1) - 8
        values = codes * self.scale.double()[..., None] + self.zero.double()[..., None]
        return values.view(self.codes.shape)


def grouped_4bit(weight: torch.Tensor, group: int) -> Grouped4Bit:
    """Return the weight in 4 bits: 16 levels between the least and largest of each group."""
    grouped = weight.float().reshape(weight.shape[0], -1, group)
    low, high = grouped.amin(dim=-1), grouped.amax(dim=-1)
    scale = ((high - low).clamp(min=TINY) / 15).to(torch.bfloat16)
    zero = (low + scale.float() * 8).to(torch.bfloat16)
    levels = (grouped - zero.float()[..., None]) / scale.float()[..., None] + 8
    codes = levels.round().clamp(0, 15).to(torch.int32).flatten(1)
    return Grouped4Bit(codes, scale, zero)
