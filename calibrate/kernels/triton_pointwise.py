"""The small kernels of a layer in Triton: one launch each, every value read and written once."""

# Triton has no types, and a kernel's arguments are pointers, numbers and constants.
# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def"
from __future__ import annotations

import torch
import triton
import triton.language as tl

from calibrate.kernels.pointwise import TorchOps
from calibrate.kernels.quantise import LARGEST, TINY
from calibrate.kernels.triton_attention import missing_triton

ACT_BLOCK = 1024  # values that one program activates
VALUES_PER_WARP = 512  # 16 a thread: two 16-byte loads of bfloat16
MOST_WARPS = 16


def warps_for(values: int) -> int:
    """Return the warps of a program that holds so many values: 1 to 16, a power of two."""
    padded: int = triton.next_power_of_2(values)
    return min(MOST_WARPS, max(1, padded // VALUES_PER_WARP))


@triton.jit
def norm_kernel(
    x, residual, weight, out, x_row, residual_row, out_row, eps,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    """Normalise one row; with ``ADD``, of the sum that it leaves in ``residual``."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, PADDED)
    real = at < WIDTH
    values = tl.load(x + row * x_row + at, mask=real, other=0.0)
    if ADD:
        held = tl.load(residual + row * residual_row + at, mask=real, other=0.0)
        # Rounded as it is stored: the norm is of what the next layer will add to.
        values = (values.to(tl.float32) + held.to(tl.float32)).to(residual.dtype.element_ty)
        tl.store(residual + row * residual_row + at, values, mask=real)
    wide = values.to(tl.float32)
    inverse = tl.rsqrt(tl.sum(wide * wide, 0) / WIDTH + eps)
    scaled = wide * inverse * tl.load(weight + at, mask=real, other=0.0).to(tl.float32)
    tl.store(out + row * out_row + at, scaled.to(out.dtype.element_ty), mask=real)


@triton.jit
def norm_heads(
    x, weight, eps,
    HEADS: tl.constexpr, PADDED_HEADS: tl.constexpr, SIZE: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """Normalise the heads of one token in place."""
    heads = tl.arange(0, PADDED_HEADS)[:, None]
    at = tl.arange(0, PADDED)[None, :]
    real = (heads < HEADS) & (at < SIZE)
    wide = tl.load(x + heads * SIZE + at, mask=real, other=0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(wide * wide, 1) / SIZE + eps)
    scaled = (
        wide * inverse[:, None] * tl.load(weight + at, mask=at < SIZE, other=0.0).to(tl.float32)
    )
    tl.store(x + heads * SIZE + at, scaled.to(x.dtype.element_ty), mask=real)


@triton.jit
def qk_norm_kernel(
    query, key, query_weight, key_weight, query_row, key_row, eps,
    HEADS: tl.constexpr, PADDED_HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr, PADDED_KV_HEADS: tl.constexpr,
    SIZE: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """Normalise all heads of one token in place."""
    row = tl.program_id(0).to(tl.int64)
    norm_heads(query + row * query_row, query_weight, eps, HEADS, PADDED_HEADS, SIZE, PADDED)
    norm_heads(key + row * key_row, key_weight, eps, KV_HEADS, PADDED_KV_HEADS, SIZE, PADDED)


@triton.jit
def rotate_heads(
    x, target, cos_sin,
    HEADS: tl.constexpr, PADDED_HEADS: tl.constexpr, HALF: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """Rotate the heads of one token from ``x`` to ``target``; halves are the pairs."""
    heads = tl.arange(0, PADDED_HEADS)[:, None]
    at = tl.arange(0, PADDED)[None, :]
    real = (heads < HEADS) & (at < HALF)
    place = heads * (2 * HALF) + at
    cos = tl.load(cos_sin + at, mask=at < HALF, other=0.0)
    sin = tl.load(cos_sin + HALF + at, mask=at < HALF, other=0.0)
    first = tl.load(x + place, mask=real, other=0.0).to(tl.float32)
    second = tl.load(x + place + HALF, mask=real, other=0.0).to(tl.float32)
    kind = target.dtype.element_ty
    tl.store(target + place, (first * cos - second * sin).to(kind), mask=real)
    tl.store(target + place + HALF, (second * cos + first * sin).to(kind), mask=real)


@triton.jit
def rope_store_kernel(
    query, key, value, cos_sin, positions, slots, key_cache, value_cache,
    query_row, key_row, value_row, key_block, key_token, value_block, value_token,
    HEADS: tl.constexpr, PADDED_HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr, PADDED_KV_HEADS: tl.constexpr,
    HALF: tl.constexpr, PADDED: tl.constexpr, BLOCK_SIZE: tl.constexpr,
):  # fmt: skip
    """Rotate one token's query in place, store its rotated key and its value."""
    row = tl.program_id(0).to(tl.int64)
    rotation = cos_sin + tl.load(positions + row) * (2 * HALF)
    slot = tl.load(slots + row)
    block = slot // BLOCK_SIZE
    inside = slot % BLOCK_SIZE
    q = query + row * query_row
    rotate_heads(q, q, rotation, HEADS, PADDED_HEADS, HALF, PADDED)
    rotate_heads(
        key + row * key_row, key_cache + block * key_block + inside * key_token, rotation,
        KV_HEADS, PADDED_KV_HEADS, HALF, PADDED,
    )  # fmt: skip
    heads = tl.arange(0, PADDED_KV_HEADS)[:, None]
    at = tl.arange(0, 2 * PADDED)[None, :]
    real = (heads < KV_HEADS) & (at < 2 * HALF)
    place = heads * (2 * HALF) + at
    v = tl.load(value + row * value_row + place, mask=real, other=0.0)
    stored = value_cache + block * value_block + inside * value_token + place
    tl.store(stored, v.to(value_cache.dtype.element_ty), mask=real)


@triton.jit
def silu_mul_kernel(gate_up, out, gate_row, out_row, width, BLOCK: tl.constexpr):
    """Write one block of ``silu(gate) · up`` of one row."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = at < width
    gate = tl.load(gate_up + row * gate_row + at, mask=real, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * gate_row + width + at, mask=real, other=0.0).to(tl.float32)
    gated = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(out + row * out_row + at, gated.to(out.dtype.element_ty), mask=real)


@triton.jit
def quantise_kernel(
    x, values, scale, x_row, values_row, tiny, largest,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, ROUND: tl.constexpr,
):  # fmt: skip
    """Scale one row so that its largest value becomes the format's largest."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, PADDED)
    real = at < WIDTH
    wide = tl.load(x + row * x_row + at, mask=real, other=0.0).to(tl.float32)
    step = tl.maximum(tl.max(tl.abs(wide), 0), tiny) / largest
    scaled = tl.minimum(tl.maximum(wide / step, -largest), largest)
    if ROUND:
        scaled = tl.floor(scaled + 0.5)
    tl.store(values + row * values_row + at, scaled.to(values.dtype.element_ty), mask=real)
    tl.store(scale + row, step)


class TritonOps(TorchOps):
    """The small kernels as one launch each; embedding and sampling are torch's."""

    name = "triton"

    def missing(self) -> str | None:
        """Say if there is no GPU, nor the interpreter."""
        return missing_triton()

    def rms_norm(
        self, x: torch.Tensor, weight: torch.Tensor, eps: float, out: torch.Tensor
    ) -> None:
        """Write the normalised rows."""
        width = x.shape[1]
        norm_kernel[(x.shape[0],)](
            x, x, weight, out, x.stride(0), x.stride(0), out.stride(0), eps, WIDTH=width,
            PADDED=triton.next_power_of_2(width), ADD=False, num_warps=warps_for(width),
        )  # fmt: skip

    def add_rms_norm(
        self,
        x: torch.Tensor,
        residual: torch.Tensor,
        weight: torch.Tensor,
        eps: float,
        out: torch.Tensor,
    ) -> None:
        """Add, then write the norm."""
        width = x.shape[1]
        norm_kernel[(x.shape[0],)](
            x, residual, weight, out, x.stride(0), residual.stride(0), out.stride(0), eps,
            WIDTH=width, PADDED=triton.next_power_of_2(width), ADD=True,
            num_warps=warps_for(width),
        )  # fmt: skip

    def qk_norm(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        query_weight: torch.Tensor,
        key_weight: torch.Tensor,
        eps: float,
    ) -> None:
        """Normalise every head in place."""
        _check_packed(query, key)
        tokens, heads, size = query.shape
        qk_norm_kernel[(tokens,)](
            query, key, query_weight, key_weight, query.stride(0), key.stride(0), eps,
            HEADS=heads, PADDED_HEADS=triton.next_power_of_2(heads),
            KV_HEADS=key.shape[1], PADDED_KV_HEADS=triton.next_power_of_2(key.shape[1]),
            SIZE=size, PADDED=triton.next_power_of_2(size), num_warps=warps_for(heads * size),
        )  # fmt: skip

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
        """Rotate and store; ``key`` stays as it is."""
        _check_packed(query, key, value, key_cache[0], value_cache[0])
        tokens, heads, size = query.shape
        rope_store_kernel[(tokens,)](
            query, key, value, cos_sin, positions, slots, key_cache, value_cache,
            query.stride(0), key.stride(0), value.stride(0),
            key_cache.stride(0), key_cache.stride(1), value_cache.stride(0), value_cache.stride(1),
            HEADS=heads, PADDED_HEADS=triton.next_power_of_2(heads),
            KV_HEADS=key.shape[1], PADDED_KV_HEADS=triton.next_power_of_2(key.shape[1]),
            HALF=size // 2, PADDED=triton.next_power_of_2(size // 2),
            BLOCK_SIZE=key_cache.shape[1], num_warps=warps_for(heads * size),
        )  # fmt: skip

    def silu_mul(self, gate_up: torch.Tensor, out: torch.Tensor) -> None:
        """Write the gated activation."""
        tokens, width = out.shape
        silu_mul_kernel[(tokens, triton.cdiv(width, ACT_BLOCK))](
            gate_up, out, gate_up.stride(0), out.stride(0), width, BLOCK=ACT_BLOCK,
            num_warps=warps_for(ACT_BLOCK),
        )  # fmt: skip

    def quantise_rows(self, x: torch.Tensor, values: torch.Tensor, scale: torch.Tensor) -> None:
        """Write rows in 8 bits and their scales."""
        width = x.shape[1]
        quantise_kernel[(x.shape[0],)](
            x, values, scale, x.stride(0), values.stride(0), TINY, LARGEST[values.dtype],
            WIDTH=width, PADDED=triton.next_power_of_2(width),
            ROUND=not values.dtype.is_floating_point, num_warps=warps_for(width),
        )  # fmt: skip


def _check_packed(*heads: torch.Tensor) -> None:
    """Refuse ``[tokens, heads, size]`` whose heads do not lie side by side."""
    for one in heads:
        if one.stride(2) != 1 or one.stride(1) != one.shape[2]:
            raise ValueError(f"heads must lie side by side, got strides {one.stride()}")
