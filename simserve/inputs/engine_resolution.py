"""From the settings that were given to all of them, by the rules of vLLM 0.33.

A setting that was not given takes the engine's default, which may depend on the GPU and on
the model; the rules are those of ``get_batch_defaults`` in vLLM's ``engine/arg_utils.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from simserve.errors import DoesNotFitError, InputError
from simserve.inputs.engine_defaults import EngineDefaults
from simserve.inputs.hardware_profile import GpuSpec
from simserve.inputs.kv_capacity import GB, SET_ASIDE, KvCapacity, kv_capacity
from simserve.inputs.memory_terms import KvRequest
from simserve.inputs.model_spec import ModelSpec
from simserve.inputs.validation import Origins

# Schedulers that compute every prompt in one piece.
WHOLE_PROMPT_SCHEDULERS = ("continuous", "static")
# vLLM overlaps scheduling with the step before; simserve does not model that yet.
ASYNC_SCHEDULERS = ("chunked-prefill", "chunked-prefill-plain")
"""The schedulers that can plan a step while the one before runs, as vLLM's does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Every limit of one replica's engine, under vLLM's names.

    ``num_blocks`` counts as vLLM's ``num_gpu_blocks`` does, the null block included.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    num_blocks: int
    block_size: int
    enable_prefix_caching: bool
    enable_chunked_prefill: bool
    long_prefill_token_threshold: int
    long_prefill_token_threshold_adaptive: bool
    scheduling_policy: str
    scheduler_reserve_full_isl: bool
    watermark: float
    max_num_active_seqs: int | None
    async_scheduling: bool
    prefill_schedule_interval: int
    gpu_memory_utilization: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """What an engine is asked to run: ``given`` holds only the settings that were given."""

    model: ModelSpec
    gpu: GpuSpec
    tp: int
    scheduler: str
    given: Mapping[str, Any]
    origins: Origins


@dataclass(frozen=True, slots=True)
class Resolution:
    """The settings, the KV pool they leave, and for every setting where it came from."""

    settings: EngineSettings
    kv: KvCapacity
    sources: dict[str, str]


def resolve_engine(request: EngineRequest, engine: EngineDefaults) -> Resolution:
    """Return every setting of the engine.

    Raises:
        InputError: for settings that contradict each other or that vLLM refuses; for more GPUs
            than a link joins.
        DoesNotFitError: if weights, or one longest sequence, do not fit into memory.
    """
    _refuse_beyond_link(request)
    work = _resolve_limits(request, engine)
    kv = _resolve_blocks(work)
    _refuse_too_long(work, kv)
    settings = EngineSettings(**{one.name: work.values[one.name] for one in fields(EngineSettings)})
    return Resolution(settings, kv, {key: work.sources[key] for key in sorted(work.sources)})


def _refuse_beyond_link(request: EngineRequest) -> None:
    """Refuse tensor parallelism through a network: its steps would be priced as if by NVLink."""
    gpu, tp = request.gpu, request.tp
    if tp <= gpu.link_domain:
        return
    if gpu.link_domain == 1:
        allowed = "1: its profile has no link between devices"
    else:
        allowed = f"up to {gpu.link_domain}: so many {gpu.name} are joined by a link; the network "
        allowed += "between nodes is not modelled"
    raise InputError(request.origins.where("deployment.tp"), "deployment.tp", tp, allowed)


def kv_request(request: EngineRequest, engine: EngineDefaults) -> KvRequest:
    """Return what the KV pool is sized from, whether or not anything fits.

    Raises:
        InputError: for settings that contradict each other or that vLLM refuses.
    """
    return _pool_of(_resolve_limits(request, engine))


def _resolve_limits(request: EngineRequest, engine: EngineDefaults) -> _Work:
    """Return the settings resolved as far as they do not depend on the memory."""
    work = _Work(request, engine)
    for key, value in engine.values.items():
        work.take(key, value, engine.source())
    _resolve_async(work)
    _resolve_chunking(work)
    _resolve_model_length(work)
    _resolve_batch(work)
    _refuse_contradictions(work)
    return work


class _Work:
    """The settings while they are being resolved."""

    def __init__(self, request: EngineRequest, engine: EngineDefaults) -> None:
        self.request, self.engine = request, engine
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}

    def is_given(self, key: str) -> bool:
        return self.request.given.get(key) is not None

    def where(self, key: str) -> str:
        return self.request.origins.where(f"deployment.{key}")

    def set(self, key: str, value: Any, source: str) -> None:
        self.values[key], self.sources[key] = value, source

    def take(self, key: str, default: Any, source: str) -> None:
        """Set ``key`` to what was given, else to ``default``, whose source is ``source``."""
        if self.is_given(key):
            self.set(key, self.request.given[key], f"given: {self.where(key)}")
        else:
            self.set(key, default, source)

    def refuse(self, key: str, allowed: str) -> InputError:
        """Return the error for the value of ``key``, saying so if nobody gave it."""
        got = str(self.values[key])
        if not self.is_given(key):
            got += f" ({self.sources[key]})"
        return InputError(self.where(key), f"deployment.{key}", got, allowed)


def _resolve_async(work: _Work) -> None:
    scheduler = work.request.scheduler
    if scheduler in ASYNC_SCHEDULERS:
        return
    if scheduler in WHOLE_PROMPT_SCHEDULERS and work.request.given.get("async_scheduling"):
        raise work.refuse("async_scheduling", f"false with scheduler {scheduler}")
    if scheduler in WHOLE_PROMPT_SCHEDULERS and work.values["prefill_schedule_interval"] > 1:
        raise work.refuse("prefill_schedule_interval", f"1 with scheduler {scheduler}")
    if not work.is_given("async_scheduling"):  # one's own scheduler may have no ``hold``
        work.set("async_scheduling", False, f"follows from scheduler {scheduler}")


def _resolve_chunking(work: _Work) -> None:
    scheduler = work.request.scheduler
    if scheduler not in WHOLE_PROMPT_SCHEDULERS:
        return
    if work.request.given.get("enable_chunked_prefill"):
        allowed = f"false with scheduler {scheduler}, which computes prompts whole"
        raise work.refuse("enable_chunked_prefill", allowed)
    if not work.is_given("enable_chunked_prefill"):
        work.set("enable_chunked_prefill", False, f"follows from scheduler {scheduler}")


def _resolve_model_length(work: _Work) -> None:
    longest = work.request.model.max_position_embeddings
    work.take("max_model_len", longest, f"max_position_embeddings of {work.request.model.name}")
    if work.values["max_model_len"] > longest:
        allowed = f"at most {longest} tokens, the context of {work.request.model.name}"
        raise work.refuse("max_model_len", allowed)


def _resolve_batch(work: _Work) -> None:
    """Set the two batch limits, as vLLM does from the device's memory when they are not given."""
    row = work.engine.row_for(work.request.gpu)
    by_memory = f"{work.engine.source()} for {work.request.gpu.name}"
    length = work.values["max_model_len"]
    work.take("max_num_seqs", row.max_num_seqs, by_memory)
    tokens, source = row.max_num_batched_tokens, by_memory
    if not work.values["enable_chunked_prefill"] and tokens < length:
        tokens, source = length, f"{by_memory}, raised to max_model_len: no chunked prefill"
    if tokens > work.values["max_num_seqs"] * length:
        tokens = work.values["max_num_seqs"] * length
        source = f"{by_memory}, limited to max_num_seqs × max_model_len"
    work.take("max_num_batched_tokens", tokens, source)
    tokens = work.values["max_num_batched_tokens"]
    if not work.is_given("max_num_seqs") and work.values["max_num_seqs"] > tokens:
        work.set("max_num_seqs", tokens, f"{by_memory}, limited to max_num_batched_tokens")


def _refuse_contradictions(work: _Work) -> None:
    values = work.values
    if values["max_num_batched_tokens"] < values["max_num_seqs"]:
        allowed = f"at least max_num_seqs ({values['max_num_seqs']}), in tokens per step"
        raise work.refuse("max_num_batched_tokens", allowed)
    whole = not values["enable_chunked_prefill"]
    if whole and values["max_num_batched_tokens"] < values["max_model_len"]:
        allowed = (
            f"at least max_model_len ({values['max_model_len']}) when chunked prefill is off, "
            "in tokens per step"
        )
        raise work.refuse("max_num_batched_tokens", allowed)
    if values["long_prefill_token_threshold"] > values["max_model_len"]:
        allowed = f"at most max_model_len ({values['max_model_len']}), in tokens"
        raise work.refuse("long_prefill_token_threshold", allowed)


def _pool_of(work: _Work) -> KvRequest:
    given, values = work.request.given, work.values
    reserves = {
        key.removesuffix("_bytes"): given[key]
        for key in ("activation_peak_bytes", "context_bytes", "cuda_graph_pool_bytes")
        if given.get(key) is not None
    }
    return KvRequest(
        tp=work.request.tp,
        block_size=values["block_size"],
        gpu_memory_utilization=values["gpu_memory_utilization"],
        max_num_seqs=values["max_num_seqs"],
        max_num_batched_tokens=values["max_num_batched_tokens"],
        max_model_len=values["max_model_len"],
        num_gpu_blocks=given.get("num_gpu_blocks"),
        kv_cache_memory_bytes=given.get("kv_cache_memory_bytes"),
        reserves=reserves,
    )


def _resolve_blocks(work: _Work) -> KvCapacity:
    fixed_by = _pool_key(work)
    where = work.where(fixed_by or "model")
    kv = kv_capacity(work.request.model, work.request.gpu, work.engine, _pool_of(work), where)
    source = (
        f"given: {work.where(fixed_by)}: {fixed_by}"
        if fixed_by
        else f"memory of {work.request.gpu.name} less weights and estimated reserves"
    )
    if kv.approximation:
        source += f"; {kv.approximation}"
    work.set("num_blocks", kv.num_blocks, source)
    return kv


def _pool_key(work: _Work) -> str | None:
    """Return the setting that fixes the KV pool, None if it follows from the memory."""
    keys = [key for key in ("num_gpu_blocks", "kv_cache_memory_bytes") if work.is_given(key)]
    if len(keys) > 1:
        got = work.request.given[keys[1]]
        allowed = "either num_gpu_blocks or kv_cache_memory_bytes"
        raise InputError(work.where(keys[1]), f"deployment.{keys[1]}", got, allowed)
    return keys[0] if keys else None


def _refuse_too_long(work: _Work, kv: KvCapacity) -> None:
    """Refuse, as vLLM does, a KV pool that cannot hold one sequence of ``max_model_len``."""
    length: int = work.values["max_model_len"]
    if length <= kv.usable_tokens:
        return
    longest = max(0, kv.usable_tokens)
    blocks = -(-length // kv.block_size)
    needed, there = blocks * kv.block_bytes / GB, longest * kv.block_bytes / kv.block_size / GB
    shortage = (
        f"one sequence of {length} tokens needs {needed:.1f} GB of KV cache per GPU, there are "
        f"{there:.1f} GB, {needed - there:.1f} GB are missing"
    )
    if kv.approximation and kv.approximation != SET_ASIDE:
        shortage += f" ({kv.approximation}; a smaller max_num_seqs lets windows be set aside)"
    fixed_by = _pool_key(work)
    if fixed_by:
        got = str(work.request.given[fixed_by])
        enough = blocks + 1 if fixed_by == "num_gpu_blocks" else (blocks + 1) * kv.block_bytes
        allowed = f"at least {enough} (null block included), or max_model_len at most {longest}"
        error = DoesNotFitError(
            work.where(fixed_by), f"deployment.{fixed_by}", got, f"{allowed}; {shortage}"
        )
    else:
        got = str(length)
        if not work.is_given("max_model_len"):
            got += f" ({work.sources['max_model_len']})"
        allowed = f"at most {longest} tokens on {work.request.tp} × {work.request.gpu.name}"
        error = DoesNotFitError(
            work.where("max_model_len"),
            "deployment.max_model_len",
            got,
            f"{allowed}; {shortage}",
        )
    raise error
