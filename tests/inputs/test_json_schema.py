"""The schemas in docs/schema are those of the code, and take what the readers take."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from scripts.schemas import FOLDER, schema_text
from simserve.errors import InputError
from simserve.inputs.data_files import data_dir
from simserve.inputs.deployment import DeploymentSpec
from simserve.inputs.hardware_profile import read_gpu
from simserve.inputs.json_schema import file_schema, schema_names
from simserve.inputs.scenario import scenario_from_dict
from simserve.inputs.workload import WorkloadSpec
from simserve.inputs.yaml_reader import parse_yaml, read_yaml
from tests.fuzz.seeds import FULL_SCENARIO, STEPS

TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}


def fits(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether ``value`` fits the part of JSON Schema that these schemas use."""
    if "$ref" in schema and not fits(value, _at(schema["$ref"], root), root):
        return False
    if "anyOf" in schema and not any(fits(value, one, root) for one in schema["anyOf"]):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "type" in schema and not _is(value, schema["type"]):
        return False
    if isinstance(value, str):
        if "pattern" in schema and not re.search(schema["pattern"], value):
            return False
        return bool(len(value) >= schema.get("minLength", 0))
    if isinstance(value, int | float) and not isinstance(value, bool):
        lowest, above = schema.get("minimum", value), schema.get("exclusiveMinimum")
        return bool(value >= lowest and (above is None or value > above))
    if isinstance(value, list):
        return all(fits(one, schema.get("items", {}), root) for one in value)
    return not isinstance(value, dict) or _mapping_fits(value, schema, root)


def _mapping_fits(value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any]) -> bool:
    if not set(schema.get("required", ())) <= value.keys():
        return False
    keys, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for key, inner in value.items():
        rules = [keys[key]] if key in keys else []
        rules += [rule for pattern, rule in patterns.items() if re.search(pattern, key)]
        if not rules and schema.get("additionalProperties") is False:
            return False
        if not all(fits(inner, rule, root) for rule in rules):
            return False
    return bool(len(value) >= schema.get("minProperties", 0))


def _at(ref: str, root: dict[str, Any]) -> Any:
    node: Any = root
    for part in ref.removeprefix("#/").split("/"):
        node = node[part]
    return node


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def fits_file(value: Any, name: str) -> bool:
    schema = file_schema(name)
    return fits(value, schema, schema)


@pytest.mark.parametrize("name", schema_names())
def test_committed_schema_is_that_of_the_code(name: str) -> None:
    written = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    assert written == schema_text(name), "run: python -m scripts.schemas"


SHIPPED = sorted(data_dir("workloads").glob("*.yaml"))
DEVICES = sorted(data_dir("hardware_profiles").glob("*/device.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_scenario_fits_its_schema(path: Path) -> None:
    content = read_yaml(path)
    assert fits_file(content, "scenario")
    assert fits_file(content["workload"], "workload")
    assert fits_file(content["deployment"], "deployment")


def test_every_shipped_device_fits_its_schema() -> None:
    assert len(DEVICES) > 10
    assert [path for path in DEVICES if not fits_file(read_yaml(path), "device")] == []


@pytest.mark.parametrize("text", [FULL_SCENARIO, STEPS], ids=["everything", "steps"])
def test_scenario_with_units_and_every_key_fits(text: str) -> None:
    content = parse_yaml(text, "here")
    scenario_from_dict(content)
    assert fits_file(content, "scenario")


WRONG = [
    ("scenario", "sede: 3"),
    ("scenario", "seed: -1"),
    ("scenario", "slo: {ttft_mean: 5}"),
    ("workload", "num_requests: 0"),
    ("workload", "num_requests: many"),
    ("workload", "prompt_tokens: {median: 5 furlongs, p95: 9}"),
    ("workload", "arrivals: {process: closed}"),
    ("workload", "arrivals: {rate_per_s: 5 ms}"),
    ("deployment", "max_num_seq: 4"),
    ("deployment", "router: random"),
    ("deployment", "scheduling_policy: lifo"),
    ("deployment", "context_bytes: -1"),
    ("deployment", "enable_prefix_caching: 1"),
    ("device", "memory: 80GB"),
    ("device", "hbm_bandwidth: {value: 3 TB, kind: assumed, source: x, date: '2026-01-01'}"),
    ("device", "hbm_bandwidth: {value: 3TB/s, kind: guess, source: x, date: '2026-01-01'}"),
]


@pytest.mark.parametrize(("name", "text"), WRONG)
def test_what_the_schema_refuses_the_reader_refuses_too(name: str, text: str) -> None:
    good = {
        "scenario": parse_yaml(FULL_SCENARIO, "good"),
        "workload": parse_yaml(FULL_SCENARIO, "good")["workload"],
        "deployment": parse_yaml(FULL_SCENARIO, "good")["deployment"],
        "device": read_yaml(data_dir("hardware_profiles") / "h100-sxm" / "device.yaml"),
    }
    assert fits_file(good[name], name)
    content = good[name] | parse_yaml(text, "wrong")
    assert not fits_file(content, name)
    with pytest.raises(InputError):
        if name == "device":
            read_gpu(content, "device.yaml")
        else:
            scenario_from_dict(
                content if name == "scenario" else good["scenario"] | {name: content}
            )


def test_engine_settings_have_the_names_of_vllm_and_a_description() -> None:
    for name, model in (("deployment", DeploymentSpec), ("workload", WorkloadSpec)):
        keys = file_schema(name)["properties"]
        assert set(keys) == set(model.model_fields)
        assert all(one.get("description") for one in keys.values())
    text = json.dumps(file_schema("deployment"))
    assert "fp8_e4m3" in text and '"null"' not in text
