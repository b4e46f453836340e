"""The comparison of all levels, and its text: kernel, step, request, deployment."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from simserve.planning.validation.deployments import deployment_section
from simserve.planning.validation.findings import Finding, Listing, Section
from simserve.planning.validation.kernels import kernel_section
from simserve.planning.validation.kv_blocks import memory_section
from simserve.planning.validation.models import kernel_candidates
from simserve.planning.validation.runs import request_section
from simserve.planning.validation.steps import step_section

_HEAD = """# Validation

Predictions of simserve beside measurements of real engines on real GPUs, written by
`simserve validate`. What was fitted stands under each table, with the rows that it was fitted
on; no bar is put on those. Some rules were chosen with measurements in view, though.
With the two recorded runs: how a step is priced that mixes a chunk with decodes, that decode
steps are compared by their median, and which two scalars are fitted per machine. With published
layer profiles and the deployments: that a small kernel without a table takes 3 us and its bytes.
With the rows of the closed loops: that their means count the burst at the start, and that their
KV values have 8 bits.

Errors are percent of the measurement; a bar bounds the size of the error. "Within 5 %" is the
share of the points whose own error is no larger, in percent.
"""
# What is known of a missed bar, by the start of what was compared.
_WHY_MISSED = {
    "decode attention, a batch left out": (
        "Bridges a span of 4 in the batch, across the knee where the KV outgrows the L2 cache; "
        "four other rules of interpolation were tried and none does better on all GPUs."
    ),
    "prefill attention of one prompt": (
        "Kernel switches and noise; taking the launch off before the square root gains 0.06 here "
        "and loses 0.2-0.3 on B200 and A100."
    ),
    "llama-2-70b on A100, vLLM of 2023 (tables), prefill": (
        "On 4 and 8 GPUs a token of a large batch took up to twice what it took alone; kernels "
        "of that engine have no tables."
    ),
    "rtxpro6000_qwen3-32b_tp2 (layer tables), TTFT": (
        "Steps with prefill are 3 % long (see the fitted scalars); the all-reduce, two fifths of "
        "them, was measured on another machine of this kind."
    ),
    "rtxpro6000_qwen3-32b_tp2 (layer tables), decode steps of 1-8": (
        "Seven seconds at the end of the run; the small all-reduce, from another machine, is a "
        "fifth of these steps."
    ),
    "Llama-3.1-70B on b200-sxm": (
        "Tables are of vLLM 0.24, the engine of October 2025. The 8-GPU all-reduce of the table "
        "jumps by 2.7 times from 128 to 256 KB, and TTFT has 60-100 ms, growing with the GPUs, "
        "that are in no kernel: probably host time of prefill."
    ),
}
_COLUMNS = ("compared", "measure", "error %", "p90 %", "within 5 %", "points", "bar %", "")


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
            memory_section(groundtruth),
            request_section(groundtruth, scratch),
            deployment_section(groundtruth, scratch),
        ]


def report_text(sections: list[Section]) -> str:
    """Return the findings as Markdown."""
    body = "".join(f"\n## {one.title}\n\n" + "".join(_lines(one)) for one in sections)
    return _HEAD + "".join(_tally(sections)) + body


def _tally(sections: list[Section]) -> Iterator[str]:
    """Yield how many bars are met, and why the others are missed as far as it is known."""
    barred = [one for section in sections for one in section.findings if one.is_met is not None]
    missed = [one for one in barred if not one.is_met]
    if barred:
        yield f"\n{len(barred) - len(missed)} of {len(barred)} bars are met. "
        yield "Missed, with what is known of the rung below:\n\n" if missed else "\n"
    for one in missed:
        why = next((why for start, why in _WHY_MISSED.items() if one.what.startswith(start)), "")
        yield f"- {one.what}: {one.error_pct:.2f} % (bar {one.bar_pct:g} %). {why}".rstrip() + "\n"


def _lines(section: Section) -> Iterator[str]:
    if section.findings:
        yield f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}\n"
    for finding in section.findings:
        yield f"| {' | '.join(_cells(finding))} |\n"
    if section.findings and (section.fitted or section.notes or section.skipped):
        yield "\n"
    yield from (f"- fitted: {what}\n" for what in section.fitted)
    yield from (f"- {note}\n" for note in section.notes)
    yield from (f"- skipped: {reason}\n" for reason in section.skipped)
    for listing in section.listings:
        yield from _listed(listing)


def _listed(listing: Listing) -> Iterator[str]:
    yield f"\n### {listing.title}\n\n| {' | '.join(listing.columns)} |\n"
    yield f"|{'---|' * len(listing.columns)}\n"
    yield from (f"| {' | '.join(row)} |\n" for row in listing.rows)


def _cells(finding: Finding) -> tuple[str, ...]:
    verdict = {True: "met", False: "**missed**", None: ""}[finding.is_met]
    bar = "" if finding.bar_pct is None else f"{finding.bar_pct:g} {finding.bar_source}".strip()
    sign = "+" if "signed" in finding.measure else ""
    p90 = "" if finding.p90_pct is None else f"{finding.p90_pct:.1f}"
    error = f"{finding.error_pct:{sign}.2f}"
    near = "" if finding.within_5_pct is None else f"{finding.within_5_pct:.0f}"
    return finding.what, finding.measure, error, p90, near, str(finding.points), bar, verdict
