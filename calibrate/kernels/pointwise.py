"""The small kernels of a layer, in plain torch: norms, rotation with KV store, activation.

``PointwiseOps`` is what a set of them offers; the reference engine calls these methods, and they
are what is measured. Everything is written into tensors that the caller owns.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch.nn import functional

from calibrate.kernels.quantise import scaled_rows
from calibrate.kernels.sampling import sample_exponential, sample_greedy


class PointwiseOps(Protocol):
    """One implementation of the small kernels. All launch only: they can be captured."""

    name: str

    def missing(self) -> str | None:
        """Say why these kernels cannot run on this machine; None if they can."""
        ...

    def rms_norm(
        self, x: torch.Tensor, weight: torch.Tensor, eps: float, out: torch.Tensor
    ) -> None:
        """Write the normalised rows of ``x`` ``[tokens, hidden]``, times ``weight``."""
        ...

    def add_rms_norm(
        self,
        x: torch.Tensor,
        residual: torch.Tensor,
        weight: torch.Tensor,
        eps: float,
        out: torch.Tensor,
    ) -> None:
        """Add ``x`` to ``residual`` in place, then write the norm of the sum."""
        ...

    def qk_norm(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        query_weight: torch.Tensor,
        key_weight: torch.Tensor,
        eps: float,
    ) -> None:
        """Normalise every head of ``[tokens, heads, head_size]`` in place."""
        ...

    def rope_store(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cos_sin: torch.Tensor,
        positions: torch.Tensor,
        slots: torch.Tensor,
        key_cache: torch.Tensor,
        value_cache: torch.Tensor,
    ) -> None:
        """Rotate ``query`` in place; store the rotated ``key`` and ``value`` in the caches.

        Query, key and value are ``[tokens, heads, head_size]`` and may be views of one
        ``[tokens, width]`` product; ``cos_sin`` is float32 ``[positions, head_size]``: cosines,
        then sines, of half a head; ``positions`` and ``slots`` are int64 ``[tokens]``. A slot
        is block times block size plus offset. ``key`` itself may or may not be rotated.
        """
        ...

    def silu_mul(self, gate_up: torch.Tensor, out: torch.Tensor) -> None:
        """Write ``silu(gate) · up`` of rows ``[tokens, 2 · ffn]`` that hold gate, then up."""
        ...

    def quantise_rows(self, x: torch.Tensor, values: torch.Tensor, scale: torch.Tensor) -> None:
        """Write rows ``[tokens, width]`` in fp8 or int8, and a float32 scale ``[tokens, 1]``."""
        ...

    def embed(self, ids: torch.Tensor, table: torch.Tensor, out: torch.Tensor) -> None:
        """Write the rows ``ids`` (int64) of the embedding table."""
        ...

    def greedy(self, logits: torch.Tensor, out: torch.Tensor) -> None:
        """Write the position of the largest logit of every row, int64."""
        ...

    def sample(
        self, logits: torch.Tensor, temperature: float, noise: torch.Tensor, out: torch.Tensor
    ) -> None:
        """Draw fresh exponential ``noise`` (float32, as ``logits``) and write the tokens drawn."""
        ...


def rope_table(positions: int, head_size: int, base: float, device: torch.device) -> torch.Tensor:
    """Return float32 ``[positions, head_size]``: cosines, then sines (RoFormer, 2104.09864)."""
    half = torch.arange(0, head_size, 2, dtype=torch.float64, device=device) / head_size
    angles = torch.arange(positions, dtype=torch.float64, device=device)[:, None] * base**-half
    return torch.cat((angles.cos(), angles.sin()), dim=-1).float()


class TorchOps:
    """The small kernels in plain torch: several launches each, on any device."""

    name = "torch"

    def missing(self) -> str | None:
        """Torch is always there."""
        return None

    def rms_norm(
        self, x: torch.Tensor, weight: torch.Tensor, eps: float, out: torch.Tensor
    ) -> None:
        """Write the normalised rows."""
        out.copy_(functional.rms_norm(x, x.shape[-1:], weight, eps))

    def add_rms_norm(
        self,
        x: torch.Tensor,
        residual: torch.Tensor,
        weight: torch.Tensor,
        eps: float,
        out: torch.Tensor,
    ) -> None:
        """Add, then write the norm."""
        residual.add_(x)
        out.copy_(functional.rms_norm(residual, x.shape[-1:], weight, eps))

    def qk_norm(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        query_weight: torch.Tensor,
        key_weight: torch.Tensor,
        eps: float,
    ) -> None:
        """Normalise every head in place."""
        query.copy_(functional.rms_norm(query, query.shape[-1:], query_weight, eps))
        key.copy_(functional.rms_norm(key, key.shape[-1:], key_weight, eps))

    def rope_store(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cos_sin: torch.Tensor,
        positions: torch.Tensor,
        slots: torch.Tensor,
        key_cache: torch.Tensor,
        value_cache: torch.Tensor,
    ) -> None:
        """Rotate query and key, then store."""
        cos, sin = cos_sin[positions][:, None, :].chunk(2, dim=-1)
        query.copy_(_rotated(query, cos, sin))
        rotated = _rotated(key, cos, sin)
        key_cache.view(-1, *key.shape[1:])[slots] = rotated.to(key_cache.dtype)
        value_cache.view(-1, *value.shape[1:])[slots] = value.to(value_cache.dtype)

    def silu_mul(self, gate_up: torch.Tensor, out: torch.Tensor) -> None:
        """Write the gated activation."""
        gate, up = gate_up.chunk(2, dim=-1)
        torch.mul(functional.silu(gate), up, out=out)

    def quantise_rows(self, x: torch.Tensor, values: torch.Tensor, scale: torch.Tensor) -> None:
        """Write rows in 8 bits and their scales."""
        scaled = scaled_rows(x, values.dtype)
        values.copy_(scaled.values)
        scale.copy_(scaled.scale)

    def embed(self, ids: torch.Tensor, table: torch.Tensor, out: torch.Tensor) -> None:
        """Write the rows of the table."""
        torch.index_select(table, 0, ids, out=out)

    def greedy(self, logits: torch.Tensor, out: torch.Tensor) -> None:
        """Write the position of the largest logit."""
        sample_greedy(logits, out)

    def sample(
        self, logits: torch.Tensor, temperature: float, noise: torch.Tensor, out: torch.Tensor
    ) -> None:
        """Draw a token of every row."""
        sample_exponential(logits, temperature, noise, out)


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Return ``x`` rotated, in float32: halves of a head are the pairs."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
