"""The scenario on a page, saved and read again, is the one that was run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from simserve.inputs.scenario import Scenario, load_scenario
from simserve.report.page.reproduce import recipe, scenario_entry, scenario_text
from simserve.traffic.generate import generate

SCENARIOS: dict[str, dict[str, Any]] = {
    "shipped": {},
    "set": {
        "settings": [
            *("max_num_seqs=17", "num_gpu_blocks=9000", "workload.num_requests=9"),
            *("enable_prefix_caching=false", "replicas=2", "router=least-loaded"),
            "max_model_len=8k",
        ],
        "seed": 5,
        "slo": "ttft:500 tpot_p99.5:40.5",
    },
    "another model": {"model": "llama-3.1-70b", "gpu": "h200-sxm", "tp": 4},
    "fp8 cache": {"settings": ["kv_cache_dtype=fp8"]},
    **{
        f"{method} weights": {"settings": [f"quantization={method}"]}
        for method in ("fp8", "awq", "gptq", "nf4", "int8", "none")
    },
    "a checkpoint of 4 bits": {"model": "gpt-oss-20b"},
    "a checkpoint in fp8 blocks": {"model": "deepseek-v3", "gpu": "h200-sxm", "tp": 8},
    "far from what was measured": {"settings": ["allow_extrapolation=true"]},
    "a launch line": {
        "gpu": "h100-sxm",
        "serve_cmd": "vllm serve meta-llama/Llama-3.1-8B -tp 2 --quantization fp8 "
        "--kv-cache-dtype fp8 --no-enable-prefix-caching --max-num-seqs 9",
    },
    "clients that give up": {"settings": ["workload.timeout_s=9"]},
    "continuous": {
        "settings": ["scheduler=continuous", "max_model_len=4096", "max_num_batched_tokens=4096"]
    },
    "users": {"settings": ["workload.arrivals={process: closed-loop, users: 7}"]},
}


def _resolved(scenario: Scenario) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(scenario.resolved()))
    return found


@pytest.mark.parametrize("case", SCENARIOS, ids=str)
def test_a_scenario_written_down_is_the_same_scenario(case: str, tmp_path: Path) -> None:
    scenario = load_scenario(**SCENARIOS[case])
    found = recipe(_resolved(scenario))
    assert found.problem is None
    path = tmp_path / "scenario.yaml"
    path.write_text(found.text)
    again = load_scenario(path)
    assert again.seed == scenario.seed
    assert again.workload == scenario.workload
    assert again.deployment.engine == scenario.deployment.engine
    assert dataclasses.replace(again.deployment, sources={}) == dataclasses.replace(
        scenario.deployment, sources={}
    )
    assert (again.slo is None) == (scenario.slo is None)
    if again.slo and scenario.slo:
        assert again.slo.limits_ms() == scenario.slo.limits_ms()


def test_a_trace_is_found_again_by_its_name(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text(
        "".join(
            json.dumps({"timestamp": at, "input_length": 30, "output_length": 4}) + "\n"
            for at in range(5)
        )
    )
    scenario = load_scenario(trace=trace)
    resolved = _resolved(scenario)
    assert recipe(resolved).problem is None
    assert "sha256" not in recipe(resolved).text
    trace.write_text(trace.read_text() * 2)
    assert "workload.trace.sha256" in str(recipe(resolved).problem)
    trace.unlink()
    assert "cannot be read on this machine" in str(recipe(resolved).problem)


def test_what_differs_is_named() -> None:
    resolved = _resolved(load_scenario())
    resolved["deployment"]["gpu"]["numbers"]["memory_bytes"]["value"] = 1.0
    problem = str(recipe(resolved).problem)
    assert "deployment.gpu.numbers.memory_bytes.value" in problem


def test_nothing_that_follows_from_the_rest_is_written_down() -> None:
    entry = scenario_entry(_resolved(load_scenario()))
    assert "max_num_batched_tokens" not in entry["deployment"]
    assert "num_gpu_blocks" not in entry["deployment"]
    assert len(scenario_text(entry).splitlines()) < 25


def test_the_requests_are_the_same_ones(tmp_path: Path) -> None:
    scenario = load_scenario(settings=["workload.num_requests=50"], seed=9)
    path = tmp_path / "scenario.yaml"
    path.write_text(recipe(_resolved(scenario)).text)
    again = load_scenario(path)
    one, other = (generate(each.workload, each.seed) for each in (scenario, again))
    assert (one.arrival_ps == other.arrival_ps).all()
    assert (one.prompt_tokens == other.prompt_tokens).all()
