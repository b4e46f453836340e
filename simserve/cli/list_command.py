"""``simserve list``: the names that simserve knows, read from where they are defined."""

from __future__ import annotations

import enum
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

Row = dict[str, Any]
"""One line: ``name``, the ``text`` beside it, and the facts behind that text."""


class Kind(enum.StrEnum):
    """What can be listed."""

    MODELS = "models"
    GPUS = "gpus"
    ENGINES = "engines"
    WORKLOADS = "workloads"
    PROFILES = "profiles"
    POLICIES = "policies"
    SCHEDULERS = "schedulers"
    ROUTERS = "routers"


def list_names(
    kind: Annotated[
        Kind,
        typer.Argument(
            metavar="KIND",
            help="models, gpus, engines, workloads, profiles, policies, schedulers or routers.",
        ),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON array, with all facts.")
    ] = False,
) -> None:
    """List known models, GPUs, engines, workloads, policies.

    One line each, with the facts that matter most. Profiles are what prices a step;
    policies are the orders in which a queue is served.

    \b
    Examples:
      simserve list models
      simserve list gpus --json
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    rows = _ROWS[kind]()
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    width = max((len(row["name"]) for row in rows), default=0)
    if kind in _HEADS:
        typer.echo(f"{'':<{width}}  {_HEADS[kind]}", err=True)
    for row in rows:
        typer.echo(f"{row['name']:<{width}}  {row['text']}".rstrip())


def _models() -> list[Row]:
    from simserve.inputs.model_catalogue import list_models, load_model

    rows = []
    for spec in map(load_model, list_models()):
        active = spec.active_parameters
        facts = {
            "hf_id": spec.hf_id,
            "parameters": spec.parameters,
            "active_parameters": active,
            "weight_bytes": spec.weight_bytes(),
            "kv_bytes_per_token": spec.kv_bytes_per_token(),
            "max_position_embeddings": spec.max_position_embeddings,
        }
        text = f"{spec.parameters / 1e9:8.1f} B"
        text += f"{active / 1e9:8.1f} B" if active != spec.parameters else " " * 10
        text += f"{spec.weight_bytes() / 1e9:7.0f} GB{spec.kv_bytes_per_token() / 1e3:8.0f} kB"
        text += f"{spec.max_position_embeddings:12,}"
        rows.append({"name": spec.name, "text": text} | facts)
    return rows


def _gpus() -> list[Row]:
    from simserve.inputs.hardware_profile import list_gpus, load_gpu

    rows = []
    for spec in map(load_gpu, list_gpus()):
        text = f"{spec.memory_bytes / 1e9:.0f} GB, {spec.hbm_bytes_per_s / 1e12:.2f} TB/s, "
        assumed = sum(one.kind == "assumed" for one in spec.sources.values())
        rows.append(
            {
                "name": spec.name,
                "text": text + _sixteen_bit_rate(spec.flops_per_s),
                "family": spec.family,
                "memory_bytes": spec.memory_bytes,
                "hbm_bytes_per_s": spec.hbm_bytes_per_s,
                "flops_per_s": dict(spec.flops_per_s),
                "link_bytes_per_s": spec.link_bytes_per_s,
                "assumed_numbers": assumed,
            }
        )
    return rows


def _sixteen_bit_rate(flops_per_s: Mapping[str, float]) -> str:
    for dtype in ("bf16", "fp16"):
        if dtype in flops_per_s:
            return f"{flops_per_s[dtype] / 1e12:.0f} dense {dtype} TFLOPS"
    return "no 16-bit rate stated"


def _engines() -> list[Row]:
    from simserve.inputs.engine_defaults import load_engine
    from simserve.inputs.launch_line.flag_table import other_table

    vllm = load_engine("vllm")
    rows = [
        {
            "name": vllm.name,
            "text": f"{vllm.version}: scheduled as it does; launch lines read and written",
            "version": vllm.version,
            "defaults": dict(vllm.values),
            "source": vllm.provenance.source,
        }
    ]
    for name in _OTHER_ENGINES:
        version = other_table(name).version
        text = f"{version}: launch lines read; scheduled as vllm does"
        rows.append({"name": name, "text": text, "version": version})
    return rows


# Engines whose launch lines are read; a deployment's engine is vllm.
_OTHER_ENGINES = ("sglang", "trtllm")


def _workloads() -> list[Row]:
    from simserve.inputs.data_files import data_dir

    return [
        {
            "name": path.stem,
            "text": _first_comment(path.read_text(encoding="utf-8")),
            "file": str(path),
        }
        for path in sorted(data_dir("workloads").glob("*.yaml"))
    ]


def _first_comment(text: str) -> str:
    first = text.partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def _profiles() -> list[Row]:
    from simserve.inputs.data_files import data_dir
    from simserve.inputs.hardware_profile import list_gpus
    from simserve.latency.load import LATENCY_MODELS
    from simserve.latency.tables.profile import list_profiles, read_profile

    rows = _documented(LATENCY_MODELS)
    for row in rows:
        row["text"] = f"any GPU: {row['text']}"
    for gpu in list_gpus():
        for name in list_profiles(gpu):
            profile = read_profile(data_dir("hardware_profiles") / gpu / name)
            text = f"{gpu}, {profile.model or 'any model'}: {profile.provenance.kind}, "
            text += f"{len(profile.tables)} tables of {profile.provenance.date}"
            rows.append({"name": name, "text": text, "gpu": gpu, "model": profile.model})
    return rows


def _policies() -> list[Row]:
    from simserve.inputs.deployment import POLICY_NAMES

    return [{"name": name, "text": _POLICY_TEXTS[name]} for name in POLICY_NAMES]


_POLICY_TEXTS = {
    "fcfs": "First come, first served",
    "priority": "Smaller priority first, then earlier; preempts what is less urgent",
}


def _schedulers() -> list[Row]:
    from simserve.inputs.deployment import SCHEDULER_NAMES
    from simserve.policy.registry import SCHEDULERS

    rows = _documented(SCHEDULERS)
    for row in rows:
        if row["name"] not in SCHEDULER_NAMES:
            row["text"] += " (the rules written plainly, for 'verify')"
    return rows


def _routers() -> list[Row]:
    from simserve.policy.router import ROUTERS

    return _documented(ROUTERS)


def _documented(classes: Mapping[str, Any]) -> list[Row]:
    """Return one row a class: its name here, and the first line that it says of itself."""
    rows: list[Row] = []
    for name, kind in classes.items():
        first = (inspect.getdoc(kind) or "").partition("\n")[0].replace("``", "")
        rows.append({"name": name, "text": first.partition("; see the module")[0].rstrip(".")})
    return rows


_HEADS = {Kind.MODELS: "parameters  active   weights  KV/token     context"}
"""What the columns of a kind are, for stderr: every line of stdout is one name."""

_ROWS: dict[Kind, Callable[[], list[Row]]] = {
    Kind.MODELS: _models,
    Kind.GPUS: _gpus,
    Kind.ENGINES: _engines,
    Kind.WORKLOADS: _workloads,
    Kind.PROFILES: _profiles,
    Kind.POLICIES: _policies,
    Kind.SCHEDULERS: _schedulers,
    Kind.ROUTERS: _routers,
}
