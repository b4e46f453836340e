"""Step times against measured ones: how long one step of a known batch takes.

* ``blis_vllm_h100``: traced decode steps of vLLM 0.15.1, Llama-2-70B on four H100. The trace
  has the batch, not its contexts: they are taken as the load's mean, prompt plus half of the
  answer (every answer has the same length, so decodes stand at all places alike).
* ``splitwise_dgx``: static batches of a 2023 vLLM on A100, see ``static_batches``.
"""

from __future__ import annotations

from pathlib import Path

from simserve.errors import InputError
from simserve.latency.model import StepLatencyModel
from simserve.planning.validation.findings import (
    Section,
    bias_finding,
    median_finding,
    signed_pct,
    skipping,
)
from simserve.planning.validation.measured_files import Row, rows_of
from simserve.planning.validation.models import Candidates
from simserve.planning.validation.static_batches import add_static_batches
from simserve.records.step import StepShape

# The rows that the publishers' description calls usable: longer gaps mix idle time in.
_LONGEST_GAP_STEPS = 12
_LONGEST_STEP_MS = 100.0
_BUCKET_SEQS = 10
_MS = 1000.0
_BLIS_RUN = "20260217-203421-llama-2-70b-hf-tp4-codegen"
_BLIS_BAR_PCT = 7.0


def step_section(groundtruth: Path, candidates: Candidates) -> Section:
    """Return the findings on single steps, by every model of ``candidates``."""
    section = Section("step")
    for name, compare in (("blis_vllm_h100", _blis), ("splitwise_dgx", add_static_batches)):
        folder = groundtruth / name
        if not folder.is_dir():
            section.skipped.append(f"{name}: no folder {folder}")
            continue
        with skipping(section, name):
            compare(folder, candidates, section)
    return section


def _blis(folder: Path, candidates: Candidates, section: Section) -> None:
    rows = [row for row in rows_of(folder / "steps_llama-2-70b_tp4_codegen.csv.gz") if _usable(row)]
    context = _mean_context(folder)
    batches = [int(row["decode_requests"]) for row in rows]
    measured_ms = [float(row["mean_step_ms"]) for row in rows]
    for candidate in candidates("llama-2-70b", "h100-sxm", 4, section):
        what = f"Llama-2-70B TP4 on H100, decode steps ({candidate.name})"
        errors = signed_pct(_decodes_ms(candidate.model, batches, context), measured_ms)
        bar_pct = _BLIS_BAR_PCT if candidate.is_judged else None
        section.findings += [median_finding(what, errors, bar_pct), bias_finding(what, errors)]
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
