"""A scenario: a workload, what it is sent to, and what is promised; all of it resolved.

A file has the keys ``workload``, ``deployment``, ``slo`` and ``seed``; the first two stand
inline or name a file. Options of the command line override what a file says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from simserve.errors import InputError
from simserve.inputs.deployment import Deployment, DeploymentSpec, read_deployment
from simserve.inputs.launch_line.read import LaunchLine, check_gpus, read_launch_line
from simserve.inputs.plan_spec import PlanSpec
from simserve.inputs.scenario_draft import Draft
from simserve.inputs.settings import parse_setting
from simserve.inputs.slo import Slo
from simserve.inputs.validation import Origins, validate
from simserve.inputs.workload import WorkloadSpec, read_workload

_HASH_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Everything that decides a run. ``start_date`` (ISO) is when the simulated clock starts.

    ``launch_line`` is the line that the deployment was read from, if it was. ``plan`` is what a
    planner may vary; no run depends on it.
    """

    workload: WorkloadSpec
    deployment: Deployment
    slo: Slo | None
    seed: int
    name: str
    start_date: str | None = None
    launch_line: LaunchLine | None = None
    plan: PlanSpec | None = None

    def resolved(self) -> dict[str, Any]:
        """Return every value that decides the run, with its source, as JSON-able objects."""
        workload = self.workload.model_dump(mode="json", exclude_none=True)
        if self.workload.trace is not None:
            workload["trace"]["sha256"] = _sha256(Path(self.workload.trace.file))
        resolved = {
            "name": self.name,
            "seed": self.seed,
            "start_date": self.start_date,
            "workload": workload,
            "slo": None if self.slo is None else [asdict(one) for one in self.slo.objectives],
            "deployment": resolved_deployment(self.deployment),
        }
        if self.launch_line is not None:
            resolved["launch_line"] = {
                "engine": self.launch_line.engine,
                "notes": list(self.launch_line.notes),
            }
        return resolved

    def digest(self) -> str:
        """Return the SHA-256, in hex, of the resolved scenario."""
        text = json.dumps(self.resolved(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def resolved_deployment(deployment: Deployment) -> dict[str, Any]:
    """Return every value of ``deployment`` with its source, as JSON-able objects."""
    settings = asdict(deployment.engine)
    return {
        "model": deployment.model.described(),
        "gpu": {
            "name": deployment.gpu.name,
            "family": deployment.gpu.family,
            "numbers": {key: asdict(one) for key, one in sorted(deployment.gpu.sources.items())},
        },
        "tp": deployment.tp,
        "replicas": deployment.replicas,
        "router": deployment.router,
        "scheduler": deployment.scheduler,
        "latency": deployment.latency,
        "allow_extrapolation": deployment.allow_extrapolation,
        "engine": {
            "name": deployment.engine_name,
            "version": deployment.engine_version,
            "settings": {
                key: {"value": settings[key], "source": source}
                for key, source in deployment.sources.items()
            },
        },
        "kv": {
            "num_blocks": deployment.kv.num_blocks,
            "block_bytes": deployment.kv.block_bytes,
            "terms": [asdict(term) for term in deployment.kv.terms],
        },
    }


def load_scenario(
    path: str | Path | None = None,
    *,
    workload: str | Path | None = None,
    trace: str | Path | None = None,
    trace_format: str | None = None,
    trace_columns: Mapping[str, str] | None = None,
    rate_per_s: float | str | None = None,
    head: int | None = None,
    from_s: float | str | None = None,
    to_s: float | str | None = None,
    deployment: str | Path | None = None,
    serve_cmd: str | None = None,
    gpus: int | None = None,
    model: str | None = None,
    gpu: str | None = None,
    tp: int | None = None,
    engine: str | None = None,
    latency: str | None = None,
    settings: Sequence[str] = (),
    slo: object = None,
    seed: int | None = None,
    start_date: str | None = None,
) -> Scenario:
    """Return the scenario in the file ``path``, or the one that ships, with options applied.

    ``path``, ``workload`` and ``deployment`` are files, or names of scenarios that ship.
    ``rate_per_s`` is that of the arrivals; with a trace, time is stretched to it. ``head``,
    ``from_s`` and ``to_s`` choose a part of the trace.
    ``serve_cmd`` is a launch line in place of ``deployment``, ``gpus`` how many GPUs there are.
    With ``workload`` or ``trace`` and no ``path``, the deployment is that of the shipped scenario
    unless options replace it, and its name and SLO are dropped. ``settings`` are ``key=value``.

    Raises:
        InputError: if a file or a value cannot be used, or an option contradicts a setting.
        DoesNotFitError: if the GPUs cannot hold the model.
    """
    draft = Draft.from_file(path)
    if workload is not None and trace is not None:
        raise InputError("--trace", None, str(trace), f"either it or --workload {workload}")
    if path is None and (workload is not None or trace is not None):
        draft.forget_promises()
    if workload is not None:
        draft.replace_section("workload", workload, "--workload")
    if trace is not None or trace_format is not None:
        draft.use_trace(trace, trace_format)
    columns = None if trace_columns is None else dict(trace_columns)
    draft.use_part(
        {
            "--rate": rate_per_s,
            "--head": head,
            "--from": from_s,
            "--to": to_s,
            "--trace-columns": columns,
        }
    )
    line = _replace_deployment(draft, deployment, serve_cmd, keep_gpu=path is not None)
    options: dict[str, object] = {
        "deployment.model": model,
        "deployment.gpu": gpu,
        "deployment.tp": tp,
        "deployment.engine": engine,
        "deployment.latency": latency,
        "slo": slo,
        "seed": seed,
        "start_date": start_date,
    }
    _apply(draft, options, settings)
    scenario = _finished(draft, line)
    if gpus is not None:
        check_gpus(scenario.deployment.tp, scenario.deployment.replicas, gpus, f"--gpus {gpus}")
    return scenario


def load_deployment_spec(
    path: str | Path | None = None,
    *,
    deployment: str | Path | None = None,
    serve_cmd: str | None = None,
    gpus: int | None = None,
    settings: Sequence[str] = (),
    **options: object,
) -> tuple[DeploymentSpec, Origins]:
    """Return the deployment as ``load_scenario`` would find it, before it is resolved.

    So a deployment that does not fit can be looked at. ``options`` are ``model``, ``gpu``,
    ``tp``, ``engine`` and ``latency``.

    Raises:
        InputError: if a file or a value cannot be used.
    """
    draft = Draft.from_file(path)
    line = _replace_deployment(draft, deployment, serve_cmd, keep_gpu=path is not None)
    _apply(draft, {f"deployment.{key}": value for key, value in options.items()}, settings)
    if line is not None:
        draft.check_launch_line()
    section = draft.section("deployment")
    spec = validate(DeploymentSpec, section, draft.origins, "deployment")
    if gpus is not None:
        check_gpus(spec.tp, spec.replicas, gpus, f"--gpus {gpus}")
    return spec, draft.origins


def _replace_deployment(
    draft: Draft, file: str | Path | None, serve_cmd: str | None, keep_gpu: bool
) -> LaunchLine | None:
    """Put what ``file`` or the launch line says in place of the deployment; return the line."""
    if serve_cmd is None:
        if file is not None:
            draft.replace_section("deployment", file, "--deployment")
        return None
    if file is not None:
        raise InputError("--serve-cmd", None, "a second deployment", "it or --deployment")
    line = read_launch_line(serve_cmd)
    draft.use_launch_line(line, keep_gpu=keep_gpu)
    return line


def _apply(draft: Draft, options: Mapping[str, object], settings: Sequence[str]) -> None:
    """Set what options and ``--set`` give; the same key twice is refused."""
    for key, value in options.items():
        if value is not None:
            draft.set(key, value, "--" + key.removeprefix("deployment.").replace("_", "-"))
    for text in settings:
        setting = parse_setting(text)
        draft.set(setting.path, setting.value, setting.where)


def scenario_from_dict(
    entry: Mapping[str, Any], where: str = "scenario", base_dir: str | Path = "."
) -> Scenario:
    """Return the scenario that a mapping with a file's keys describes.

    Relative file names in it are relative to ``base_dir``.

    Raises:
        InputError: for the first thing that is wrong with it.
    """
    return _finished(Draft.from_mapping(dict(entry), where, Path(base_dir), "scenario"))


def _finished(draft: Draft, line: LaunchLine | None = None) -> Scenario:
    """Return the scenario of a complete draft: every section checked and resolved."""
    if line is not None:
        draft.check_launch_line()
    workload = read_workload(draft.section("workload"), draft.origins)
    slo = draft.checked_slo()
    if slo is not None and workload.classes and all(one.slo for one in workload.classes):
        allowed = "nothing: every class has objectives of its own (workload.classes)"
        raise InputError(draft.origins.where("slo"), "slo", str(slo), allowed)
    return Scenario(
        workload=workload,
        deployment=read_deployment(draft.section("deployment"), draft.origins),
        slo=slo,
        seed=draft.checked_seed(),
        name=draft.checked_name(),
        start_date=draft.checked_start_date(),
        launch_line=line,
        plan=_plan(draft),
    )


def _plan(draft: Draft) -> PlanSpec | None:
    section = draft.entry.get("plan")
    return None if section is None else validate(PlanSpec, section, draft.origins, "plan")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
