"""Whole deployments against their published latencies: the last and least controlled level."""

from __future__ import annotations

from pathlib import Path

from simserve.errors import InputError
from simserve.planning.validation import closed_load, open_load
from simserve.planning.validation.findings import Section, skipping
from simserve.planning.validation.models import KernelProfiles

_NOT_COMPARED = ("trtllm_perf_overview", "llm_inference_bench")


def deployment_section(groundtruth: Path, scratch: Path) -> Section:
    """Return the findings on deployments; profiles are built in the folder ``scratch``."""
    section = Section("deployment")
    try:
        profiles = KernelProfiles(scratch)
    except InputError as error:
        section.skipped.append(str(error))
        return section
    for name, compare in (
        (open_load.SET, open_load.add_open_load),
        (closed_load.SET, closed_load.add_closed_load),
    ):
        folder = groundtruth / name
        if not folder.is_dir():
            section.skipped.append(f"{name}: no folder {folder}")
            continue
        with skipping(section, name):
            compare(folder, profiles, section)
    for name in _NOT_COMPARED:
        there = (groundtruth / name).is_dir()
        reason = "not compared yet" if there else f"no folder {groundtruth / name}"
        section.skipped.append(f"{name}: {reason}")
    return section
