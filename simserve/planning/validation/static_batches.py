"""Static batches of a vLLM of 2023 on A100 (``splitwise_dgx``): a prompt pass, then decodes.

An engine that started every kernel from Python, with kernels that have been replaced since. So
one host term and one factor per phase are fitted, on the rows of batch 1, and the larger
batches are predicted. The host either adds to the GPU's time or hides it (kernels wait to be
launched); the form that fits batch 1 better is taken. Rows quicker than the datasheet allows
are listed and left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simserve.inputs.hardware_profile import GpuSpec, load_gpu
from simserve.inputs.model_catalogue import load_model
from simserve.inputs.model_matrices import layer_matrices
from simserve.inputs.model_spec import ModelSpec
from simserve.latency.roofline_gemm import flops_per_s
from simserve.planning.validation.findings import (
    FloatArray,
    Listing,
    Section,
    bias_finding,
    median_finding,
    signed_pct,
)
from simserve.planning.validation.measured_files import rows_of
from simserve.planning.validation.models import Candidates
from simserve.records.step import PrefillChunk, StepShape

_GPUS = {"a100-80gb": "a100-80gb-sxm"}
_MODELS = {"llama2-70b": "llama-2-70b", "bloom-176b": "bloom-176b"}
_JUDGED, _BAR_PCT = "llama2-70b", 15.0
_MS, _MULTIPLY_ADD = 1000.0, 2.0
_PHASES = ("prefill", "decode")
# Host terms that are tried, in milliseconds.
_HOST_MS = np.arange(0.0, 60.5, 0.5)


@dataclass(frozen=True, slots=True)
class _Row:
    """One configuration: its steps, and what they took, by phase."""

    tp: int
    batch: int
    prompt: int
    context: int
    measured_ms: tuple[float, float]

    def shape(self, phase: int) -> StepShape:
        if phase:
            return StepShape(self.batch, self.batch * self.context)
        return StepShape(0, 0, (PrefillChunk(self.prompt, 0),) * self.batch)

    def floor_ms(self, model: ModelSpec, gpu: GpuSpec) -> float:
        """Return the least that the prompts' matrices take at the datasheet's rate."""
        values = sum(one.values for one in layer_matrices(model, self.tp))
        rate = flops_per_s(gpu, "bf16")
        return _MULTIPLY_ADD * values * self.prompt * self.batch / rate * _MS


@dataclass(frozen=True, slots=True)
class _Host:
    """A host term and one factor per phase; ``adds``: else the host hides behind the GPU."""

    host_ms: float
    factors: tuple[float, float]
    adds: bool

    def predicted(self, phase: int, gpu_ms: FloatArray) -> FloatArray:
        scaled = self.factors[phase] * gpu_ms
        return scaled + self.host_ms if self.adds else np.maximum(scaled, self.host_ms)

    @property
    def told(self) -> str:
        form = "plus" if self.adds else "at least"
        by_phase = [f"{name} × {one:.2f}" for name, one in zip(_PHASES, self.factors, strict=True)]
        return f"{', '.join(by_phase)}, {form} {self.host_ms:.1f} ms of the host"


def add_static_batches(folder: Path, candidates: Candidates, section: Section) -> None:
    """Add the findings on the rows of ``measured.csv``, by every model of ``candidates``."""
    table = rows_of(folder / "measured.csv")
    for theirs, ours in _MODELS.items():
        rows = [
            _Row(
                int(row["tp"]),
                int(row["batch_size"]),
                int(row["input_tokens_each"]),
                int(row["input_tokens_each"]) + int(row["output_tokens_each"]) // 2,
                (float(row["prefill_ms_median"] or 0), float(row["decode_step_ms_median"] or 0)),
            )
            for row in table
            if row["model"] == theirs and row["gpu"] in _GPUS
        ]
        gpu = load_gpu(_GPUS["a100-80gb"])
        model = load_model(ours)
        quick = [row for row in rows if 0 < row.measured_ms[0] < row.floor_ms(model, gpu)]
        if quick:
            section.listings.append(_too_quick(ours, quick, model, gpu))
        kept = [row for row in rows if row not in quick]
        for name, gpu_ms in _gpu_ms(kept, ours, candidates, section):
            _judge(f"{ours} on A100, vLLM of 2023 ({name})", theirs, kept, gpu_ms, section)


def _gpu_ms(
    rows: Sequence[_Row], model: str, candidates: Candidates, section: Section
) -> Iterator[tuple[str, FloatArray]]:
    """Yield by latency model what the phases of the rows take: ``float64[phases, rows]``."""
    found: dict[str, dict[int, list[tuple[float, float]]]] = {}
    aside = Section("")
    for tp in sorted({row.tp for row in rows}):
        mine = [row for row in rows if row.tp == tp]
        for one in candidates(model, _GPUS["a100-80gb"], tp, aside):
            times = [
                (one.model.step_s(row.shape(0)) * _MS, one.model.step_s(row.shape(1)) * _MS)
                for row in mine
            ]
            found.setdefault(one.name, {})[tp] = times
    section.skipped += [one for one in dict.fromkeys(aside.skipped) if one not in section.skipped]
    for name, by_tp in found.items():
        places = {tp: iter(times) for tp, times in by_tp.items()}
        yield name, np.array([next(places[row.tp]) for row in rows]).T


def _judge(
    what: str, theirs: str, rows: Sequence[_Row], gpu_ms: FloatArray, section: Section
) -> None:
    alone = np.array([row.batch == 1 for row in rows])
    measured = np.array([row.measured_ms for row in rows]).T
    if alone.all() or not alone.any():
        return
    host = _fit(gpu_ms[:, alone], measured[:, alone])
    section.fitted.append(f"{what}: {host.told}; on the {int(alone.sum())} rows of batch 1")
    is_judged = theirs == _JUDGED and "tables" in what
    for phase, name in enumerate(_PHASES):
        counts = measured[phase] > 0
        plain = signed_pct(gpu_ms[phase][counts], measured[phase][counts])
        section.findings.append(bias_finding(f"{what}, {name}, nothing fitted", plain))
        rest = counts & ~alone
        errors = signed_pct(host.predicted(phase, gpu_ms[phase][rest]), measured[phase][rest])
        label = f"{what}, {name}, batches above 1"
        section.findings.append(median_finding(label, errors, _BAR_PCT if is_judged else None))
        section.findings.append(bias_finding(label, errors))


def _fit(gpu_ms: FloatArray, measured: FloatArray) -> _Host:
    """Return the host and factors with the smallest mean size of relative errors."""
    best: tuple[float, _Host] | None = None
    for adds in (True, False):
        for host_ms in _HOST_MS.tolist():
            factors, cost = [], 0.0
            for times, truth in zip(gpu_ms, measured, strict=True):
                counts = truth > 0
                left = truth[counts] - host_ms if adds else truth[counts]
                bound = left > 0 if adds else truth[counts] > host_ms
                ratios = left[bound] / times[counts][bound]
                factor = float(np.median(ratios)) if len(ratios) else 0.0
                factors.append(factor)
                scaled = factor * times[counts]
                predicted = scaled + host_ms if adds else np.maximum(scaled, host_ms)
                cost += float(np.abs(signed_pct(predicted, truth[counts])).mean())
            one = _Host(host_ms, (factors[0], factors[1]), adds)
            if best is None or cost < best[0]:
                best = cost, one
    return best[1] if best else _Host(0.0, (1.0, 1.0), True)


def _too_quick(name: str, rows: Sequence[_Row], model: ModelSpec, gpu: GpuSpec) -> Listing:
    return Listing(
        f"splitwise_dgx, {name}: prompt passes quicker than the datasheet's FLOPs, left out",
        ("tp", "batch", "prompt tokens", "measured ms", "at least ms"),
        tuple(
            (
                str(row.tp),
                str(row.batch),
                str(row.prompt),
                f"{row.measured_ms[0]:.0f}",
                f"{row.floor_ms(model, gpu):.0f}",
            )
            for row in rows
        ),
    )
