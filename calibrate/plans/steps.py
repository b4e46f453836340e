"""Whole steps of a model, to check the sum of its kernels; and two points measured for drift."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from calibrate.plans.grids import Grids
from calibrate.plans.kernels_of import VALUE_BYTES
from calibrate.plans.operators import Target
from calibrate.plans.point import Point, Work
from calibrate.plans.shapes import dense_matrices


def step_points(target: Target, attention: str) -> Iterator[Point]:
    """Yield whole steps of a dense model whose attention is all full: what the engine runs.

    On one GPU alone: a shard's step lacks its collectives, and is no step of the model.
    """
    model = target.model
    if target.tp > 1 or model.mla is not None or model.experts is not None or model.has_windows:
        return
    decodes, contexts, chunks, pasts = target.grids.steps
    for batch, ctx in product(decodes, contexts):
        if batch * ctx * model.kv_bytes_per_token() <= target.grids.most_step_kv_bytes:
            yield _step(target, attention, ("decode", batch, ctx, 0, 0))
    for new, past in product(chunks, pasts):
        yield _step(target, attention, ("prefill", 0, 0, new, past))
    for new, batch in product(chunks[:-1], decodes[1::2]):
        yield _step(target, attention, ("mixed", batch, contexts[0], new, 0))


def _step(target: Target, attention: str, step: tuple[str, int, int, int, int]) -> Point:
    regime, decodes, ctx, new, past = step
    model, wide = target.model, VALUE_BYTES[target.dtype]
    tokens, kv_tokens = decodes + new, decodes * ctx + new + past
    dense = sum(one.values for one in dense_matrices(model, target.tp))
    active = model.active_parameters - model.vocab_size * model.hidden_size
    weights = min(model.parameters, dense + tokens * active)
    return Point(
        block="steps",
        table="step",
        keys={
            "model": model.name,
            "tp": target.tp,
            "regime": regime,
            "n_dec": decodes,
            "sum_ctx": decodes * ctx,
            "max_ctx": ctx,
            "q_tokens": new,
            "past": past,
        },
        work=Work(
            bytes_moved=weights * wide + kv_tokens * model.kv_bytes_per_token(target.tp),
            flops=2.0 * tokens * active,
            dtype=target.dtype,
        ),
        tier=target.tier,
        models=target.names,
        how={
            "attention": attention,
            "gemm": target.backends.gemm[target.dtype],
            "ops": target.backends.pointwise,
            "dtype": target.dtype,
            "block": target.block_size,
        },
    )


def sentinels(
    dtype: str, gemm: str, attention: str, cube: int, grids: Grids
) -> tuple[Point, Point]:
    """Return a matrix product that is bound by arithmetic, and a decode that is by memory."""
    wide = VALUE_BYTES[dtype]
    batch, ctx = grids.sentinel_decode
    heads = {"hq": 32, "hkv": 8, "d": 128} if ctx > 1024 else {"hq": 8, "hkv": 2, "d": 64}
    kv = batch * ctx * 2.0 * heads["hkv"] * heads["d"] * wide
    product_of = Point(
        block="sentinel",
        table="gemm",
        keys={"dtype": dtype, "backend": gemm, "m": cube, "n": cube, "k": cube, "aligned": 1},
        work=Work(
            bytes_moved=3.0 * cube * cube * wide,
            flops=2.0 * cube**3,
            dtype=dtype,
            cold_bytes=float(cube * cube * wide),
        ),
        tier=0,
    )
    decode = Point(
        block="sentinel",
        table="attn_decode",
        keys={
            "backend": attention,
            "q_dtype": dtype,
            "kv_dtype": dtype,
            **heads,
            "dv": heads["d"],
            "block": 16,
            "batch": batch,
            "ctx": ctx,
            "shape": "uniform",
            "sum_ctx": batch * ctx,
            "max_ctx": ctx,
            "cv": 0.0,
        },
        work=Work(
            bytes_moved=kv,
            flops=kv * heads["hq"] / heads["hkv"] * 2 / wide,
            dtype=dtype,
            cold_bytes=kv,
        ),
        tier=0,
    )
    return product_of, decode
