"""What is deployed: a model on GPUs under an engine, every setting resolved to a number.

``DeploymentSpec`` is what a file says, ``Deployment`` what follows from it; ``sources``
says for every engine setting whether it was given or whose default it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from simserve.errors import InputError, nearest_name
from simserve.inputs.engine_defaults import EngineDefaults, load_engine
from simserve.inputs.engine_resolution import EngineRequest, EngineSettings, resolve_engine
from simserve.inputs.hardware_profile import GpuSpec, load_gpu
from simserve.inputs.kv_capacity import KvCapacity
from simserve.inputs.model_catalogue import load_model
from simserve.inputs.model_spec import ModelSpec
from simserve.inputs.quantization import (
    AS_STORED,
    KV_DTYPES,
    QUANTIZATION_NAMES,
    find_format,
    find_kv_bytes,
    refuse_older_gpu,
    refuse_other_format,
)
from simserve.inputs.units import BytesOrZero, PositiveCount, TokenCount, TokenCountOrZero
from simserve.inputs.validation import Origins, StrictModel, validate

ROUTER_NAMES = ("round-robin", "least-loaded")
SCHEDULER_NAMES = ("chunked-prefill", "continuous", "static")
POLICY_NAMES = ("fcfs", "priority")

_CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_NOT_MODELLED = "nothing: simserve does not model this setting yet; leave it out"


def _one_of(names: tuple[str, ...], other: str = "") -> AfterValidator:
    """Return a validator for a name in ``names``, with hyphens or underscores."""

    def check(value: str) -> str:
        name = value.strip().lower().replace("_", "-")
        if name in names:
            return name
        if other and _CLASS_PATH.fullmatch(value):
            return value
        near = nearest_name(name, names)
        raise ValueError(", ".join(names) + other + (f"; did you mean {near}?" if near else ""))

    return AfterValidator(check)


def _within(lowest: float, highest: float, allowed: str) -> AfterValidator:
    def check(value: float) -> float:
        if not lowest <= value <= highest:
            raise ValueError(allowed)
        return value

    return AfterValidator(check)


def _unless_as_stored(value: str | None) -> str | None:
    is_stored = value is not None and value.strip().lower() == AS_STORED
    return None if is_stored else value


_ON_OFF = "true or false"
_FRACTION = "a fraction from 0.01 to 1"
_SIZE = "a size of at least 0, in bytes or such as 2GB or 2GiB"
_COUNT = "an integer of at least 1"
# Far beyond any fleet of one model; more would only exhaust memory.
MOST_REPLICAS = 10_000
_REPLICAS = f"an integer from 1 to {MOST_REPLICAS}"
Name = Annotated[str, Field(min_length=1)]


class DeploymentSpec(StrictModel):
    """The deployment: as a file states it. Engine settings have vLLM's names."""

    KEY_HINTS: ClassVar[Mapping[str, str]] = {
        "tensor_parallel_size": "tp",
        "data_parallel_size": "replicas",
        "num_gpu_blocks_override": "num_gpu_blocks",
        "num_blocks": "num_gpu_blocks (the null block included)",
    } | dict.fromkeys(
        (
            "dtype",
            "pipeline_parallel_size",
            "enable_expert_parallel",
            "speculative_config",
            "kv_transfer_config",
            "kv_offloading_size",
            "cpu_offload_gb",
            "performance_mode",
            "max_num_queued_reqs",
            "max_num_queued_tokens",
            "enforce_eager",
            "enable_lora",
        ),
        _NOT_MODELLED,
    )

    model: Name = Field(description="the name of a model, as text")
    gpu: Name = Field(description="the name of a GPU, as text")
    tp: PositiveCount = Field(default=1, description=f"{_COUNT}: GPUs per replica")
    replicas: Annotated[int, _within(1, MOST_REPLICAS, _REPLICAS)] = Field(
        default=1, description=_REPLICAS
    )
    router: Annotated[str, _one_of(ROUTER_NAMES)] = Field(
        default="round-robin", description=", ".join(ROUTER_NAMES)
    )
    scheduler: Annotated[str, _one_of(SCHEDULER_NAMES, " or package.module:Class")] = Field(
        default="chunked-prefill", description=", ".join(SCHEDULER_NAMES)
    )
    engine: Name = Field(default="vllm", description="the name of an engine, as text")
    latency: Name = Field(default="roofline", description="the name of a latency model, as text")
    allow_extrapolation: bool = Field(
        default=False, description=f"{_ON_OFF}: price shapes far from all that a profile measured"
    )
    quantization: Annotated[Name | None, AfterValidator(_unless_as_stored)] = Field(
        default=None, description=", ".join(QUANTIZATION_NAMES) + ": how weights are stored"
    )
    kv_cache_dtype: Name | None = Field(
        default=None, description=", ".join(KV_DTYPES) + ": how KV values are stored"
    )
    max_num_seqs: PositiveCount | None = Field(default=None, description=_COUNT)
    max_num_batched_tokens: TokenCount | None = Field(
        default=None, description=f"{_COUNT}: tokens per step"
    )
    max_model_len: TokenCount | None = Field(default=None, description=f"{_COUNT}: tokens")
    block_size: TokenCount | None = Field(
        default=None, description=f"{_COUNT}: tokens per KV block"
    )
    enable_prefix_caching: bool | None = Field(default=None, description=_ON_OFF)
    enable_chunked_prefill: bool | None = Field(default=None, description=_ON_OFF)
    long_prefill_token_threshold: TokenCountOrZero | None = Field(
        default=None, description="an integer of at least 0: tokens, 0 is off"
    )
    long_prefill_token_threshold_adaptive: bool | None = Field(default=None, description=_ON_OFF)
    scheduling_policy: Annotated[str, _one_of(POLICY_NAMES)] | None = Field(
        default=None, description=", ".join(POLICY_NAMES)
    )
    scheduler_reserve_full_isl: bool | None = Field(default=None, description=_ON_OFF)
    watermark: Annotated[float, _within(0, 0.99, "a fraction from 0 to 0.99 of the blocks")] | (
        None
    ) = Field(default=None, description="a fraction from 0 to 0.99 of the blocks")
    max_num_active_seqs: PositiveCount | None = Field(default=None, description=_COUNT)
    async_scheduling: bool | None = Field(default=None, description=_ON_OFF)
    prefill_schedule_interval: PositiveCount | None = Field(
        default=None, description=f"{_COUNT}: steps from one with prefill to the next"
    )
    gpu_memory_utilization: Annotated[float, _within(0.01, 1, _FRACTION)] | None = Field(
        default=None, description=_FRACTION
    )
    num_gpu_blocks: PositiveCount | None = Field(
        default=None, description=f"{_COUNT}: KV blocks, the null block included"
    )
    kv_cache_memory_bytes: BytesOrZero | None = Field(default=None, description=_SIZE)
    activation_peak_bytes: BytesOrZero | None = Field(default=None, description=_SIZE)
    context_bytes: BytesOrZero | None = Field(default=None, description=_SIZE)
    cuda_graph_pool_bytes: BytesOrZero | None = Field(default=None, description=_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Everything that a run needs to know of what is deployed; nothing left to default."""

    model: ModelSpec
    gpu: GpuSpec
    tp: int
    replicas: int
    router: str
    scheduler: str
    latency: str
    allow_extrapolation: bool
    engine_name: str
    engine_version: str
    engine: EngineSettings
    kv: KvCapacity
    sources: dict[str, str]


def _stored_as(model: ModelSpec, spec: DeploymentSpec, origins: Origins) -> ModelSpec:
    """Return ``model`` with its weights and KV values in the formats that were given."""
    if spec.quantization is not None:
        which = "deployment.quantization"
        asked = find_format(spec.quantization, origins.where(which), which)
        if asked.experts_only and model.experts is None:
            allowed = f"another format: {asked.method} covers experts, {model.name} has none"
            raise InputError(origins.where(which), which, asked.method, allowed)
        if model.weights is None:
            model = replace(model, weights=asked)
        else:
            refuse_other_format(model.weights, asked, model.name, origins.where(which), which)
    if spec.kv_cache_dtype is not None:
        which = "deployment.kv_cache_dtype"
        width = find_kv_bytes(spec.kv_cache_dtype, origins.where(which), which)
        model = replace(model, kv_bytes_per_value=width or model.kv_bytes_per_value)
    return model


def read_deployment(entry: object, origins: Origins | None = None) -> Deployment:
    """Return the resolved deployment that the mapping ``entry`` describes.

    Raises:
        InputError: for the first thing that is wrong with it.
    """
    origins = origins or Origins("deployment")
    return resolve_deployment(validate(DeploymentSpec, entry, origins, "deployment"), origins)


def resolve_deployment(spec: DeploymentSpec, where: str | Origins = "deployment") -> Deployment:
    """Return the deployment that follows from ``spec``, found in ``where``.

    Raises:
        InputError: for an unknown name or settings that contradict each other.
        DoesNotFitError: if the model does not fit on its GPUs.
    """
    request, engine = engine_request(spec, where)
    resolution = resolve_engine(request, engine)
    return Deployment(
        model=request.model,
        gpu=request.gpu,
        tp=spec.tp,
        replicas=spec.replicas,
        router=spec.router,
        scheduler=spec.scheduler,
        latency=spec.latency,
        allow_extrapolation=spec.allow_extrapolation,
        engine_name=engine.name,
        engine_version=engine.version,
        engine=resolution.settings,
        kv=resolution.kv,
        sources=resolution.sources,
    )


def engine_request(
    spec: DeploymentSpec, where: str | Origins = "deployment"
) -> tuple[EngineRequest, EngineDefaults]:
    """Return what ``spec`` asks of which engine, before anything is fitted into memory.

    Raises:
        InputError: for an unknown name, or a ``tp`` that does not cut the model.
    """
    origins = Origins(where) if isinstance(where, str) else where
    model = load_model(spec.model, origins.where("deployment.model"), "deployment.model")
    model = _stored_as(model, spec, origins)
    gpu = load_gpu(spec.gpu, origins.where("deployment.gpu"), "deployment.gpu")
    if model.weights is not None:
        refuse_older_gpu(model.weights, gpu, origins.where("deployment.gpu"), "deployment.gpu")
    engine = load_engine(spec.engine, origins.where("deployment.engine"), "deployment.engine")
    if spec.tp not in model.tp_sizes():
        allowed = ", ".join(map(str, model.tp_sizes())) + f": sizes that cut {model.name} evenly"
        raise InputError(origins.where("deployment.tp"), "deployment.tp", spec.tp, allowed)
    given: dict[str, Any] = spec.model_dump(exclude_none=True)
    request = EngineRequest(
        model=model, gpu=gpu, tp=spec.tp, scheduler=spec.scheduler, given=given, origins=origins
    )
    return request, engine
