"""The latency models that are compared with measurements: profiles where there are any."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simserve.errors import InputError
from simserve.inputs.deployment import Deployment
from simserve.inputs.hardware_profile import GpuSpec, load_gpu
from simserve.inputs.model_catalogue import load_model
from simserve.inputs.model_spec import ModelSpec
from simserve.latency.importers.aiconfigurator import SliceRequest, build_profile
from simserve.latency.importers.kernel_package import PACKAGE, find_package, installed_package
from simserve.latency.importers.kernel_rows import engine_reduce_rows
from simserve.latency.importers.llmservingsim import Collectives, import_profile
from simserve.latency.model import DecodeLine, StepLatencyModel
from simserve.latency.roofline import RooflineModel
from simserve.latency.tables.profile import Profile, read_profile
from simserve.latency.tables.table_model import TableModel
from simserve.planning.validation.findings import Section
from simserve.records.step import StepShape

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


Candidates = Callable[[str, str, int, Section], Iterator[Candidate]]
"""The latency models of a model, a GPU and a tensor-parallel size, by their catalogue names."""


class KernelProfiles:
    """Profiles from an engine's installed kernel tables, each built once, in ``scratch``.

    Raises:
        InputError: if the package with the tables is not installed.
    """

    def __init__(self, scratch: Path, engine: str = _ENGINE) -> None:
        self._package = installed_package()
        self._scratch, self._engine = scratch, engine
        self._profiles: dict[tuple[str, str, int], Profile] = {}

    def profile(self, model: ModelSpec, gpu: GpuSpec, tp: int) -> Profile:
        """Return the profile of a model on ``tp`` GPUs."""
        key = gpu.name, model.name, tp
        if key not in self._profiles:
            folder = self._scratch / "-".join(map(str, (self._engine, *key)))
            wanted = SliceRequest(gpu=gpu, model=model, tp=tp, engine=self._engine)
            build_profile(self._package, wanted, folder, _today())
            self._profiles[key] = read_profile(folder)
        return self._profiles[key]

    def model(self, deployment: Deployment, *, gap_s: float = 0.0) -> TableModel:
        """Return the latency model of a deployment; ``gap_s`` is added between two steps."""
        model, gpu, tp = deployment.model, deployment.gpu, deployment.tp
        profile = self.profile(model, gpu, tp)
        if gap_s and profile.host is not None:
            bubble = profile.host.bubble
            wider = dataclasses.replace(bubble, value=bubble.value + gap_s, kind="fitted")
            profile = dataclasses.replace(
                profile, host=dataclasses.replace(profile.host, bubble=wider)
            )
        ahead = deployment.engine.async_scheduling
        return TableModel(profile, model, gpu, tp, async_scheduling=ahead)


class Scaled:
    """A latency model whose decode-only steps, and whose steps with prefill, take a factor."""

    def __init__(self, model: TableModel, decode: float, prefill: float) -> None:
        self._model, self._decode, self._prefill = model, decode, prefill
        self.reads_contexts = model.reads_contexts

    def step_s(self, shape: StepShape) -> float:
        """Return the duration of a step in seconds."""
        factor = self._prefill if shape.prefill else self._decode
        return factor * self._model.step_s(shape)

    def decode_line(self, decode_seqs: int, decode_context_tokens: int) -> DecodeLine:
        """Return the line of decode-only steps."""
        return self._scaled(self._model.decode_line(decode_seqs, decode_context_tokens))

    def uneven_decode_line(self, decode_slots: int, contexts: npt.NDArray[np.int64]) -> DecodeLine:
        """Return the line of decode-only steps of these contexts."""
        return self._scaled(self._model.uneven_decode_line(decode_slots, contexts))

    def _scaled(self, line: DecodeLine) -> DecodeLine:
        return line._replace(
            base_ps=round(self._decode * line.base_ps),
            per_context_ps=round(self._decode * line.per_context_ps),
        )


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
    section.notes.append(of_roofline("tables", tables))
    yield Candidate("tables", tables)


def layer_profile(
    source: Path,
    deployment: Deployment,
    engine: Mapping[str, Any],
    scratch: Path,
    section: Section,
) -> Profile:
    """Return the profile imported from the layer tables in ``source``.

    ``engine`` is what the run recorded of its engine; its version, or the link that its
    publishers state, leads to the all-reduce that the layer tables have not.
    """
    name = source.parent.name
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
    return read_profile(scratch / name)


def table_model(profile: Profile, deployment: Deployment, *, is_even: bool = False) -> TableModel:
    """Return the latency model of a profile; ``is_even``: at the mean context of a batch."""
    if is_even:
        profile = dataclasses.replace(profile, waves={})
    ahead = deployment.engine.async_scheduling
    return TableModel(
        profile, deployment.model, deployment.gpu, deployment.tp, async_scheduling=ahead
    )


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


def of_roofline(name: str, tables: TableModel) -> str:
    """Return in words which operators no table answers."""
    missing = ", ".join(tables.missing) or "nothing"
    return f"{name}: without a table, so by the roofline or nothing: {missing}"


def _today() -> str:
    return dt.datetime.now(tz=dt.UTC).date().isoformat()
