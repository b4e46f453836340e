"""KV blocks that engines recorded, beside what the memory terms of their version predict.

``context``, what is allocated outside the framework, was fitted to one run of each version;
that run is told apart and meets no bar.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from simserve.inputs.engine_defaults import load_engine
from simserve.inputs.hardware_profile import load_gpu
from simserve.inputs.kv_capacity import kv_capacity
from simserve.inputs.memory_terms import KvRequest
from simserve.inputs.model_catalogue import load_model
from simserve.planning.validation.findings import Finding, Section, signed_pct, skipping
from simserve.planning.validation.measured_files import json_file, rows_of

_BAR_PCT, _BLOCK_TOKENS, _FRACTION = 2.0, 16, 0.9
_BLIS, _LLMSERVINGSIM = "blis_vllm_h100", "llmservingsim_vllm"
_STEPS = "steps_llama-2-70b_tp4_codegen.csv.gz"
_GPUS = {"RTX4090": "rtx-4090", "RTXPRO6000": "rtx-pro-6000-server"}
# The runs that a version's memory was fitted to (catalogue, earlier_memory.context).
_FITTED_TO = {("0.15", "llama-2-7b"), ("0.19", "llama-3.1-8b")}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recorded:
    """A deployment and the blocks that its engine had."""

    model: str
    gpu: str
    tp: int
    version: str
    tokens: int
    seqs: int
    longest: int
    blocks: int


def memory_section(groundtruth: Path) -> Section:
    """Return the findings on recorded block counts."""
    section = Section("memory")
    for name, read in ((_BLIS, _blis), (_LLMSERVINGSIM, _llmservingsim)):
        folder = groundtruth / name
        if not folder.is_dir():
            section.skipped.append(f"{name}: no folder {folder}")
            continue
        with skipping(section, name):
            section.findings += [_finding(one) for one in dict.fromkeys(read(folder))]
    return section


def _finding(one: _Recorded) -> Finding:
    model = load_model(one.model)
    request = KvRequest(
        tp=one.tp,
        block_size=_BLOCK_TOKENS,
        gpu_memory_utilization=_FRACTION,
        max_num_seqs=one.seqs,
        max_num_batched_tokens=one.tokens,
        max_model_len=one.longest,
    )
    engine = load_engine().with_memory_of(one.version)
    found = kv_capacity(model, load_gpu(one.gpu), engine, request, "validation")
    fitted = (one.version, model.name) in _FITTED_TO
    return Finding(
        what=f"KV blocks of {model.name} TP{one.tp} on {one.gpu}, vLLM {one.version}, "
        f"{one.tokens} tokens a step" + (" (its memory was fitted to this run)" if fitted else ""),
        measure=f"signed; {one.blocks} recorded",
        error_pct=float(signed_pct([found.num_blocks], [one.blocks])[0]),
        points=1,
        bar_pct=None if fitted else _BAR_PCT,
    )


def _blis(folder: Path) -> Iterator[_Recorded]:
    for row in rows_of(folder / "experiments.csv"):
        if row["gpu_kv_blocks16"]:
            yield _Recorded(
                model=row["model"],
                gpu="h100-sxm",
                tp=int(row["tp"]),
                version="0.15",
                tokens=int(row["max_num_batched_tokens"]),
                seqs=int(row["max_num_seqs"]),
                longest=int(row["max_model_len"]),
                blocks=int(row["gpu_kv_blocks16"]),
            )
    if (folder / _STEPS).is_file():
        with gzip.open(folder / _STEPS, "rt", encoding="utf-8") as file:
            head, first = (next(file).strip().split(",") for _ in range(2))
        step = dict(zip(head, first, strict=True))
        yield _Recorded(
            model=step["model"],
            gpu="h100-sxm",
            tp=int(step["tp"]),
            version="0.15",
            tokens=2048,
            seqs=128,
            longest=4096,
            blocks=int(step["kv_blocks_total"]),
        )


def _llmservingsim(folder: Path) -> Iterator[_Recorded]:
    for path in sorted(folder.glob("*/engine.json")):
        engine = json_file(path)
        given, recorded = engine["engine_kwargs"], engine.get("kv_cache") or {}
        if recorded.get("num_gpu_blocks"):
            yield _Recorded(
                model=engine["model"],
                gpu=_GPUS.get(engine["gpu"], engine["gpu"]),
                tp=given["tensor_parallel_size"],
                version=str(engine["engine_version"]).removesuffix(".0"),
                tokens=given["max_num_batched_tokens"],
                seqs=given["max_num_seqs"],
                longest=given["max_model_len"],
                blocks=recorded["num_gpu_blocks"],
            )
