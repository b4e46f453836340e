"""The ten minutes of one H200: what the steps of five models need, the most valuable first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from calibrate.measure.protocol import Protocol
from calibrate.plans.attention import (
    decode_points,
    mixed_points,
    mla_points,
    prefill_points,
    uneven_points,
)
from calibrate.plans.grids import H200
from calibrate.plans.kernels_of import H200 as BACKENDS
from calibrate.plans.machine import ceiling_points, launch_points
from calibrate.plans.operators import Target, gemm_points, moe_points, pointwise_points
from calibrate.plans.plan import Plan, in_order
from calibrate.plans.point import Point
from calibrate.plans.rates import rates_of
from calibrate.plans.steps import sentinels, step_points
from simserve.inputs.hardware_profile import load_gpu
from simserve.inputs.model_catalogue import load_model
from simserve.inputs.model_spec import ModelSpec

NAME = "h200-10min"
MODELS = ("llama-3.1-8b", "llama-3.1-70b", "qwen3-32b", "qwen3-30b-a3b", "deepseek-v3")
"""In order of value: a model's place is the tier of its points."""
_MOST_TP = 8
# Experts of mixture models are measured up to this TP: beyond it they are kept whole (EP).
_MOST_EXPERT_TP = 4
# 50 MB and what it takes to be on the safe side; the run asks the device itself.
_CACHE_BYTES = 60e6
# The slowest point builds a model of 66 GB and compiles its kernels: some ten seconds.
_POINT_LIMIT_S = 30.0
_SEED = 0
_GPU = "h200-sxm"
# Uneven and mixed calls are measured for the most and the fewest heads.
_UNEVEN = (("llama-3.1-8b", 1), ("llama-3.1-70b", 8))
# Where other attention kernels are measured beside the one that the profile prices from.
_COMPARED = (("llama-3.1-8b", 1),)
# The heads of other sizes are at most two octaves away from these: a profile may transfer.
_EIGHT_BIT_PREFILL_TP = (1, 4)
_SENTINEL_CUBE = 8192
_DTYPE, _EIGHT_BITS = "bf16", "fp8"
_DTYPE_BYTES = 2.0

Chosen = tuple[str, str]
"""The backends of attention and of latent attention."""


def h200_plan(models: Sequence[str] = MODELS, attention: str = "", mla: str = "") -> Plan:
    """Return the plan for ``models`` of the catalogue; ``attention`` and ``mla`` name backends."""
    attention, mla = attention or BACKENDS.attention[0], mla or BACKENDS.mla[0]
    gpu = load_gpu(_GPU)
    points = list(
        ceiling_points(
            (_DTYPE, _EIGHT_BITS),
            (256, 1024, 4096),
            (4096, 8192),
            dict(BACKENDS.gemm),
            sustained=True,
        )
    )
    points += launch_points(_DTYPE, (10, 100, 400))
    for rank, model in enumerate(map(load_model, models)):
        for tp in _tp_sizes(model):
            points += _of_model(model, tp, 1 + rank + (tp > 1), (attention, mla))
    return Plan(
        name=NAME,
        device="cuda",
        gpu=gpu.name,
        dtype=_DTYPE,
        block_size=16,
        seed=_SEED,
        protocol=Protocol(cache_bytes=_CACHE_BYTES, point_limit_s=_POINT_LIMIT_S),
        rates=rates_of(gpu),
        models=tuple(models),
        points=in_order(points, _SEED),
        sentinels=sentinels(_DTYPE, BACKENDS.gemm[_DTYPE], attention, _SENTINEL_CUBE, H200),
        absent=("experts in 8 bits (no kernel)", "collectives (one GPU)"),
    )


def _tp_sizes(model: ModelSpec) -> list[int]:
    """Return the sizes up to a server's, powers of two; experts are cut into fewer."""
    most = _MOST_EXPERT_TP if model.experts is not None and model.mla is None else _MOST_TP
    return [tp for tp in model.tp_sizes() if tp <= most and not tp & (tp - 1)]


def _of_model(model: ModelSpec, tp: int, tier: int, backends: Chosen) -> Iterator[Point]:
    attention, mla = backends

    def target(later: int, kv_dtype: str = _DTYPE) -> Target:
        return Target(
            model=model,
            tp=tp,
            dtype=_DTYPE,
            kv_dtype=kv_dtype,
            tier=tier + later,
            grids=H200,
            backends=BACKENDS,
            seed=_SEED,
        )

    # With attention data-parallel every GPU keeps all heads, however few GPUs hold the rest.
    yield from mla_points(target(0), mla, chunks=tp == _MOST_TP)
    if not _fits(model, tp, 1.0):
        return
    yield from gemm_points(target(0), _DTYPE)
    yield from decode_points(target(0), attention)
    yield from prefill_points(target(0), attention)
    yield from pointwise_points(target(0))
    yield from moe_points(target(0), _DTYPE)
    if _fits(model, tp, _DTYPE_BYTES):
        yield from step_points(target(1), attention)
    yield from gemm_points(target(2), _EIGHT_BITS)
    yield from decode_points(target(2, _EIGHT_BITS), attention)
    if tp in _EIGHT_BIT_PREFILL_TP:
        yield from prefill_points(target(2, _EIGHT_BITS), attention)
    if (model.name, tp) in _UNEVEN:
        yield from uneven_points(target(1), attention)
        yield from mixed_points(target(1), attention)
        yield from mixed_points(target(2, _EIGHT_BITS), attention)
    if (model.name, tp) in _COMPARED:
        for other in BACKENDS.attention[:-1]:
            if other != attention:
                yield from decode_points(target(2), other, "backends")


def _fits(model: ModelSpec, tp: int, value_bytes: float) -> bool:
    """Return whether weights of so many bytes leave a tenth of a GPU for everything else."""
    room = 0.9 * load_gpu(_GPU).memory_bytes
    return model.parameters * value_bytes / tp < room
