"""How many KV blocks a GPU holds, term by term, as vLLM arrives at ``num_gpu_blocks``.

blocks = (fraction × memory that CUDA sees - weights - activation peak - sampler state -
context - graphs - NCCL) / bytes of a block; ``memory_terms`` estimates what is subtracted.

The scheduler has one pool of blocks that a sequence fills token by token. Layers with a
window stop filling theirs, so for models that mix both kinds the pool is a *lower bound* of
what vLLM's per-group pools hold, the better of two that no mix of requests can exceed:

* every layer is counted as if it saw everything;
* windows of ``max_num_seqs`` sequences are set aside, and blocks hold the other layers only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from simserve.errors import DoesNotFitError, InputError
from simserve.inputs.engine_defaults import EngineDefaults
from simserve.inputs.hardware_profile import GpuSpec
from simserve.inputs.memory_terms import KvRequest, MemoryTerm, reserved_terms
from simserve.inputs.model_spec import ModelSpec

GB = 10**9
# The null block and one to use.
FEWEST_BLOCKS = 2
ALL_COUNTED = "layers with a window are counted as if they kept the whole context: a lower bound"
SET_ASIDE = "windows of max_num_seqs sequences are set aside, blocks hold the other layers"


@dataclass(frozen=True, slots=True, kw_only=True)
class KvCapacity:
    """The KV pool of one replica; block 0 is the null block, which is never handed out.

    ``terms`` are what the GPU's memory goes to, the pool included; ``spare`` in it is what the
    fraction leaves out or whole blocks do not fill. They sum to the GPU's memory.
    ``approximation`` says how windows are accounted, empty if the model has none.
    """

    num_blocks: int
    block_bytes: int
    block_size: int
    terms: tuple[MemoryTerm, ...]
    approximation: str = ""

    @property
    def usable_blocks(self) -> int:
        """Blocks that requests can hold."""
        return self.num_blocks - 1

    @property
    def usable_tokens(self) -> int:
        """Tokens that the usable blocks hold: also the longest single sequence."""
        return self.usable_blocks * self.block_size


@dataclass(frozen=True, slots=True)
class _Plan:
    """Bytes set aside for windows, bytes of a block, and how that approximates the model."""

    windows: int
    block: int
    approximation: str

    def blocks(self, room: int) -> int:
        return max(0, room - self.windows) // self.block


def kv_capacity(
    model: ModelSpec, gpu: GpuSpec, engine: EngineDefaults, request: KvRequest, where: str
) -> KvCapacity:
    """Return the KV pool of ``model`` on ``request.tp`` GPUs of the given kind.

    Raises:
        DoesNotFitError: if nothing is left for a block, or more is asked for than there is.
        InputError: for ``num_gpu_blocks`` of a model whose blocks vLLM counts in another unit.
    """
    taken = reserved_terms(model, engine, request)
    room = gpu.memory_bytes - gpu.cuda_reserved_bytes - sum(term.bytes for term in taken)
    if request.num_gpu_blocks is not None:
        _refuse_other_unit(model, request, where)
        pool, kind = request.num_gpu_blocks * _whole_block(model, request), "given"
        source = "num_gpu_blocks"
    elif request.kv_cache_memory_bytes is not None:
        pool, kind, source = request.kv_cache_memory_bytes, "given", "kv_cache_memory_bytes"
    else:
        pool, kind = _room_in_fraction(model, gpu, engine, request), "derived"
        source = f"{request.gpu_memory_utilization:g} of the memory that CUDA sees, less the rest"
        if _best_plan(model, request, pool).blocks(pool) < FEWEST_BLOCKS:
            raise _model_does_not_fit(model, gpu, engine, request, where)
    plan = _best_plan(model, request, pool)
    blocks = plan.blocks(pool)
    spare = room - plan.windows - blocks * plan.block
    if spare < 0:
        raise _pool_does_not_fit(request, max(0, room), plan, where)
    reserved = gpu.sources["cuda_reserved_bytes"]
    windows = [MemoryTerm("kv_windows", plan.windows, "derived", plan.approximation)]
    terms = (
        MemoryTerm("cuda_reserved", gpu.cuda_reserved_bytes, reserved.kind, reserved.source),
        *taken,
        *(windows if plan.windows else ()),
        MemoryTerm("kv_blocks", blocks * plan.block, kind, source),
        MemoryTerm("spare", spare, "derived", "outside the memory fraction, or less than a block"),
    )
    return KvCapacity(
        num_blocks=blocks,
        block_bytes=plan.block,
        block_size=request.block_size,
        terms=terms,
        approximation=plan.approximation,
    )


def _best_plan(model: ModelSpec, request: KvRequest, pool: int) -> _Plan:
    """Return the plan that gets more blocks out of ``pool`` bytes."""
    whole = _whole_block(model, request)
    if not model.has_windows:
        return _Plan(0, whole, "")
    plans = [_Plan(0, whole, ALL_COUNTED)]
    windowed = [group for group in model.attention_groups if group.window is not None]
    per_token = {group: model.group_bytes_per_token(group, request.tp) for group in windowed}
    rest = whole - request.block_size * sum(per_token.values())
    if rest:
        aside = sum(
            per_token[group] * _window_tokens(group.window or 0, request) for group in windowed
        )
        plans.append(_Plan(aside, rest, SET_ASIDE))
    return max(plans, key=lambda plan: plan.blocks(pool))


def _whole_block(model: ModelSpec, request: KvRequest) -> int:
    return request.block_size * model.cache_bytes_per_token(request.tp)


def _window_tokens(window: int, request: KvRequest) -> int:
    """Return the most tokens that windowed layers keep for ``max_num_seqs`` sequences.

    Each keeps its window in whole blocks, one more where it starts within a block, and what a
    step adds before old blocks are freed (vLLM 0.33, kv_cache_interface.SlidingWindowSpec).
    """
    size = request.block_size
    longest = -(-request.max_model_len // size) * size
    kept = min((-(-(window - 1) // size) + 1) * size, longest)
    return request.max_num_seqs * kept + request.max_num_batched_tokens


def _room_in_fraction(
    model: ModelSpec, gpu: GpuSpec, engine: EngineDefaults, request: KvRequest
) -> int:
    """Return the bytes that the memory fraction leaves for KV blocks; less than 0 if none."""
    visible = gpu.memory_bytes - gpu.cuda_reserved_bytes
    taken = reserved_terms(model, engine, request)
    return int(request.gpu_memory_utilization * visible) - sum(term.bytes for term in taken)


def _refuse_other_unit(model: ModelSpec, request: KvRequest, where: str) -> None:
    """Refuse a count of vLLM's blocks where one of them covers only some of the layers."""
    if model.has_windows and len(model.attention_groups) > 1:
        allowed = (
            f"nothing with {model.name}, whose layers differ: a block of vLLM's holds one group "
            "of them, a block here all; give kv_cache_memory_bytes"
        )
        raise InputError(where, "deployment.num_gpu_blocks", request.num_gpu_blocks, allowed)


def _model_does_not_fit(
    model: ModelSpec, gpu: GpuSpec, engine: EngineDefaults, request: KvRequest, where: str
) -> DoesNotFitError:
    """Return the error for a GPU with no room for KV blocks: by how much, and the way out."""

    def missing_bytes(tp: int) -> int:
        there = replace(request, tp=tp)
        return FEWEST_BLOCKS * _whole_block(model, there) - _room_in_fraction(
            model, gpu, engine, there
        )

    sizes = [tp for tp in model.tp_sizes() if request.tp < tp <= gpu.link_domain]
    enough = [tp for tp in sizes if missing_bytes(tp) <= 0]
    way_out = f"tp {enough[0]} or larger GPUs" if enough else "larger GPUs"
    return DoesNotFitError(
        where,
        "deployment.model",
        f"{model.name} on {request.tp} × {gpu.name}",
        f"{missing_bytes(request.tp) / GB:.1f} GB less per GPU: weights are "
        f"{model.weight_bytes(request.tp) / GB:.1f} GB, memory is {gpu.memory_bytes / GB:.1f} GB "
        f"of which {request.gpu_memory_utilization:g} may be used; take {way_out}",
    )


def _pool_does_not_fit(request: KvRequest, room: int, plan: _Plan, where: str) -> DoesNotFitError:
    """Return the error for a fixed pool that is larger than what the rest leaves."""
    if request.num_gpu_blocks is not None:
        key, got = "num_gpu_blocks", request.num_gpu_blocks
        asked, most = got * plan.block, f"{room // plan.block} blocks of {plan.block} bytes"
    else:
        key = "kv_cache_memory_bytes"
        asked = got = request.kv_cache_memory_bytes or 0
        most = f"{room} bytes"
    missing = (asked - room) / GB
    return DoesNotFitError(
        where, f"deployment.{key}", got, f"at most {most}: {missing:.1f} GB are missing per GPU"
    )
