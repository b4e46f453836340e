"""The scenario of a run, written so that it can be run again, and whether that is so.

A result keeps every resolved value. From these a scenario file is written; it is read back here
and now, and what it resolves to is compared with what was run. So the page does not promise more
than it has tried.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from simserve.errors import InputError
from simserve.inputs.scenario import scenario_from_dict

_GIVEN = "given: "
_KV_DTYPE_OF_BYTES = {1.0: "fp8"}
# Where a value was given is no part of what was run; a launch line is written as its settings.
_WORDS = re.compile(r"\.source$|^launch_line|^name$")
_MOST_SHOWN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A scenario file, and why it is not the same run, if so: ``problem`` is then a sentence."""

    text: str
    problem: str | None


def recipe(resolved: Mapping[str, Any]) -> Recipe:
    """Return the scenario file of a resolved scenario, as ``Scenario.resolved`` gives it."""
    entry = scenario_entry(resolved)
    return Recipe(text=scenario_text(entry), problem=_problem(entry, resolved))


def scenario_entry(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a scenario file: what was given, and nothing that follows from it."""
    workload = dict(resolved["workload"])
    if "trace" in workload:
        workload["trace"] = {k: v for k, v in workload["trace"].items() if k != "sha256"}
    entry: dict[str, Any] = {"name": resolved["name"], "seed": resolved["seed"]}
    if resolved.get("start_date") is not None:
        entry["start_date"] = resolved["start_date"]
    entry |= {"workload": workload, "deployment": _deployment(resolved["deployment"])}
    if resolved.get("slo"):
        entry["slo"] = {_objective(one): one["limit_ms"] for one in resolved["slo"]}
    return entry


def scenario_text(entry: Mapping[str, Any]) -> str:
    """Return the entry as YAML: sections on lines of their own, values as JSON, which YAML is."""
    lines = []
    for key, value in entry.items():
        if isinstance(value, dict) and value:
            lines.append(f"{key}:")
            lines += [f"  {name}: {_json(one)}" for name, one in value.items()]
        else:
            lines.append(f"{key}: {_json(value)}")
    return "\n".join(lines) + "\n"


def _deployment(resolved: Mapping[str, Any]) -> dict[str, Any]:
    model, engine = resolved["model"], resolved["engine"]
    entry = {"model": model["name"], "gpu": resolved["gpu"]["name"], "engine": engine["name"]}
    entry |= {key: resolved[key] for key in ("tp", "replicas", "router", "scheduler", "latency")}
    if resolved.get("allow_extrapolation"):
        entry["allow_extrapolation"] = True
    for key, one in engine["settings"].items():
        if not one["source"].startswith(_GIVEN):
            continue
        if key != "num_blocks":
            entry[key] = one["value"]
        elif one["source"].split(";")[0].endswith("num_gpu_blocks"):
            entry["num_gpu_blocks"] = one["value"]
    if model["weights"] is not None:
        entry["quantization"] = model["weights"]["method"]
    kv_dtype = _KV_DTYPE_OF_BYTES.get(model["kv_bytes_per_value"])
    if kv_dtype is not None:
        entry["kv_cache_dtype"] = kv_dtype
    return entry


def _objective(one: Mapping[str, Any]) -> str:
    percentile = one["percentile"]
    return str(one["metric"]) if percentile is None else f"{one['metric']}_p{percentile:g}"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _problem(entry: Mapping[str, Any], resolved: Mapping[str, Any]) -> str | None:
    try:
        again = scenario_from_dict(entry).resolved()
    except (InputError, OSError) as error:
        return f"It cannot be read on this machine: {error}."
    # Through JSON, as the result file went: tuples become lists.
    found, wanted = (dict(_flat(json.loads(_json(one)))) for one in (again, resolved))
    differ = sorted(
        key
        for key in found.keys() | wanted.keys()
        if not _WORDS.search(key) and found.get(key) != wanted.get(key)
    )
    if not differ:
        return None
    more = f" and {len(differ) - _MOST_SHOWN} more" if len(differ) > _MOST_SHOWN else ""
    return (
        "Read again with this version and these files, it is not the same: it differs in "
        f"{', '.join(differ[:_MOST_SHOWN])}{more}."
    )


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value with its dotted path."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _flat(one, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for at, one in enumerate(value):
            yield from _flat(one, f"{path}.{at}")
    else:
        yield path, value
