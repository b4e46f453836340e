"""The YAML files as JSON Schema, for editors: keys, units and choices, from the code that reads.

A schema promises less than the readers check: what depends on two keys, or on the model, only
a run can say. ``simserve check FILE`` says it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from simserve.errors import unknown_name
from simserve.inputs.deployment import (
    POLICY_NAMES,
    ROUTER_NAMES,
    SCHEDULER_NAMES,
    DeploymentSpec,
)
from simserve.inputs.hardware_profile import DTYPES, list_gpus, profile_keys
from simserve.inputs.model_catalogue import list_models
from simserve.inputs.plan_spec import PlanSpec
from simserve.inputs.quantization import KV_DTYPES, QUANTIZATION_NAMES
from simserve.inputs.slo import slo_schema
from simserve.inputs.sourced import KINDS
from simserve.inputs.units import COUNT_UNITS, quantity_schema
from simserve.inputs.workload import WorkloadSpec

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TEXT: Schema = {"type": "string", "minLength": 1}
_CLASS_PATH = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
_COUNT: Schema = quantity_schema(COUNT_UNITS, kind="integer", lowest=1)


def schema_names() -> tuple[str, ...]:
    """Return the names of the files that have a schema."""
    return tuple(_SCHEMAS)


def file_schema(name: str) -> Schema:
    """Return the JSON Schema of the files called ``name``, such as scenario.

    Raises:
        InputError: if there is none, naming those that there are.
    """
    if name not in _SCHEMAS:
        raise unknown_name("schema", "", name, _SCHEMAS)
    return {"$schema": DIALECT, "title": f"simserve {name}"} | _SCHEMAS[name]()


def _workload() -> Schema:
    schema = _tidy(WorkloadSpec.model_json_schema())
    lengths = schema["$defs"]["LengthSpec"]
    description = "tokens: an integer such as 512 or 2k, {median, p95}, or {histogram}"
    schema["$defs"]["LengthSpec"] = {"description": description, "anyOf": [_COUNT, lengths]}
    return schema


def _deployment() -> Schema:
    schema = _tidy(DeploymentSpec.model_json_schema())
    keys = schema["properties"]
    for key, names in _CHOICES.items():
        description = keys[key].get("description")
        keys[key] = {"enum": _both_spellings(names), "description": description}
    own_class = {"type": "string", "pattern": _CLASS_PATH}
    keys["scheduler"] = {
        "anyOf": [{"enum": _both_spellings(SCHEDULER_NAMES)}, own_class],
        "description": f"{', '.join(SCHEDULER_NAMES)}, or package.module:Class",
    }
    keys["model"]["description"] = "a model: its name, its Hugging Face id, or a config.json"
    keys["model"]["examples"] = list(list_models())
    keys["gpu"]["examples"] = list(list_gpus())
    keys["latency"]["examples"] = ["roofline"]
    return schema


_CHOICES: Mapping[str, tuple[str, ...]] = {
    "router": ROUTER_NAMES,
    "scheduling_policy": POLICY_NAMES,
    "quantization": tuple(QUANTIZATION_NAMES),
    "kv_cache_dtype": tuple(KV_DTYPES),
}


def _both_spellings(names: tuple[str, ...]) -> list[str]:
    """Return the names with hyphens, as simserve lists them, and underscores, as vLLM does."""
    return list(dict.fromkeys([*names, *(name.replace("-", "_") for name in names)]))


def _scenario() -> Schema:
    workload, deployment = _workload(), _deployment()
    plan = _tidy(PlanSpec.model_json_schema())
    defs = workload.pop("$defs", {}) | deployment.pop("$defs", {}) | plan.pop("$defs", {})
    sections = {"WorkloadSpec": workload, "DeploymentSpec": deployment, "PlanSpec": plan}
    return {
        "description": "A workload, what it is sent to, and what is promised.",
        "type": "object",
        "additionalProperties": False,
        "required": ["workload", "deployment"],
        "properties": {
            "workload": _inline_or_file("WorkloadSpec", "a workload"),
            "deployment": _inline_or_file("DeploymentSpec", "a deployment"),
            "slo": slo_schema(),
            "seed": {
                "type": "integer",
                "minimum": 0,
                "default": 0,
                "description": "the seed of every random draw",
            },
            "name": _TEXT | {"description": "what the scenario is called; else after its file"},
            "start_date": _TEXT
            | {"description": "when the simulated clock starts, such as 2026-11-20T09:00:00"},
            "plan": {
                "$ref": "#/$defs/PlanSpec",
                "description": "what simserve plan may vary, and how many people ask",
            },
        },
        "$defs": defs | sections,
    }


def _inline_or_file(name: str, what: str) -> Schema:
    description = f"{what}: inline, or the name of a file"
    return {"anyOf": [{"$ref": f"#/$defs/{name}"}, _TEXT], "description": description}


def _device() -> Schema:
    keys = profile_keys()
    numbers = {key: _sourced(units, what) for key, (units, what) in keys.numbers.items()}
    flops = {dtype: _sourced(keys.flops[0], keys.flops[1]) for dtype in DTYPES}
    shares = {key: _sourced(units, what) for key, (units, what) in keys.efficiency.items()}
    return {
        "description": "A GPU: what the datasheet promises, and which share of it kernels reach.",
        "type": "object",
        "additionalProperties": False,
        "required": ["name", "family", *keys.required, "flops", "efficiency"],
        "properties": {
            "name": _TEXT | {"description": "the name of the profile's folder"},
            "family": _TEXT | {"description": "such as h100; engines' defaults go by it"},
            "aliases": {"type": "array", "items": _TEXT, "description": "other names for it"},
            **numbers,
            "flops": {
                "type": "object",
                "additionalProperties": False,
                "minProperties": 1,
                "properties": flops,
                "description": "dense FLOP rates by dtype, such as 989TFLOPS",
            },
            "efficiency": {
                "type": "object",
                "additionalProperties": False,
                "required": list(shares),
                "properties": shares,
                "description": "shares of the datasheet's rates, and fixed times",
            },
        },
    }


def _sourced(units: Mapping[str, Any], what: str) -> Schema:
    """Return the schema of a number with where it comes from."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["value", "kind", "source", "date"],
        "description": what,
        "properties": {
            "value": quantity_schema(units, lowest=0) | {"description": what},
            "kind": {"enum": list(KINDS), "description": "how far to trust it"},
            "source": _TEXT | {"description": "where the number comes from"},
            "date": {
                "type": "string",
                "pattern": r"^\d{4}-\d{2}-\d{2}$",
                "description": "when it was looked up, such as 2026-11-20",
            },
        },
    }


def _tidy(schema: Schema) -> Schema:
    """Return pydantic's schema without what only Python knows: titles, nulls, long docstrings."""
    return _tidied(copy.deepcopy(schema))  # type: ignore[no-any-return]


def _tidied(node: Any) -> Any:
    if isinstance(node, list):
        return [_tidied(one) for one in node]
    if not isinstance(node, dict):
        return node
    found: Schema = {}
    for key, value in node.items():
        if key == "title" and isinstance(value, str):
            continue
        if key == "default" and value is None:
            continue
        if key == "description" and isinstance(value, str):
            first = value.partition("\n\n")[0].replace("``", "")
            found[key] = " ".join(first.split())
        elif key == "properties":
            found[key] = {name: _tidied(one) for name, one in value.items()}
        else:
            found[key] = _tidied(value)
    options = found.get("anyOf")
    if options is not None:
        options = [one for one in options if one != {"type": "null"}]
        found["anyOf"] = options
        if len(options) == 1:
            del found["anyOf"]
            found = options[0] | found
    return found


_SCHEMAS: Mapping[str, Callable[[], Schema]] = {
    "scenario": _scenario,
    "workload": _workload,
    "deployment": _deployment,
    "device": _device,
}
