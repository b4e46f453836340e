"""The comparison of all levels, and its text: kernel, step, request, deployment."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from simserve.planning.validation.findings import Finding, Section
from simserve.planning.validation.kernels import kernel_section
from simserve.planning.validation.models import kernel_candidates
from simserve.planning.validation.runs import request_section
from simserve.planning.validation.steps import step_section

_HEAD = """# Validation

Predictions of simserve beside measurements of real engines on real GPUs, written by
`simserve validate`. No number is fitted to what is compared here. Two rules were chosen with
the two recorded runs in view, though: how a step is priced that mixes a chunk with decodes, and
that decode steps are compared by their median.

Errors are percent of the measurement; a bar bounds the size of the error. "Within 5 %" is the
share of the points whose own error is no larger, in percent.
"""
_COLUMNS = ("compared", "measure", "error %", "p90 %", "within 5 %", "points", "bar %", "")
_DEPLOYMENTS = ("blis_vllm_h100", "inferencex", "trtllm_perf_overview", "llm_inference_bench")


def validate_all(groundtruth: Path) -> list[Section]:
    """Return the findings of every level; what is not there is skipped by name."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        return [
            kernel_section(),
            step_section(
                groundtruth,
                lambda model, gpu, tp, section: kernel_candidates(model, gpu, tp, scratch, section),
            ),
            request_section(groundtruth, scratch),
            _deployment_section(groundtruth),
        ]


def report_text(sections: list[Section]) -> str:
    """Return the findings as Markdown."""
    return _HEAD + "".join(f"\n## {one.title}\n\n" + "".join(_lines(one)) for one in sections)


def _deployment_section(groundtruth: Path) -> Section:
    section = Section("deployment")
    for name in _DEPLOYMENTS:
        there = (groundtruth / name).is_dir()
        reason = "not compared yet" if there else f"no folder {groundtruth / name}"
        section.skipped.append(f"{name}: {reason}")
    return section


def _lines(section: Section) -> Iterator[str]:
    if section.findings:
        yield f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}\n"
    for finding in section.findings:
        yield f"| {' | '.join(_cells(finding))} |\n"
    if section.findings and (section.notes or section.skipped):
        yield "\n"
    yield from (f"- {note}\n" for note in section.notes)
    yield from (f"- skipped: {reason}\n" for reason in section.skipped)


def _cells(finding: Finding) -> tuple[str, ...]:
    verdict = {True: "met", False: "**missed**", None: ""}[finding.is_met]
    bar = "" if finding.bar_pct is None else f"{finding.bar_pct:g} {finding.bar_source}".strip()
    sign = "+" if "signed" in finding.measure else ""
    p90 = "" if finding.p90_pct is None else f"{finding.p90_pct:.1f}"
    error = f"{finding.error_pct:{sign}.2f}"
    near = "" if finding.within_5_pct is None else f"{finding.within_5_pct:.0f}"
    return finding.what, finding.measure, error, p90, near, str(finding.points), bar, verdict
