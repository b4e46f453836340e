"""All requests at once: maximum throughput of TensorRT-LLM, and static batches of early vLLM.

Shown and never judged: too much of these engines is not recorded, or not simulated.

* ``trtllm_perf_overview``: the time until the last of so many prompts is through. Kernels are
  TensorRT-LLM's own (the package's newest tables), the schedule is vLLM's.
* ``llm_inference_bench``: vLLM of autumn 2024 on A100, whose memory is not told. Batches of
  Llama-2-7B whose KV grows to 34 GB, 16, 32 and 64 prompts alike, take a quarter longer than
  those of 17 GB lead to expect: they did not fit at once, so that these are cards of 40 GB. There
  are no kernel tables of it, and only the roofline is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simserve.engine.simulate import simulate
from simserve.errors import InputError
from simserve.inputs.deployment import Deployment, read_deployment
from simserve.latency.model import StepLatencyModel
from simserve.latency.roofline import RooflineModel
from simserve.planning.validation.closed_load import in_nvfp4
from simserve.planning.validation.findings import (
    Section,
    bias_finding,
    median_finding,
    signed_pct,
)
from simserve.planning.validation.measured_files import Row, rows_of
from simserve.planning.validation.models import KernelProfiles
from simserve.records.clock import PS_PER_S
from simserve.records.requests import RequestTable

THROUGHPUT, STATIC = "trtllm_perf_overview", "llm_inference_bench"
_GPUS = {"H200": "h200-sxm", "B200": "b200-sxm", "A100": "a100-80gb-sxm"}
_MODELS = {"Llama-3.3-70B": "llama-3.1-70b", "Llama-4-Scout": "llama-4-scout-17b-16e"}
_STATIC_GPU = "a100-40gb-sxm"
_STATIC_MODELS = {"Qwen/Qwen2-7B": "qwen2.5-7b"}  # of the same shape
# trtllm-bench's defaults of these releases, as far as they are documented.
_SEQS, _TOKENS, _ROOM_TOKENS = 2048, 8192, 100
# Checkpoints in four bits (MXFP4) of their own, whatever the table calls them.
_OWN_FORMAT = ("gpt-oss-120b", "gpt-oss-20b")

_ModelOf = Callable[[Deployment], StepLatencyModel]


@dataclass(frozen=True, slots=True)
class _Batch:
    """A deployment's requests, all alike and there at once, and what was measured.

    With ``is_rate`` that is a throughput, and ``seconds`` follows from it.
    """

    name: str
    deployment: Deployment
    requests: int
    prompt_tokens: int
    output_tokens: int
    seconds: float
    is_rate: bool = False


def add_throughput(folder: Path, profiles: KernelProfiles, section: Section) -> None:
    """Add the errors of the output tokens per second of TensorRT-LLM, by GPU and precision.

    Raises:
        InputError: if the file is missing or cannot be read.
    """
    rows = rows_of(folder / "max_throughput.csv")
    tensor = [row for row in rows if row["parallel"] == f"TP{row['gpus']}" and row["requests"]]
    _compare(THROUGHPUT, tensor, _of_throughput, profiles.model, section)
    section.notes.append(
        f"{THROUGHPUT}, output tokens per second: kernels of the package's newest TensorRT-LLM, "
        "not of the release; scheduler and memory are vLLM's; assumed, for they are not printed: "
        f"{_SEQS} sequences, {_TOKENS} tokens a step, 0.9 of the memory, KV values of 8 bits "
        "beside weights of 8 or 4, Mistral-7B as v0.1, experts cut by tensor parallelism. "
        f"{len(rows) - len(tensor)} rows are not compared: attention is data parallel there"
    )


def add_static(folder: Path, section: Section) -> None:
    """Add the errors of the durations of static batches.

    Raises:
        InputError: if the file is missing or cannot be read.
    """
    rows = rows_of(folder / "offline_static_batch.csv.gz")
    mine = [row for row in rows if row["engine"] == "vLLM" and row["gpu"] == "A100"]

    def model_of(deployment: Deployment) -> StepLatencyModel:
        return RooflineModel(deployment.model, deployment.gpu, deployment.tp)

    _compare(STATIC, mine, _of_static, model_of, section)
    section.notes.append(
        f"{STATIC}, seconds of a batch: the roofline, of 40 GB cards (batches of Llama-2-7B with "
        "34 GB of KV did not fit at once); the engine's version is not recorded: the scheduler of "
        "today, synchronous, without prefix caching, and host times of today, so that steps of "
        "autumn 2024 come out too short, the more so the more GPUs share them. "
        f"{len(rows) - len(mine)} rows are not compared: TensorRT-LLM, whose tables are of 80 GB "
        "cards, and AMD MI250, where it is not told whether a rank is a card or a die"
    )


def _compare(
    what: str,
    rows: list[Row],
    batch_of: Callable[[Row], _Batch],
    model_of: _ModelOf,
    section: Section,
) -> None:
    found: dict[str, list[float]] = {}
    refused: dict[str, int] = {}
    for row in rows:
        try:
            batch = batch_of(row)
            seconds = _duration_s(batch, model_of(batch.deployment))
        except InputError as error:
            refused[str(error)] = refused.get(str(error), 0) + 1
            continue
        pair = ([batch.seconds], [seconds]) if batch.is_rate else ([seconds], [batch.seconds])
        found.setdefault(batch.name, []).append(float(signed_pct(*pair)[0]))
    for name, errors in sorted(found.items()):
        section.findings.append(median_finding(f"{what}: {name}", errors))
        section.findings.append(bias_finding(f"{what}: {name}", errors))
    section.skipped += [f"{what}, {count} rows: {error}" for error, count in refused.items()]


def _duration_s(batch: _Batch, model: StepLatencyModel) -> float:
    now = np.zeros(batch.requests, dtype=np.int64)
    requests = RequestTable(
        arrival_ps=now,
        prompt_tokens=now + batch.prompt_tokens,
        output_tokens=now + batch.output_tokens,
    )
    record = simulate(requests, batch.deployment, model)
    if (record.outcomes.generated_tokens != batch.output_tokens).any():
        raise InputError(batch.name, None, "requests that do not fit", "those that finish")
    return record.end_ps / PS_PER_S


def _of_throughput(row: Row) -> _Batch:
    requests, new, out = (int(row[key]) for key in ("requests", "input_tokens", "output_tokens"))
    entry: dict[str, Any] = {
        "model": _MODELS.get(row["model"], row["model"].lower()),
        "gpu": _GPUS[row["gpu"]],
        "tp": int(row["gpus"]),
        "max_num_seqs": _SEQS,
        "max_num_batched_tokens": _TOKENS,
        "max_model_len": new + out + _ROOM_TOKENS,
        "gpu_memory_utilization": 0.9,
        "enable_prefix_caching": False,
    }
    if row["weights"] != "FP16":
        entry["kv_cache_dtype"] = "fp8"
    if row["weights"] == "FP4" and row["model"] not in _OWN_FORMAT:
        deployment = in_nvfp4(entry)
    else:
        if row["weights"] == "FP8" and row["model"] not in _OWN_FORMAT:
            entry["quantization"] = "fp8"
        deployment = read_deployment(entry)
    seconds = requests * out / float(row["output_tok_s_total"])
    name = f"{deployment.model.name}, {row['weights']}, {deployment.gpu.name}, {row['parallel']}"
    return _Batch(name, deployment, requests, new, out, seconds, is_rate=True)


def _of_static(row: Row) -> _Batch:
    batch, new, out = (int(row[key]) for key in ("batch", "input_tokens", "output_tokens"))
    deployment = read_deployment(
        {
            "model": _STATIC_MODELS.get(row["model"], row["model"]),
            "gpu": _STATIC_GPU,
            "tp": int(row["tp"]),
            "max_model_len": new + out,
            "gpu_memory_utilization": 0.9,
            "enable_prefix_caching": False,
            "async_scheduling": False,
        }
    )
    name = f"{deployment.model.name}, {deployment.gpu.name}, TP{row['tp']} (roofline)"
    return _Batch(name, deployment, batch, new, out, float(row["latency_s"]))
