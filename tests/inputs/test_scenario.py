"""A scenario is put together from files and options, deterministically, with sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.errors import InputError
from simserve.inputs.data_files import data_dir
from simserve.inputs.scenario import load_scenario, scenario_from_dict
from simserve.inputs.settings import parse_setting, setting_keys

SHIPPED = sorted(path.stem for path in data_dir("workloads").glob("*.yaml"))

TRACE_ROW = '{"timestamp": 0, "input_length": 5, "output_length": 2}\n'


def complaint(**options: Any) -> str:
    with pytest.raises(InputError) as caught:
        load_scenario(options.pop("path", None), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def scenario_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_scenario_loads_and_resolves_to_json(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.name == name
    assert scenario.slo is not None
    assert json.loads(json.dumps(scenario.resolved(), allow_nan=False)) == scenario.resolved()


def test_the_default_scenario_is_chat_on_one_h100() -> None:
    scenario = load_scenario()
    assert scenario.name == "chat"
    assert scenario.deployment.model.name == "llama-3.1-8b"
    assert scenario.deployment.gpu.name == "h100-sxm"
    assert scenario.workload.num_requests is not None
    assert scenario.workload.num_requests >= 1000


def test_the_same_inputs_give_the_same_digest_and_others_another() -> None:
    digest = load_scenario().digest()
    assert digest == load_scenario().digest()
    assert digest != load_scenario(seed=1).digest()
    assert digest != load_scenario(settings=["max_num_seqs=64"]).digest()
    assert digest != load_scenario(slo="ttft:500").digest()


def test_every_resolved_engine_value_and_gpu_number_names_its_source() -> None:
    resolved = load_scenario(settings=["max_num_seqs=64"]).resolved()["deployment"]
    engine = resolved["engine"]["settings"]
    assert engine["max_num_seqs"] == {"value": 64, "source": "given: --set max_num_seqs=64"}
    assert all(entry["source"] for entry in engine.values())
    assert all(entry["source"] for entry in resolved["gpu"]["numbers"].values())
    assert all(term["kind"] for term in resolved["kv"]["terms"])
    assert resolved["model"]["source"]


def test_options_override_the_file(tmp_path: Path) -> None:
    path = scenario_file(tmp_path, "workload: chat\ndeployment: {model: qwen3-8b, gpu: h200}\n")
    scenario = load_scenario(
        path,
        model="llama-3.1-70b",
        tp=4,
        slo="e2el:9000",
        seed=7,
        settings=["workload.arrivals.rate_per_s=2.5", "num_requests=10"],
        start_date="2026-11-20",
    )
    assert scenario.deployment.model.name == "llama-3.1-70b"
    assert scenario.deployment.tp == 4
    assert scenario.seed == 7
    assert scenario.workload.arrivals is not None
    assert scenario.workload.arrivals.rate_per_s == 2.5
    assert scenario.workload.num_requests == 10
    assert str(scenario.slo) == "e2el:9000"
    assert scenario.start_date == "2026-11-20T00:00:00"


def test_a_section_may_stand_in_a_file_beside_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "rows.jsonl").write_text(TRACE_ROW)
    (tmp_path / "sub" / "w.yaml").write_text("trace: {file: rows.jsonl, format: timed-trace}\n")
    (tmp_path / "d.yaml").write_text("deployment: {model: qwen3-8b, gpu: a100}\n")
    path = scenario_file(tmp_path, "workload: sub/w.yaml\ndeployment: d.yaml\n")
    scenario = load_scenario(path)
    assert scenario.workload.trace is not None
    assert Path(scenario.workload.trace.file) == tmp_path / "sub" / "rows.jsonl"
    assert scenario.deployment.gpu.name == "a100-80gb-sxm"
    assert "sha256" in scenario.resolved()["workload"]["trace"]


def test_the_digest_follows_the_content_of_the_trace(tmp_path: Path) -> None:
    trace = tmp_path / "rows.jsonl"
    trace.write_text(TRACE_ROW)
    before = load_scenario(trace=trace)
    digest = before.digest()
    trace.write_text(TRACE_ROW * 2)
    assert before.name == "rows"
    assert before.digest() != digest


def test_a_trace_replaces_the_shipped_workload_and_its_objectives(tmp_path: Path) -> None:
    trace = tmp_path / "rows.jsonl"
    trace.write_text(TRACE_ROW)
    scenario = load_scenario(trace=trace, trace_format="timed_trace", gpu="h200")
    assert scenario.workload.arrivals is None
    assert scenario.workload.trace is not None
    assert scenario.workload.trace.format == "timed-trace"
    assert scenario.slo is None


def test_a_complaint_names_the_file_or_the_option_that_gave_the_value(tmp_path: Path) -> None:
    path = scenario_file(tmp_path, "workload: chat\ndeployment: {model: qwen3-8b, gpu: h21}\n")
    assert complaint(path=path).startswith(f"{path}: deployment.gpu: got h21")
    assert complaint(gpu="h21").startswith("--gpu: deployment.gpu: got h21")
    assert complaint(settings=["tp=-1"]).startswith("--set tp=-1: deployment.tp: got -1")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("max_nun_seqs=3", "did you mean deployment.max_num_seqs?"),
        ("min=3", "one of workload.output_tokens.min, workload.prompt_tokens.min"),
        ("tp", "key=value"),
        ("=3", "key=value"),
        ("tp=[", "line"),
        ("tp=*x", "no aliases"),
        ("deployment=3", "a mapping with keys among"),
        ("rate_per_s=1e999", "a finite number"),
        ("rate_per_s=nan", "a number above 0"),
    ],
)
def test_a_setting_that_cannot_be_read_is_refused(setting: str, expected: str) -> None:
    assert expected in complaint(settings=[setting])


def test_a_value_given_twice_on_the_command_line_is_refused() -> None:
    assert "one of --tp and --set tp=2" in complaint(tp=2, settings=["tp=2"])
    assert "a second value" in complaint(settings=["seed=1", "seed=2"])


@pytest.mark.parametrize("key", setting_keys())
def test_every_key_can_be_set_by_its_full_name(key: str) -> None:
    assert parse_setting(f"{key}=5")[:2] == (key, 5)
    assert parse_setting(f"{key.replace('_', '-')}=5").path == key


def test_a_null_setting_takes_the_value_back() -> None:
    assert load_scenario("long-prompt").deployment.engine.max_model_len == 40_000
    restored = load_scenario("long-prompt", settings=["max_model_len=null"])
    assert restored.deployment.engine.max_model_len == 131_072


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, "workload: got nothing"),
        ({"workload": "chat"}, "deployment: got nothing"),
        ({"workload": "chta", "deployment": {}}, "did you mean chat?"),
        ({"workloads": "chat"}, "did you mean workload?"),
        ({"seed": -1}, "an integer from 0"),
        ({"seed": 1.5}, "an integer from 0"),
        ({"name": 5}, "name: got 5"),
        ({"start_date": "tomorrow"}, "a date such as"),
        ({"slo": "ttft:-1"}, "slo: got ttft:-1"),
    ],
)
def test_a_wrong_mapping_is_refused(entry: dict[str, Any], expected: str) -> None:
    base = (
        {}
        if set(entry) & {"workload", "workloads"} or not entry
        else {
            "workload": "chat",
            "deployment": {"model": "qwen3-8b", "gpu": "h100"},
        }
    )
    with pytest.raises(InputError) as caught:
        scenario_from_dict(base | entry)
    assert expected in str(caught.value)


def test_missing_and_odd_files_are_refused() -> None:
    assert "did you mean chat?" in complaint(path="caht")
    assert "got a folder" in complaint(path="/")
    assert "no such file" in complaint(trace="nowhere.jsonl")
    assert "a trace to go with it" in complaint(trace_format="azure")


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=150)
@given(key=st.sampled_from(setting_keys()), value=JUNK)
def test_any_value_under_any_key_is_accepted_or_refused_in_one_line(
    key: str, value: object
) -> None:
    entry: dict[str, Any] = {
        "workload": {
            "arrivals": {"rate_per_s": 1},
            "prompt_tokens": {"median": 5, "p95": 9},
            "output_tokens": {"median": 5, "p95": 9},
            "num_requests": 5,
        },
        "deployment": {"model": "qwen3-8b", "gpu": "h100"},
    }
    inner = entry
    *path, last = key.split(".")
    for step in path:
        inner = inner.setdefault(step, {})
    inner[last] = value
    try:
        json.dumps(scenario_from_dict(entry).resolved(), allow_nan=False)
    except InputError as error:
        assert "\n" not in str(error)


def test_a_setting_may_have_the_name_that_vllm_gives_it() -> None:
    for key in ("tensor_parallel_size", "tensor-parallel-size", "deployment.tensor_parallel_size"):
        assert parse_setting(f"{key}=4")[:2] == ("deployment.tp", 4)
    assert parse_setting("num_gpu_blocks_override=9").path == "deployment.num_gpu_blocks"


def test_a_setting_of_vllm_that_is_not_modelled_is_refused_as_such() -> None:
    with pytest.raises(InputError, match="does not model this setting yet"):
        parse_setting("enforce_eager=true")
