"""Does the deployment fit: where the memory of a GPU goes, and what vLLM would log of it.

The terms are those that ``inputs`` resolves, so that they are the ones that a run would have.
If it does not fit, ``fit_changes`` finds the way out.
"""

from __future__ import annotations

from dataclasses import dataclass

from simserve.errors import DoesNotFitError
from simserve.inputs.deployment import (
    Deployment,
    DeploymentSpec,
    engine_request,
    resolve_deployment,
)
from simserve.inputs.engine_resolution import kv_request
from simserve.inputs.hardware_profile import GpuSpec
from simserve.inputs.kv_capacity import KvCapacity
from simserve.inputs.memory_terms import KvRequest, MemoryTerm, reserved_terms
from simserve.inputs.model_spec import ModelSpec
from simserve.inputs.prices import PriceBook
from simserve.inputs.validation import Origins
from simserve.planning.fit_changes import Change, Changes, fleet_usd_per_hour


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFit:
    """Where the memory of each GPU goes.

    ``terms`` sum to the GPU's memory, or to ``over_bytes`` more. ``deployment`` is None and
    ``reason`` says why if it does not fit; ``changes`` are then the way out.
    """

    model: ModelSpec
    gpu: GpuSpec
    tp: int
    replicas: int
    max_model_len: int
    terms: tuple[MemoryTerm, ...]
    deployment: Deployment | None
    reason: str | None
    over_bytes: int
    usd_per_hour: float | None
    changes: tuple[Change, ...]

    @property
    def fits(self) -> bool:
        """Whether the engine would start."""
        return self.deployment is not None


def memory_fit(spec: DeploymentSpec, origins: Origins, prices: PriceBook) -> MemoryFit:
    """Return whether ``spec`` fits, its memory term by term, and the way out if it does not.

    Raises:
        InputError: for anything else that is wrong with it.
    """
    request, engine = engine_request(spec, origins)
    pool = kv_request(request, engine)
    deployment, reason = None, None
    try:
        deployment = resolve_deployment(spec, origins)
    except DoesNotFitError as error:
        reason = str(error)
    gpu = request.gpu
    if deployment is not None:
        terms = _split_spare(deployment.kv.terms, gpu, pool)
    else:
        terms = _terms_without_pool(gpu, reserved_terms(request.model, engine, pool), pool)
    now = fleet_usd_per_hour(prices, gpu.name, spec.tp, spec.replicas)
    return MemoryFit(
        model=request.model,
        gpu=gpu,
        tp=spec.tp,
        replicas=spec.replicas,
        max_model_len=pool.max_model_len,
        terms=terms,
        deployment=deployment,
        reason=reason,
        over_bytes=sum(term.bytes for term in terms) - gpu.memory_bytes,
        usd_per_hour=now,
        changes=() if deployment else Changes(spec, origins, prices, request.model).best(now),
    )


def max_concurrency(kv: KvCapacity, max_model_len: int) -> float:
    """Return how many requests of ``max_model_len`` the blocks hold, as vLLM 0.33 counts.

    ``num_blocks`` over the blocks of one request, the null block included
    (vllm/v1/core/kv_cache_utils.py, get_max_concurrency_for_kv_cache_config).
    """
    return kv.num_blocks / -(-max_model_len // kv.block_size)


def vllm_lines(kv: KvCapacity, max_model_len: int) -> tuple[str, str]:
    """Return what vLLM logs of its KV cache; 0.33 writes both on one line.

    Its number of tokens is ``max_concurrency × max_model_len`` (get_kv_cache_capacity).
    """
    concurrency = max_concurrency(kv, max_model_len)
    return (
        f"GPU KV cache size: {int(concurrency * max_model_len):,} tokens",
        f"Maximum concurrency for {max_model_len:,} tokens per request: {concurrency:.2f}x",
    )


def _split_spare(
    terms: tuple[MemoryTerm, ...], gpu: GpuSpec, pool: KvRequest
) -> tuple[MemoryTerm, ...]:
    """Return the terms with ``spare`` told apart: kept back by the fraction, and left over."""
    *others, spare = terms
    kept = min(spare.bytes, _outside_fraction(gpu, pool))
    return (
        *others,
        MemoryTerm("reserve", kept, "derived", _kept_back(pool)),
        MemoryTerm("free", spare.bytes - kept, "derived", "less than a block, or not asked for"),
    )


def _terms_without_pool(
    gpu: GpuSpec, taken: list[MemoryTerm], pool: KvRequest
) -> tuple[MemoryTerm, ...]:
    cuda = gpu.sources["cuda_reserved_bytes"]
    kept = _outside_fraction(gpu, pool)
    room = gpu.memory_bytes - gpu.cuda_reserved_bytes - kept - sum(term.bytes for term in taken)
    return (
        MemoryTerm("cuda_reserved", gpu.cuda_reserved_bytes, cuda.kind, cuda.source),
        *taken,
        MemoryTerm("kv_room", max(0, room), "derived", "what is left for KV blocks: too little"),
        MemoryTerm("reserve", kept, "derived", _kept_back(pool)),
    )


def _outside_fraction(gpu: GpuSpec, pool: KvRequest) -> int:
    """Return the bytes that ``gpu_memory_utilization`` keeps back; none if the pool is given."""
    if pool.num_gpu_blocks is not None or pool.kv_cache_memory_bytes is not None:
        return 0
    visible = gpu.memory_bytes - gpu.cuda_reserved_bytes
    return visible - int(pool.gpu_memory_utilization * visible)


def _kept_back(pool: KvRequest) -> str:
    return f"outside gpu_memory_utilization {pool.gpu_memory_utilization:g}"
