"""Step times against measured ones: how long one step of a known batch takes.

* ``blis_vllm_h100``: traced decode steps of vLLM 0.15.1, Llama-2-70B on four H100. The trace
  has the batch, not its contexts: they are taken as the load's mean, prompt plus half of the
  answer (every answer has the same length, so decodes stand at all places alike).
* ``splitwise_dgx``: static batches of a 2023 vLLM on A100; older kernels, so no bar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from simserve.errors import InputError
from simserve.inputs.hardware_profile import load_gpu
from simserve.inputs.model_catalogue import load_model
from simserve.latency.model import StepLatencyModel
from simserve.latency.roofline import RooflineModel
from simserve.planning.validation.findings import (
    Section,
    bias_finding,
    median_finding,
    signed_pct,
)
from simserve.planning.validation.measured_files import Row, rows_of
from simserve.planning.validation.models import Candidate
from simserve.records.step import PrefillChunk, StepShape

# The rows that the publishers' description calls usable: longer gaps mix idle time in.
_LONGEST_GAP_STEPS = 12
_LONGEST_STEP_MS = 100.0
_BUCKET_SEQS = 10
_MS = 1000.0
_BLIS_RUN = "20260217-203421-llama-2-70b-hf-tp4-codegen"
_SPLITWISE_GPUS = {"a100-80gb": "a100-80gb-sxm"}
_SPLITWISE_MODELS = {"llama2-70b": "llama-2-70b", "bloom-176b": "bloom-176b"}

Candidates = Callable[[str, str, int, Section], Iterator[Candidate]]


def step_section(groundtruth: Path, candidates: Candidates) -> Section:
    """Return the findings on single steps, by every model of ``candidates``."""
    section = Section("step")
    for name, compare in (("blis_vllm_h100", _blis), ("splitwise_dgx", _splitwise)):
        folder = groundtruth / name
        if not folder.is_dir():
            section.skipped.append(f"{name}: no folder {folder}")
            continue
        try:
            compare(folder, candidates, section)
        except InputError as error:
            section.skipped.append(f"{name}: {error}")
    return section


def _blis(folder: Path, candidates: Candidates, section: Section) -> None:
    rows = [row for row in rows_of(folder / "steps_llama-2-70b_tp4_codegen.csv.gz") if _usable(row)]
    context = _mean_context(folder)
    batches = [int(row["decode_requests"]) for row in rows]
    measured_ms = [float(row["mean_step_ms"]) for row in rows]
    for candidate in candidates("llama-2-70b", "h100-sxm", 4, section):
        what = f"Llama-2-70B TP4 on H100, decode steps ({candidate.name})"
        errors = signed_pct(_decodes_ms(candidate.model, batches, context), measured_ms)
        section.findings += [median_finding(what, errors), bias_finding(what, errors)]
        by_bucket = []
        for bucket in sorted({(batch - 1) // _BUCKET_SEQS for batch in batches}):
            inside = [i for i, one in enumerate(batches) if (one - 1) // _BUCKET_SEQS == bucket]
            low = bucket * _BUCKET_SEQS + 1
            median = bias_finding("", errors[inside]).error_pct
            by_bucket.append(f"{low}-{low + _BUCKET_SEQS - 1}: {median:+.1f} %")
        section.notes.append(f"{candidate.name}, by decodes in the batch: {', '.join(by_bucket)}")


def _usable(row: Row) -> bool:
    return (
        row["prefill_requests"] == "0"
        and int(row["decode_requests"]) > 0
        and int(row["gap_steps"]) <= _LONGEST_GAP_STEPS
        and float(row["mean_step_ms"]) < _LONGEST_STEP_MS
    )


def _mean_context(folder: Path) -> float:
    for row in rows_of(folder / "latency_distributions.csv"):
        if row["run"] == _BLIS_RUN and row["stage"] == "all":
            return float(row["prompt_tokens_mean"]) + float(row["output_tokens_requested"]) / 2
    raise InputError(str(folder / "latency_distributions.csv"), "run", "nothing", _BLIS_RUN)


def _decodes_ms(model: StepLatencyModel, batches: list[int], context: float) -> list[float]:
    by_batch = {
        batch: model.step_s(StepShape(batch, round(batch * context))) * _MS
        for batch in set(batches)
    }
    return [by_batch[batch] for batch in batches]


def _splitwise(folder: Path, candidates: Candidates, section: Section) -> None:
    """Compare with the roofline only: the packages have no tables of a 2023 engine."""
    del candidates
    rows = rows_of(folder / "measured.csv")
    for theirs, ours in _SPLITWISE_MODELS.items():
        of_model = [row for row in rows if row["model"] == theirs and row["gpu"] in _SPLITWISE_GPUS]
        models = {
            key: RooflineModel(load_model(ours), load_gpu(_SPLITWISE_GPUS[key[0]]), key[1])
            for key in {(row["gpu"], int(row["tp"])) for row in of_model}
        }
        prefill, decode = [], []
        for row in of_model:
            model = models[row["gpu"], int(row["tp"])]
            batch, prompt = int(row["batch_size"]), int(row["input_tokens_each"])
            context = prompt + int(row["output_tokens_each"]) // 2
            chunks = (PrefillChunk(prompt, 0),) * batch
            prefill.append((model.step_s(StepShape(0, 0, chunks)), row["prefill_ms_median"]))
            decode_s = model.step_s(StepShape(batch, batch * context))
            decode.append((decode_s, row["decode_step_ms_median"]))
        for kind, both in (("prefill", prefill), ("decode", decode)):
            pairs = [pair for pair in both if pair[1]]
            if pairs:
                errors = signed_pct([s * _MS for s, _ in pairs], [float(ms) for _, ms in pairs])
                what = f"{ours} on A100, {kind} of static batches, vLLM of 2023 (roofline)"
                section.findings += [median_finding(what, errors), bias_finding(what, errors)]
