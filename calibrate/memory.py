"""What stands in a GPU's memory beside the KV blocks, measured with the reference engine.

Weights, the activations of a full step, the pool of the captured graphs, and what CUDA and the
libraries took outside the allocator. With these in place of its estimates ``kv_capacity``
predicts the KV blocks; that many are then really allocated.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from calibrate.device_names import gpu_of
from calibrate.engine.runner import GRAPH_SIZES, EngineSetup, Runner
from calibrate.engine.warm_up import warm_up
from calibrate.kernels import registry
from calibrate.measure.facts import device_facts
from calibrate.plans import kernels_of
from calibrate.plans.choose import model_named
from calibrate.profile_writer import MEMORY
from simserve.errors import DoesNotFitError, InputError
from simserve.inputs.engine_defaults import load_engine
from simserve.inputs.hardware_profile import load_gpu
from simserve.inputs.kv_capacity import KvCapacity, kv_capacity
from simserve.inputs.memory_terms import KvRequest
from simserve.inputs.model_spec import ModelSpec
from simserve.policy.limits import SchedulerLimits

_MIB = 1 << 20
_BLOCK = 16
# The engine's graphs are captured for the longest context that it may see.
_NOT_ON_A_CPU = ("context", "cuda_graph_pool", "activation_peak")
# Blocks of one token each beside the longest chunk, and some to spare.
_SPARE_BLOCKS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRequest:
    """The deployment whose memory is asked for: ``model`` on one GPU."""

    model: str
    device: str
    gpu: str | None = None
    attention: str = ""
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    max_model_len: int = 8192
    gpu_memory_utilization: float = 0.92


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFacts:
    """Bytes by term; ``None`` where this device has nothing of the kind.

    ``allocated_blocks`` are the predicted blocks, if they could be had.
    """

    asked: MemoryRequest
    device: str
    terms: dict[str, int | None]
    capacity: KvCapacity | None
    estimated: KvCapacity | None
    allocated_blocks: int | None
    most_blocks: int | None

    def described(self) -> dict[str, Any]:
        """Return what a profile keeps, as JSON-able objects."""
        facts: dict[str, Any] = {
            "model": self.asked.model,
            "max_num_seqs": self.asked.max_num_seqs,
            "max_num_batched_tokens": self.asked.max_num_batched_tokens,
            **{f"{name}_bytes": size for name, size in self.terms.items() if size is not None},
        }
        if self.capacity is not None:
            facts["predicted_kv_blocks"] = self.capacity.num_blocks
        for name in ("allocated_blocks", "most_blocks"):
            if getattr(self, name) is not None:
                facts[name] = getattr(self, name)
        return facts


def measure_memory(asked: MemoryRequest) -> MemoryFacts:
    """Build the engine, run it at its limits, and return what each part takes.

    Raises:
        InputError: if the device, the model or a kernel cannot be used.
        DoesNotFitError: if there is no room for the model.
    """
    device = torch.device(asked.device)
    model = model_named(asked.model)
    facts = device_facts(device)
    try:
        runner = _runner(asked, model, device)
        terms = _measured(runner, device)
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
        raise DoesNotFitError(
            "--model", None, f"{model.name} ({reason})", "a smaller one"
        ) from None
    if device.type != "cuda":
        return MemoryFacts(
            asked=asked,
            device=facts["name"],
            terms=terms,
            capacity=None,
            estimated=None,
            allocated_blocks=None,
            most_blocks=None,
        )
    gpu = load_gpu(gpu_of(facts, asked.gpu))
    engine = load_engine("vllm")
    capacity = kv_capacity(model, gpu, engine, _kv_request(asked, terms), "calibrate memory")
    estimated = kv_capacity(model, gpu, engine, _kv_request(asked, None), "calibrate memory")
    del runner.cache
    gc.collect()
    torch.cuda.empty_cache()
    most = _most_blocks(asked, capacity.block_bytes)
    return MemoryFacts(
        asked=asked,
        device=facts["name"],
        terms=terms,
        capacity=capacity,
        estimated=estimated,
        allocated_blocks=_allocated(runner, capacity.num_blocks),
        most_blocks=most,
    )


def _runner(asked: MemoryRequest, model: ModelSpec, device: torch.device) -> Runner:
    """Return an engine with just enough blocks for one full step."""
    backends = kernels_of.CPU if device.type == "cpu" else kernels_of.H200
    dtype = "fp32" if device.type == "cpu" else "bf16"
    attention = asked.attention
    if not attention:
        there = registry.available(registry.ATTENTION, device)
        fitting = [name for name in backends.attention if name in there]
        if not fitting:
            raise InputError("--attention", None, "nothing", "a kernel that this machine has")
        attention = fitting[0]
    longest = min(asked.max_num_batched_tokens, asked.max_model_len)
    blocks = -(-longest // _BLOCK) + asked.max_num_seqs + _SPARE_BLOCKS
    setup = EngineSetup(
        model=model,
        device=device,
        dtype=torch.float32 if dtype == "fp32" else torch.bfloat16,
        attention=attention,
        gemm=backends.gemm[dtype],
        ops=backends.pointwise,
        graph_sizes=GRAPH_SIZES if device.type == "cuda" else (),
    )
    limits = SchedulerLimits(
        max_num_seqs=asked.max_num_seqs,
        max_num_batched_tokens=asked.max_num_batched_tokens,
        max_model_len=asked.max_model_len,
        num_blocks=blocks,
        block_size=_BLOCK,
        enable_prefix_caching=False,
    )
    return Runner(setup, limits)


def _measured(runner: Runner, device: torch.device) -> dict[str, int | None]:
    """Return the bytes of every term."""
    workspace = sum(one.nbytes for one in _tensors(runner.work))
    cache = sum(one.nbytes for one in (*runner.cache.keys, *runner.cache.values))
    if device.type != "cuda":
        weights = sum({one.data_ptr(): one.nbytes for one in _weights(runner)}.values())
        return {"weights": weights, "workspace": workspace, **dict.fromkeys(_NOT_ON_A_CPU)}
    torch.cuda.synchronize()
    static = torch.cuda.memory_allocated()
    weights = static - cache - workspace
    torch.cuda.reset_peak_memory_stats()
    warm_up(runner)
    torch.cuda.synchronize()
    peak = workspace + torch.cuda.max_memory_allocated() - static
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    runner.capture()
    torch.cuda.synchronize()
    graphs = torch.cuda.memory_reserved() - before
    free, total = torch.cuda.mem_get_info()
    context = total - free - torch.cuda.memory_reserved()
    return {
        "weights": weights,
        "activation_peak": peak,
        "cuda_graph_pool": max(0, graphs),
        "context": max(0, context),
    }


def _tensors(holder: object) -> Iterator[torch.Tensor]:
    yield from (one for one in vars(holder).values() if isinstance(one, torch.Tensor))


def _weights(runner: Runner) -> Iterator[torch.Tensor]:
    model = runner.model
    yield from (one for one in (model.embedding, model.head, model.last_norm))
    for layer in model.layers:
        fields = (getattr(layer, name) for name in layer.__slots__)
        yield from (one for one in fields if isinstance(one, torch.Tensor))


def _kv_request(asked: MemoryRequest, terms: dict[str, int | None] | None) -> KvRequest:
    """Return the request with measured terms in place of the estimates.

    The engine samples greedily: it has none of the state that vLLM's sampler keeps.
    """
    measured = {
        name: size for name, size in (terms or {}).items() if size is not None and name != "weights"
    }
    return KvRequest(
        tp=1,
        block_size=_BLOCK,
        gpu_memory_utilization=asked.gpu_memory_utilization,
        max_num_seqs=asked.max_num_seqs,
        max_num_batched_tokens=asked.max_num_batched_tokens,
        max_model_len=asked.max_model_len,
        reserves={**measured, "sampler_state": 0} if terms is not None else None,
    )


def _most_blocks(asked: MemoryRequest, block_bytes: int) -> int:
    """Return the blocks that the fraction leaves beside all that is in the memory now."""
    free, total = torch.cuda.mem_get_info()
    cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    taken = total - free - cached
    return int((asked.gpu_memory_utilization * total - taken) // block_bytes)


def _allocated(runner: Runner, blocks: int) -> int | None:
    """Return ``blocks`` if a cache of so many could be had, else None."""
    try:
        runner.cache = runner.model.new_cache(blocks, _BLOCK)
        torch.cuda.synchronize()
    except torch.OutOfMemoryError:
        return None
    return blocks


def memory_text(facts: MemoryFacts) -> str:
    """Return the terms and what follows from them, at most 80 columns wide."""
    asked = facts.asked
    lines = [
        f"{asked.model} on {facts.device}, {asked.max_num_batched_tokens} tokens a step, "
        f"{asked.max_num_seqs} sequences",
    ]
    for name, size in facts.terms.items():
        told = "cannot be measured here" if size is None else f"{size / _MIB:>12,.1f} MiB"
        lines.append(f"  {name:<18}{told:>16}")
    if facts.capacity is None or facts.estimated is None:
        lines.append(
            "a CPU has no context, no graphs, and nobody else's memory: no KV blocks follow"
        )
        return "\n".join(lines)
    predicted, most = facts.capacity.num_blocks, facts.most_blocks or 0
    lines += [
        f"predicted KV blocks      {predicted:>12,}",
        f"room for                 {most:>12,}  ({predicted / most - 1:+.1%})" if most else "",
        f"with estimates alone     {facts.estimated.num_blocks:>12,}",
        "allocated: " + ("all of the predicted" if facts.allocated_blocks else "no, out of memory"),
        "as options of simserve:",
        *(
            f"  --set {name}_bytes={size}"
            for name, size in facts.terms.items()
            if size is not None and name != "weights"
        ),
    ]
    return "\n".join(line for line in lines if line)


def write_memory(facts: MemoryFacts, out: Path) -> Path:
    """Write the facts beside a journal, from where a profile takes them; return the file."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / MEMORY
    path.write_text(json.dumps(facts.described(), indent=2) + "\n", encoding="utf-8")
    return path
