"""A deployment resolved again from what was given of it, with some settings changed.

What was given stays; what followed from it follows again. So another ``tp`` has another KV pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from simserve.errors import InputError, SimserveError, reason_of
from simserve.inputs.deployment import Deployment
from simserve.inputs.engine_defaults import load_engine
from simserve.inputs.engine_resolution import EngineRequest, resolve_engine
from simserve.inputs.scenario import Scenario, resolved_deployment, scenario_from_dict
from simserve.inputs.validation import Origins

_GIVEN = "given"
# Terms of the memory under the names of their settings.
_RESERVES = ("activation_peak", "context", "cuda_graph_pool")
_STATED = ("tp", "replicas", "router", "scheduler", "latency", "allow_extrapolation")
_WHERE = "the changed deployment"


def with_settings(deployment: Deployment, *, tp: int | None = None, **changes: Any) -> Deployment:
    """Return the deployment with ``changes`` of engine settings, and on ``tp`` GPUs a replica.

    Raises:
        InputError: if the settings contradict each other, or ``tp`` does not cut the model.
        DoesNotFitError: if the model does not fit any more.
    """
    tp = deployment.tp if tp is None else tp
    if tp not in deployment.model.tp_sizes():
        allowed = ", ".join(map(str, deployment.model.tp_sizes()))
        raise InputError(_WHERE, "tp", tp, f"{allowed}: sizes that cut {deployment.model.name}")
    request = EngineRequest(
        model=deployment.model,
        gpu=deployment.gpu,
        tp=tp,
        scheduler=deployment.scheduler,
        given=_given(resolved_deployment(deployment)) | changes,
        origins=Origins(_WHERE),
    )
    found = resolve_engine(request, load_engine(deployment.engine_name))
    return replace(
        deployment, tp=tp, engine=found.settings, kv=found.kv, sources=dict(found.sources)
    )


def scenario_of_resolved(resolved: Mapping[str, Any]) -> Scenario:
    """Return the scenario that a saved run is of, from ``RunFacts.resolved``.

    Raises:
        InputError: if what is resolved now is not what the run had: a model, a GPU or a trace has
            changed or is gone, or the run is of another version.
    """
    where = f"the scenario of {resolved.get('name')}"
    try:
        return _made_again(resolved, where)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        allowed = "what simserve resolves of a scenario"
        raise InputError(where, None, reason_of(error), allowed) from None


def _made_again(resolved: Mapping[str, Any], where: str) -> Scenario:
    deployment, workload = resolved["deployment"], dict(resolved["workload"])
    if "trace" in workload:
        workload["trace"] = {k: v for k, v in workload["trace"].items() if k != "sha256"}
    entry: dict[str, Any] = {
        "name": resolved["name"],
        "seed": resolved["seed"],
        "workload": workload,
        "deployment": _entry(deployment),
    }
    if resolved["start_date"] is not None:
        entry["start_date"] = resolved["start_date"]
    if resolved["slo"] is not None:
        entry["slo"] = {_objective(one): one["limit_ms"] for one in resolved["slo"]}
    try:
        found = scenario_from_dict(entry, where)
    except SimserveError as error:
        allowed = f"one that can be made again ({error})"
        raise InputError(where, None, "a run of something else", allowed) from None
    differing = _first_difference(_plain(found.resolved()), _plain(dict(resolved)))
    if differing:
        allowed = "the value of the saved run; explain its scenario instead of the folder"
        raise InputError(where, differing, "another value now", allowed)
    return found


def _entry(deployment: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a scenario file would say of a resolved deployment."""
    weights = deployment["model"]["weights"]
    entry = {key: deployment[key] for key in _STATED if key in deployment} | _given(deployment)
    entry |= {"model": deployment["model"]["name"], "gpu": deployment["gpu"]["name"]}
    entry["engine"] = deployment["engine"]["name"]
    if weights is not None:
        entry["quantization"] = weights["method"]
    if deployment["model"]["kv_bytes_per_value"] == 1:
        entry["kv_cache_dtype"] = "fp8"
    return entry


def _given(deployment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the engine settings of a resolved deployment that somebody gave."""
    settings, kv = deployment["engine"]["settings"], deployment["kv"]
    given = {
        key: one["value"]
        for key, one in settings.items()
        if one["source"].startswith(_GIVEN) and key != "num_blocks"
    }
    terms = {term["name"]: term for term in kv["terms"]}
    for name in _RESERVES:
        if terms[name]["kind"] == _GIVEN:
            given[f"{name}_bytes"] = terms[name]["bytes"]
    pool = terms["kv_blocks"]
    if pool["kind"] == _GIVEN and pool["source"] == "num_gpu_blocks":
        given["num_gpu_blocks"] = settings["num_blocks"]["value"]
    elif pool["kind"] == _GIVEN:
        windows = terms["kv_windows"]["bytes"] if "kv_windows" in terms else 0
        given["kv_cache_memory_bytes"] = pool["bytes"] + windows
    return given


def _objective(entry: Mapping[str, Any]) -> str:
    percentile = entry["percentile"]
    return entry["metric"] if percentile is None else f"{entry['metric']}_p{percentile:g}"


def _plain(value: Any) -> Any:
    """Return resolved values without where they were given, which is not what they are."""
    if isinstance(value, Mapping):
        return {
            key: _plain(one)
            for key, one in value.items()
            if key not in ("source", "launch_line", "kind")
        }
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def _first_difference(now: Any, saved: Any, path: str = "") -> str | None:
    """Return the dotted key at which what was saved differs first; None if nowhere.

    A key that was not saved is of a setting that there was none of then.
    """
    if not (isinstance(now, dict) and isinstance(saved, dict)):
        return None if now == saved else path.rstrip(".")
    for key in sorted(saved):
        if key not in now:
            return f"{path}{key}"
        found = _first_difference(now[key], saved[key], f"{path}{key}.")
        if found:
            return found
    return None
