"""How many KV blocks a GPU holds, term by term, as vLLM arrives at ``num_gpu_blocks``.

blocks = (fraction × memory that CUDA sees - weights - activation peak - context - graphs -
NCCL) / bytes of a block. vLLM measures the terms in between at start-up; here they are
estimated, and labelled as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from simserve.errors import DoesNotFitError
from simserve.inputs.engine_defaults import EngineDefaults
from simserve.inputs.hardware_profile import GpuSpec
from simserve.inputs.model_spec import ModelSpec

GB = 10**9
# The null block and one to use.
FEWEST_BLOCKS = 2
# Activations are kept in 16 bits.
ACTIVATION_BYTES_PER_VALUE = 2
# Live at the peak of a layer: its input and the residual, then gate, up and their product.
_HIDDEN_TENSORS, _FFN_TENSORS = 2, 3


@dataclass(frozen=True, slots=True)
class MemoryTerm:
    """Bytes on each GPU that something takes, and how far to trust the figure."""

    name: str
    bytes: int
    kind: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KvCapacity:
    """The KV pool of one replica; block 0 is the null block, which is never handed out.

    ``terms`` are what the GPU's memory goes to, the pool included; ``spare`` in it is what the
    fraction leaves out or whole blocks do not fill. They sum to the GPU's memory.
    """

    num_blocks: int
    block_bytes: int
    block_size: int
    terms: tuple[MemoryTerm, ...]

    @property
    def usable_blocks(self) -> int:
        """Blocks that requests can hold."""
        return self.num_blocks - 1

    @property
    def usable_tokens(self) -> int:
        """Tokens that the usable blocks hold: also the longest single sequence."""
        return self.usable_blocks * self.block_size


@dataclass(frozen=True, slots=True, kw_only=True)
class KvRequest:
    """The settings that the KV pool of one replica depends on.

    ``reserves`` replaces estimated terms by name; ``num_gpu_blocks`` and
    ``kv_cache_memory_bytes`` fix the pool itself.
    """

    tp: int
    block_size: int
    gpu_memory_utilization: float
    max_num_seqs: int
    max_num_batched_tokens: int
    num_gpu_blocks: int | None = None
    kv_cache_memory_bytes: int | None = None
    reserves: Mapping[str, int] | None = None


def kv_capacity(
    model: ModelSpec, gpu: GpuSpec, engine: EngineDefaults, request: KvRequest, where: str
) -> KvCapacity:
    """Return the KV pool of ``model`` on ``request.tp`` GPUs of the given kind.

    Raises:
        DoesNotFitError: if nothing is left for a block, or more is asked for than there is.
    """
    block_bytes = request.block_size * model.kv_bytes_per_token(request.tp)
    taken = _reserved_terms(model, gpu, engine, request)
    room = gpu.memory_bytes - gpu.cuda_reserved_bytes - sum(term.bytes for term in taken)
    if request.num_gpu_blocks is not None:
        pool, kind, source = request.num_gpu_blocks * block_bytes, "given", "num_gpu_blocks"
    elif request.kv_cache_memory_bytes is not None:
        pool, kind, source = request.kv_cache_memory_bytes, "given", "kv_cache_memory_bytes"
    else:
        pool, kind = _room_in_fraction(model, gpu, engine, request), "derived"
        source = f"{request.gpu_memory_utilization:g} of the memory that CUDA sees, less the rest"
        if pool < FEWEST_BLOCKS * block_bytes:
            raise _model_does_not_fit(model, gpu, engine, request, where)
    blocks = pool // block_bytes
    spare = room - blocks * block_bytes
    if spare < 0:
        raise _pool_does_not_fit(request, max(0, room), block_bytes, where)
    reserved = gpu.sources["cuda_reserved_bytes"]
    terms = (
        MemoryTerm("cuda_reserved", gpu.cuda_reserved_bytes, reserved.kind, reserved.source),
        *taken,
        MemoryTerm("kv_blocks", blocks * block_bytes, kind, source),
        MemoryTerm("spare", spare, "derived", "outside the memory fraction, or less than a block"),
    )
    return KvCapacity(
        num_blocks=blocks, block_bytes=block_bytes, block_size=request.block_size, terms=terms
    )


def _room_in_fraction(
    model: ModelSpec, gpu: GpuSpec, engine: EngineDefaults, request: KvRequest
) -> int:
    """Return the bytes that the memory fraction leaves for KV blocks; less than 0 if none."""
    visible = gpu.memory_bytes - gpu.cuda_reserved_bytes
    taken = _reserved_terms(model, gpu, engine, request)
    return int(request.gpu_memory_utilization * visible) - sum(term.bytes for term in taken)


def _reserved_terms(
    model: ModelSpec, gpu: GpuSpec, engine: EngineDefaults, request: KvRequest
) -> list[MemoryTerm]:
    """Return what stands in the memory fraction beside the KV blocks."""
    weights = model.weight_bytes(request.tp)
    terms = [MemoryTerm("weights", weights, model.kind, f"{model.parameters} parameters")]
    terms.append(_activation_peak(model, engine, request))
    for name in ("context", "cuda_graph_pool", "nccl_buffers"):
        reserve = engine.memory[name]
        used = name != "nccl_buffers" or request.tp > 1
        size = round(reserve.value) if used else 0
        terms.append(MemoryTerm(name, size, reserve.kind, reserve.source))
    given = request.reserves or {}
    return [
        MemoryTerm(term.name, given[term.name], "given", f"{term.name}_bytes")
        if term.name in given
        else term
        for term in terms
    ]


def _activation_peak(model: ModelSpec, engine: EngineDefaults, request: KvRequest) -> MemoryTerm:
    """Return the larger of the peaks in a layer and in the sampler, both at full batch."""
    hidden = _HIDDEN_TENSORS * model.hidden_size
    ffn = _FFN_TENSORS * (model.ffn_size // request.tp)
    tokens = request.max_num_batched_tokens
    layer = tokens * (hidden + ffn) * ACTIVATION_BYTES_PER_VALUE
    seqs = min(request.max_num_seqs, tokens)
    per_logit = engine.memory["sampler_bytes_per_logit"]
    logits = round(seqs * model.vocab_size * per_logit.value)
    sampler = logits + tokens * hidden * ACTIVATION_BYTES_PER_VALUE
    if sampler > layer:
        text = f"sampler at {seqs} sequences × {model.vocab_size} logits × {per_logit.value:g} B"
        return MemoryTerm("activation_peak", sampler, "assumed", f"{text}; {per_logit.source}")
    text = f"one layer at {tokens} tokens: {_HIDDEN_TENSORS} hidden and {_FFN_TENSORS} ffn tensors"
    return MemoryTerm("activation_peak", layer, "assumed", text)


def _model_does_not_fit(
    model: ModelSpec, gpu: GpuSpec, engine: EngineDefaults, request: KvRequest, where: str
) -> DoesNotFitError:
    """Return the error for a GPU with no room for KV blocks: by how much, and the way out."""

    def missing_bytes(tp: int) -> int:
        block = request.block_size * model.kv_bytes_per_token(tp)
        room = _room_in_fraction(model, gpu, engine, replace(request, tp=tp))
        return FEWEST_BLOCKS * block - room

    enough = [tp for tp in model.tp_sizes() if tp > request.tp and missing_bytes(tp) <= 0]
    way_out = f"tp {enough[0]} or larger GPUs" if enough else "larger GPUs"
    return DoesNotFitError(
        where,
        "deployment.model",
        f"{model.name} on {request.tp} × {gpu.name}",
        f"{missing_bytes(request.tp) / GB:.1f} GB less per GPU: weights are "
        f"{model.weight_bytes(request.tp) / GB:.1f} GB, memory is {gpu.memory_bytes / GB:.1f} GB "
        f"of which {request.gpu_memory_utilization:g} may be used; take {way_out}",
    )


def _pool_does_not_fit(
    request: KvRequest, room: int, block_bytes: int, where: str
) -> DoesNotFitError:
    """Return the error for a fixed pool that is larger than what the rest leaves."""
    if request.num_gpu_blocks is not None:
        key, got = "num_gpu_blocks", request.num_gpu_blocks
        asked, most = got * block_bytes, f"{room // block_bytes} blocks of {block_bytes} bytes"
    else:
        key = "kv_cache_memory_bytes"
        asked = got = request.kv_cache_memory_bytes or 0
        most = f"{room} bytes"
    missing = (asked - room) / GB
    return DoesNotFitError(
        where, f"deployment.{key}", got, f"at most {most}: {missing:.1f} GB are missing per GPU"
    )
