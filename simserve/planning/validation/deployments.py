"""Whole deployments against their published latencies: the last and least controlled level."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from simserve.errors import InputError
from simserve.planning.validation import closed_load, offline_load, open_load
from simserve.planning.validation.findings import Section, skipping
from simserve.planning.validation.models import KernelProfiles

_OFFLINE_ENGINE = "trtllm"
# Folders that other levels compare, or that hold nothing to compare with.
_ELSEWHERE = ("kernel_tables", "llmservingsim_vllm", "splitwise_dgx")


def deployment_section(groundtruth: Path, scratch: Path) -> Section:
    """Return the findings on deployments; profiles are built in the folder ``scratch``."""
    section = Section("deployment")
    comparisons = {offline_load.STATIC: offline_load.add_static}
    try:
        served = KernelProfiles(scratch)
        offline = KernelProfiles(scratch, _OFFLINE_ENGINE)
    except InputError as error:
        section.skipped.append(str(error))
    else:
        comparisons = {
            open_load.SET: partial(open_load.add_open_load, profiles=served),
            closed_load.SET: partial(closed_load.add_closed_load, profiles=served),
            offline_load.THROUGHPUT: partial(offline_load.add_throughput, profiles=offline),
            **comparisons,
        }
    for name, compare in comparisons.items():
        folder = groundtruth / name
        if not folder.is_dir():
            section.skipped.append(f"{name}: no folder {folder}")
            continue
        with skipping(section, name):
            compare(folder, section=section)
    known = {open_load.SET, closed_load.SET, offline_load.THROUGHPUT, *comparisons, *_ELSEWHERE}
    if groundtruth.is_dir():
        others = [one.name for one in groundtruth.iterdir() if one.is_dir()]
        for name in sorted(set(others) - known):
            section.skipped.append(f"{name}: no comparison for a folder of this name")
    section.skipped = [one.replace(f"{scratch}/", "") for one in section.skipped]
    return section
