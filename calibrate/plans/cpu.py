"""The plan that rehearses everything on one CPU thread: a small model, in seconds."""

from __future__ import annotations

from calibrate.measure.protocol import Protocol
from calibrate.plans.attention import (
    decode_points,
    mixed_points,
    prefill_points,
    uneven_points,
)
from calibrate.plans.grids import CPU
from calibrate.plans.kernels_of import CPU as BACKENDS
from calibrate.plans.machine import ceiling_points, launch_points
from calibrate.plans.operators import Target, gemm_points, pointwise_points
from calibrate.plans.plan import Plan, in_order
from calibrate.plans.rates import Rates
from calibrate.plans.steps import sentinels, step_points
from simserve.inputs.model_spec import ModelSpec

NAME = "cpu-smoke"
CPU_MODEL = ModelSpec(
    name="cpu-small",
    hf_id="none/cpu-small",
    layers=4,
    hidden_size=512,
    attention_heads=8,
    kv_heads=2,
    head_size=64,
    ffn_size=1536,
    vocab_size=4096,
    tied_embeddings=False,
    max_position_embeddings=4096,
    weight_bytes_per_value=4.0,
    kv_bytes_per_value=4.0,
    source="made up: small enough for one thread of a CPU",
    date="2026-11-20",
)
"""The model that the reference engine runs on a CPU: 17 million values in float32."""
_DTYPE = "fp32"
_SEED = 0
_SENTINEL_CUBE = 256
# One core of a server of 2020 in float32, roughly; for the dry run alone (2026-11-20).
_RATES = Rates(
    bytes_per_s=8e9,
    flops_per_s={_DTYPE: 40e9},
    floor_s=10e-6,
    setup_s=0.003,
    source="one core of a server, roughly",
)
# Buffers of 64 MB: as much as a step of the model reads, so that kernels find in the cache what
# they find there in a step.
_PROTOCOL = Protocol(
    cache_bytes=16e6,
    captures=False,
    most_calls=1000,
    min_s=0.030,
    point_limit_s=30.0,
    start_limit_s=120.0,
    sentinel_every_s=3.0,
)


def cpu_plan(attention: str = "") -> Plan:
    """Return the plan; ``attention`` names the backend."""
    attention = attention or BACKENDS.attention[0]
    target = Target(
        model=CPU_MODEL,
        tp=1,
        dtype=_DTYPE,
        kv_dtype=_DTYPE,
        tier=1,
        grids=CPU,
        backends=BACKENDS,
        seed=_SEED,
    )
    points = [
        *ceiling_points((_DTYPE,), (64,), (512,), dict(BACKENDS.gemm), sustained=False),
        *launch_points(_DTYPE, ()),
        *gemm_points(target, _DTYPE),
        *decode_points(target, attention),
        *prefill_points(target, attention),
        *pointwise_points(target),
        *uneven_points(target, attention),
        *mixed_points(target, attention),
        *step_points(target, attention),
    ]
    return Plan(
        name=NAME,
        device="cpu",
        gpu=None,
        dtype=_DTYPE,
        block_size=target.block_size,
        seed=_SEED,
        protocol=_PROTOCOL,
        rates=_RATES,
        models=(CPU_MODEL.name,),
        points=in_order(points, _SEED),
        sentinels=sentinels(_DTYPE, BACKENDS.gemm[_DTYPE], attention, _SENTINEL_CUBE, CPU),
    )
