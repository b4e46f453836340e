"""The latency models that are compared with measurements: profiles where there are any."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simserve.errors import InputError
from simserve.inputs.deployment import Deployment
from simserve.inputs.hardware_profile import load_gpu
from simserve.inputs.model_catalogue import load_model
from simserve.latency.importers.aiconfigurator import (
    SliceRequest,
    build_profile,
    engine_reduce_rows,
)
from simserve.latency.importers.kernel_package import PACKAGE, find_package
from simserve.latency.importers.llmservingsim import Collectives, import_profile
from simserve.latency.load import load_latency_model
from simserve.latency.model import StepLatencyModel
from simserve.latency.roofline import RooflineModel
from simserve.latency.tables.profile import read_profile
from simserve.latency.tables.table_model import TableModel
from simserve.planning.validation.findings import Section

_ENGINE = "vllm"
# Messages of 1 KiB to 1 GiB.
_POWERS_OF_MESSAGES = (10, 31)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A latency model under its name in the report.

    The roofline is there to compare with; bars are for what is built from measured kernels.
    """

    name: str
    model: StepLatencyModel
    is_judged: bool = True


def kernel_candidates(
    model: str, gpu: str, tp: int, scratch: Path, section: Section
) -> Iterator[Candidate]:
    """Yield the roofline, and the profile built from the installed kernel tables if any."""
    spec, device = load_model(model), load_gpu(gpu)
    yield Candidate("roofline", RooflineModel(spec, device, tp), is_judged=False)
    package = find_package()
    if package is None:
        section.skipped.append(f"tables: {PACKAGE} is not installed")
        return
    folder = scratch / f"{device.name}-{spec.name}-tp{tp}"
    wanted = SliceRequest(gpu=device, model=spec, tp=tp, engine=_ENGINE)
    build_profile(package, wanted, folder, _today())
    profile = read_profile(folder)
    tables = TableModel(profile, spec, device, tp)
    section.notes.append(_of_roofline("tables", tables))
    yield Candidate("tables", tables)


def layer_candidates(
    source: Path,
    deployment: Deployment,
    engine: Mapping[str, Any],
    scratch: Path,
    section: Section,
) -> Iterator[Candidate]:
    """Yield the roofline, and the profile imported from the layer tables in ``source``.

    ``engine`` is what the run recorded of its engine; its version, or the link that its
    publishers state, leads to the all-reduce that the layer tables have not.
    """
    name = source.parent.name
    roofline = RooflineModel(deployment.model, deployment.gpu, deployment.tp)
    yield Candidate("roofline", roofline, is_judged=False)
    collectives = None
    if deployment.tp > 1:
        collectives = _measured_reduce(deployment, str(engine["engine_version"]))
        collectives = collectives or _published_link(deployment, engine)
        section.notes.append(f"{name}: all-reduce from {collectives.source}")
    import_profile(
        source,
        scratch / name,
        _today(),
        tp=deployment.tp,
        gpu=deployment.gpu.name,
        collectives=collectives,
    )
    priced = dataclasses.replace(deployment, latency=str(scratch / name))
    tables = load_latency_model(priced)
    if isinstance(tables, TableModel):
        section.notes.append(_of_roofline(name, tables))
    yield Candidate("layer tables", tables)


def _measured_reduce(deployment: Deployment, version: str) -> Collectives | None:
    """Return the installed all-reduce table of the same GPU and engine version, if any."""
    package = find_package()
    if package is None:
        return None
    try:
        system = package.system(deployment.gpu.name)
    except InputError:
        return None
    path = package.at(system, "comm", _ENGINE, version, "custom_allreduce")
    if path is None:
        return None
    rows = list(engine_reduce_rows(package.read(path), deployment.tp))
    source = f"{PACKAGE} {package.version}, {_ENGINE} {version}, another machine of this kind"
    return Collectives(rows, source) if rows else None


def _published_link(deployment: Deployment, engine: Mapping[str, Any]) -> Collectives:
    """Return a ring's all-reduce over the link that the publishers state for the machine."""
    link = engine["published_simulator_system_config"]
    bytes_per_us, latency_us = link["link_bw_GBps"] * 1e3, link["link_latency_ns"] * 1e-3
    ring = 2 * (deployment.tp - 1) / deployment.tp
    rows = [
        {
            "op": "all_reduce",
            "impl": "link",
            "gpus": deployment.tp,
            "bytes": size,
            "graph": 1,
            "us_p50": latency_us + ring * size / bytes_per_us,
        }
        for size in (1 << power for power in range(*_POWERS_OF_MESSAGES))
    ]
    stated = f"{link['link_bw_GBps']} GB/s and {latency_us:g} us"
    return Collectives(rows, f"the link that the publishers state for the machine, {stated}")


def _of_roofline(name: str, tables: TableModel) -> str:
    missing = ", ".join(tables.missing) or "nothing"
    return f"{name}: without a table, so by the roofline or nothing: {missing}"


def _today() -> str:
    return dt.datetime.now(tz=dt.UTC).date().isoformat()
