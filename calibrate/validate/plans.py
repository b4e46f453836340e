"""What is replayed, at which load, and how far off the simulator may be: by machine."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from calibrate.device_names import CPU
from calibrate.device_spec import spec_of
from calibrate.engine.runner import GRAPH_SIZES, EngineSetup
from calibrate.plans.cpu import CPU_MODEL
from calibrate.plans.kernels_of import CPU as CPU_KERNELS
from calibrate.plans.kernels_of import H200 as H200_KERNELS
from calibrate.plans.kernels_of import Backends
from calibrate.validate.traces import TraceShape
from simserve.errors import unknown_name
from simserve.inputs.hardware_profile import GpuSpec
from simserve.inputs.model_catalogue import load_model
from simserve.policy.limits import SchedulerLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """The largest error of one number, as a fraction; of latencies it is that of the sign."""

    layer: str  # device, step, TTFT, TPOT or E2E
    statistic: str
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySpec:
    """One replay: a share of the measured capacity for some time, with a seed.

    ``repeats`` names the replay that this one does again, request by request. ``small_pool``
    leaves so few KV blocks that requests preempt each other.
    """

    name: str
    load: float
    seed: int
    other: bool = False  # of the shape that no fit uses
    small_pool: bool = False
    repeats: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationPlan:
    """A machine, a model, a workload of two shapes, and what must come out.

    ``replays`` stand in the order of their value: when time runs out the last are left out.
    Host terms are fitted to a burst of ``burst`` requests, which also tells the capacity, and
    to a replay of ``calibration_s`` at rising load. ``strict`` tolerances hold for replays at
    no more than ``strict_load`` of the capacity.
    """

    name: str
    setup: EngineSetup
    gpu: GpuSpec
    limits: SchedulerLimits
    shape: TraceShape
    other: TraceShape
    burst: int
    calibration_s: float
    replay_s: float
    replays: tuple[ReplaySpec, ...]
    strict: tuple[Tolerance, ...]
    strict_load: float
    beyond_tables: bool = False  # host time is all that the tables have not, see host_terms
    strict_on: tuple[str, ...] = ()  # names of replays; none: all within the load
    most_drift: float = 0.0  # up to which a replay's own drift is added to its tolerances
    attempts: int = 1  # with a fresh calibration each
    limit_s: float = float("inf")  # of the whole loop


CALIBRATION_LOADS = (0.3, 0.6, 0.85)
"""The loads of the calibration replay: those of the replays that are reported."""
CALIBRATION_SEED, FIRST_SEED, _OTHER_SEED = 1, 11, 31

REPLAYS = (
    ReplaySpec(name="60 %", load=0.60, seed=FIRST_SEED),
    ReplaySpec(name="other", load=0.60, seed=_OTHER_SEED, other=True),
    ReplaySpec(name="60 % again", load=0.60, seed=FIRST_SEED, repeats="60 %"),
    ReplaySpec(name="other again", load=0.60, seed=_OTHER_SEED, other=True, repeats="other"),
    ReplaySpec(name="30 %", load=0.30, seed=FIRST_SEED + 1),
    ReplaySpec(name="small pool", load=0.60, seed=FIRST_SEED + 2, small_pool=True),
    ReplaySpec(name="85 %", load=0.85, seed=FIRST_SEED + 3),
)
"""Three loads, a pool too small, a workload of another shape, and two repeats."""


def cpu_plan(backends: Backends = CPU_KERNELS) -> ValidationPlan:
    """Return the loop of one CPU thread; its tolerances are those of continuous integration."""
    return ValidationPlan(
        name="cpu-smoke",
        setup=EngineSetup(
            model=CPU_MODEL,
            device=torch.device("cpu"),
            dtype=torch.float32,
            attention=backends.attention[0],
            gemm=backends.gemm["fp32"],
            ops=backends.pointwise,
            graph_sizes=(1, 2, 4, 8, 16),  # all measured; others cost as much as the next
        ),
        gpu=spec_of(CPU),
        limits=SchedulerLimits(
            max_num_seqs=16,
            max_num_batched_tokens=128,
            max_model_len=1024,
            num_blocks=513,
            enable_prefix_caching=False,
        ),
        shape=TraceShape(
            name="chat",
            prompt_median=60,
            prompt_spread=0.6,
            most_prompt=300,
            output_median=20,
            output_spread=0.5,
            most_output=60,
        ),
        other=TraceShape(
            name="long prompts in bursts",
            prompt_median=160,
            prompt_spread=0.5,
            most_prompt=500,
            output_median=10,
            output_spread=0.5,
            most_output=40,
            burstiness=0.5,
        ),
        burst=48,
        calibration_s=10.0,
        replay_s=15.0,
        replays=REPLAYS,
        # One thread of a shared machine: a point repeats within 10 %, see the report.
        strict=(
            Tolerance(layer="step", statistic="p50", most=0.10),
            Tolerance(layer="step", statistic="p90", most=0.25),
            Tolerance(layer="TPOT", statistic="mean", most=0.12),
            Tolerance(layer="TTFT", statistic="p50", most=0.15),
            Tolerance(layer="E2E", statistic="mean", most=0.12),
        ),
        strict_load=0.70,
        beyond_tables=True,
        most_drift=0.15,  # who else uses the memory's bandwidth changes from minute to minute
        attempts=2,
    )


def h200_plan(backends: Backends = H200_KERNELS) -> ValidationPlan:
    """Return the loop of one H200: Llama 3.1 8B in bf16, scheduled ahead."""
    return ValidationPlan(
        name="h200",
        setup=EngineSetup(
            model=load_model("llama-3.1-8b"),
            device=torch.device("cuda"),
            dtype=torch.bfloat16,
            attention=backends.attention[0],
            gemm=backends.gemm["bf16"],
            ops=backends.pointwise,
            graph_sizes=GRAPH_SIZES,
        ),
        gpu=spec_of("h200-sxm"),
        limits=SchedulerLimits(
            max_num_seqs=256,
            max_num_batched_tokens=2048,
            max_model_len=8192,
            num_blocks=32_769,  # 512k tokens: 64 GiB beside 15 GiB of weights
            enable_prefix_caching=False,
            async_scheduling=True,
        ),
        shape=TraceShape(
            name="chat",
            prompt_median=512,
            prompt_spread=1.0,
            most_prompt=4096,
            output_median=180,
            output_spread=0.7,
            most_output=1024,
        ),
        other=TraceShape(
            name="long prompts in bursts",
            prompt_median=2048,
            prompt_spread=0.6,
            most_prompt=6144,
            output_median=96,
            output_spread=0.6,
            most_output=512,
            burstiness=0.5,
        ),
        burst=512,
        calibration_s=20.0,
        replay_s=55.0,  # seven, their drains, start and comparison: less than ten minutes
        replays=REPLAYS,
        strict=(
            Tolerance(layer="TPOT", statistic="mean", most=0.03),
            Tolerance(layer="TTFT", statistic="p50", most=0.05),
            Tolerance(layer="TTFT", statistic="p99", most=0.15),
            Tolerance(layer="E2E", statistic="mean", most=0.03),
        ),
        strict_load=1.0,
        strict_on=("other",),
        limit_s=570.0,
    )


PLANS = {"cpu-smoke": cpu_plan, "h200": h200_plan}
"""Validation plans by name."""


def validation_plan(name: str) -> ValidationPlan:
    """Return the plan called ``name``.

    Raises:
        InputError: if there is none.
    """
    if name not in PLANS:
        raise unknown_name("validate", "plan", name, PLANS)
    return PLANS[name]()
