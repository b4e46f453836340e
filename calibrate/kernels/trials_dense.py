"""Trials of matrix products and of experts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch

from calibrate.kernels import reference
from calibrate.kernels.interface import Gemm
from calibrate.kernels.moe import Experts, MoeShape, route
from calibrate.kernels.trials import LIMITS, Trial, normal_, overwrite, relative_error

# What a format itself loses on normal values, with a margin of a half; measured in float64.
FORMAT_LIMITS: Final[Mapping[str, float]] = {
    "fp32": 1e-4, "bf16": 1e-2, "fp8": 6e-2, "int8": 2e-2, "awq": 1.5e-1,
}  # fmt: skip


class GemmTrial:
    """A product at one size: against the values that the kernel holds, and those it was given."""

    def __init__(self, kernel: Gemm, size: tuple[int, int, int], device: torch.device) -> None:
        self.kernel, self.size = kernel, size
        m, n, k = size
        kind = torch.float32 if kernel.dtype == "fp32" else torch.bfloat16
        self.x = torch.empty((m, k), dtype=kind, device=device)
        self.weight = torch.empty((n, k), dtype=kind, device=device)
        self.out = torch.empty((m, n), dtype=kind, device=device)
        self.packed: Any = None
        self.expected = self.meant = torch.empty(0)
        self.limit = LIMITS[kind]
        self.case = f"{m} x {n} x {k}"

    def refuses(self) -> str | None:
        """Ask the kernel."""
        return self.kernel.refuses(*self.size)

    def fill(self, generator: torch.Generator) -> None:
        """Draw and pack both operands."""
        normal_(self.x, generator)
        normal_(self.weight, generator, scale=self.size[2] ** -0.5)
        packed = self.kernel.pack_input(self.x), self.kernel.pack(self.weight)
        if self.packed is None:
            self.packed = packed
        else:
            for held, new in zip(self.packed, packed, strict=True):
                overwrite(held, new)
        self.meant = self.expected = reference.gemm(self.x, self.weight)
        if hasattr(self.kernel, "unpack"):
            held_x = self.kernel.unpack_input(packed[0])  # type: ignore[attr-defined]
            self.expected = reference.gemm(held_x, self.kernel.unpack(packed[1]))
        self.out.fill_(torch.nan)

    def run(self) -> None:
        """Launch."""
        x, weight = self.packed
        self.kernel.run(x, weight, self.out)

    def error(self) -> float:
        """Return the error against the held values; if the format lost too much, against all."""
        lost = relative_error(self.out, self.meant)
        kept = relative_error(self.out, self.expected)
        return kept if lost <= FORMAT_LIMITS[self.kernel.dtype] else max(lost, kept)


class ExpertsTrial:
    """A mixture of experts with uneven random routing."""

    def __init__(self, kernel: Experts, shape: MoeShape, tokens: int, device: torch.device) -> None:
        self.kernel, self.shape, self.tokens = kernel, shape, tokens
        kind = torch.bfloat16
        up = (shape.experts, 2 * shape.inter, shape.hidden)
        self.gate_up = torch.empty(up, dtype=kind, device=device)
        down = (shape.experts, shape.hidden, shape.inter)
        self.down = torch.empty(down, dtype=kind, device=device)
        self.x = torch.empty((tokens, shape.hidden), dtype=kind, device=device)
        self.ids = torch.empty((tokens, shape.top_k), dtype=torch.int64, device=device)
        self.shares = torch.empty((tokens, shape.top_k), device=device)
        self.out = torch.empty_like(self.x)
        self.packed: Any = None
        self.expected = torch.empty(0)
        self.limit = LIMITS[kind]
        self.case = f"{tokens} tokens, {shape.top_k} of {shape.experts}"

    def refuses(self) -> str | None:
        """Ask the kernel."""
        return self.kernel.refuses(self.shape, self.tokens)

    def fill(self, generator: torch.Generator) -> None:
        """Draw tokens, weights and routing; some experts are popular."""
        shape, device = self.shape, self.x.device
        normal_(self.x, generator)
        normal_(self.gate_up, generator, scale=shape.hidden**-0.5)
        normal_(self.down, generator, scale=shape.inter**-0.5)
        logits = torch.randn((self.tokens, shape.experts), generator=generator, device=device)
        popular = torch.randn(shape.experts, generator=generator, device=device)
        ids, shares = route(logits + popular, shape.top_k)
        self.ids.copy_(ids)
        self.shares.copy_(shares)
        packed = self.kernel.pack(self.gate_up, self.down)
        if self.packed is None:
            self.packed = packed
        else:
            overwrite(self.packed, packed)
        self.expected = reference.experts(self.x, self.gate_up, self.down, ids, shares)
        self.out.fill_(torch.nan)

    def run(self) -> None:
        """Launch."""
        self.kernel.run(self.packed, self.x, self.ids, self.shares, self.out)

    def error(self) -> float:
        """Return the relative error."""
        return relative_error(self.out, self.expected)


def gemm_trials(kernel: Gemm, device: torch.device) -> Iterator[Trial]:
    """Yield products of few and many rows, aligned and not."""
    sizes = [(1, 256, 128), (8, 512, 256), (17, 256, 384), (64, 512, 512), (129, 384, 256)]
    sizes.append((1000, 6144, 4096) if device.type == "cuda" else (200, 256, 1024))
    for size in sizes:
        yield GemmTrial(kernel, size, device)


def experts_trials(kernel: Experts, device: torch.device) -> Iterator[Trial]:
    """Yield one token, fewer tokens than experts, and many."""
    for tokens in (1, 9, 130):
        yield ExpertsTrial(kernel, MoeShape(16, 4, 128, 96), tokens, device)
