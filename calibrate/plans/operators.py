"""Points of one model's matrices, small kernels and experts on one of ``tp`` GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from calibrate.plans import batches
from calibrate.plans.grids import Grids
from calibrate.plans.kernels_of import VALUE_BYTES, Backends
from calibrate.plans.point import Point, Work
from calibrate.plans.shapes import EIGHT_BIT_PARTS, dense_matrices, pointwise_widths
from simserve.inputs.model_spec import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A model on one of ``tp`` GPUs, in one dtype; ``tier`` is the value of its points."""

    model: ModelSpec
    tp: int
    dtype: str
    kv_dtype: str
    tier: int
    grids: Grids
    backends: Backends
    block_size: int = 16
    seed: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The model's name, as points have it."""
        return (self.model.name,)


def gemm_points(target: Target, dtype: str) -> Iterator[Point]:
    """Yield the matrices of ``dtype``: aligned rows, and rows that waste most on padding."""
    eight_bits = VALUE_BYTES[dtype] == 1
    for matrix in dense_matrices(target.model, target.tp):
        if eight_bits and matrix.part not in EIGHT_BIT_PARTS:
            continue
        grids = target.grids
        head = matrix.part == "head"
        rows = grids.head_rows if head else grids.gemm_rows
        unaligned = [m for m in grids.unaligned_rows.get(dtype, ()) if m <= max(rows)]
        for m in (*rows, *unaligned):
            yield _gemm(target, dtype, (m, matrix.outputs, matrix.inputs), m not in unaligned)


def _gemm(target: Target, dtype: str, shape: tuple[int, int, int], aligned: bool) -> Point:
    m, n, k = shape
    weights = n * k * VALUE_BYTES[dtype]
    activations = m * (k * VALUE_BYTES[dtype] + n * VALUE_BYTES[target.dtype])
    backend = target.backends.gemm[dtype]
    return Point(
        block=f"gemm-{dtype}",
        table="gemm",
        keys={"dtype": dtype, "backend": backend, "m": m, "n": n, "k": k, "aligned": int(aligned)},
        work=Work(
            bytes_moved=weights + activations,
            flops=2.0 * m * n * k,
            dtype=dtype,
            cold_bytes=weights,
        ),
        tier=target.tier,
        models=target.names,
    )


def pointwise_points(target: Target) -> Iterator[Point]:
    """Yield the small kernels of a layer, the embedding, and sampling (by sequences)."""
    wide = VALUE_BYTES[target.dtype]
    for op, width, heads in pointwise_widths(target.model, target.tp):
        sizes = target.grids.head_rows if op == "sample" else target.grids.tokens
        how = {}
        if heads is not None:
            how = {"heads": heads.queries, "kv_heads": heads.keys, "head_size": heads.size}
        for tokens in sizes:
            yield Point(
                block="pointwise",
                table="pointwise",
                keys={"op": op, "tokens": tokens, "width": width, "dtype": target.dtype},
                work=Work(bytes_moved=2.0 * tokens * width * wide, dtype=target.dtype),
                tier=target.tier,
                models=target.names,
                how={"kernel": target.backends.pointwise, "block": target.block_size, **how},
            )


def moe_points(target: Target, dtype: str) -> Iterator[Point]:
    """Yield the experts of a layer as a group, by routing; none for a dense model."""
    experts = target.model.experts
    if experts is None:
        return
    hidden, inter = target.model.hidden_size, experts.ffn_size // target.tp
    expert_bytes = target.model.ffn_matrices * hidden * inter * VALUE_BYTES[dtype]
    for routing in batches.ROUTINGS:
        for tokens in target.grids.moe_tokens:
            draw = (routing, tokens, experts.count, experts.per_token, target.seed)
            active, most = batches.load(*draw)
            rows = tokens * experts.per_token
            yield Point(
                block="moe",
                table="moe",
                keys={
                    "dtype": dtype,
                    "experts": experts.count,
                    "topk": experts.per_token,
                    "hidden": hidden,
                    "inter": experts.ffn_size,
                    "tp": target.tp,
                    "ep": 1,
                    "tokens": tokens,
                    "routing": routing,
                    "active": active,
                    "max_load": round(most, 3),
                },
                work=Work(
                    bytes_moved=active * expert_bytes + 2.0 * rows * hidden * 2,
                    flops=2.0 * rows * target.model.ffn_matrices * hidden * inter,
                    dtype=dtype,
                    cold_bytes=experts.count * expert_bytes,
                ),
                tier=target.tier,
                models=target.names,
                how={"kernel": target.backends.moe, "seed": target.seed},
            )
