"""A launch line stands in for the deployment of a scenario, and says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from simserve.errors import InputError
from simserve.inputs.scenario import load_scenario

LINE = "vllm serve Qwen/Qwen3-8B -tp 2 --max-model-len 16k --port 80"


def test_values_say_whether_line_version_or_gpu_decided_them() -> None:
    scenario = load_scenario(serve_cmd=LINE, gpu="h100-sxm")
    deployment = scenario.deployment
    assert (deployment.tp, deployment.engine.max_model_len) == (2, 16_000)
    assert deployment.sources["max_model_len"] == "given: launch line: --max-model-len 16k"
    assert deployment.sources["block_size"] == "default of vllm 0.33.0"
    assert deployment.sources["max_num_seqs"] == "default of vllm 0.33.0 for h100-sxm"
    assert scenario.resolved()["launch_line"] == {
        "engine": "vllm",
        "notes": ["no effect on the simulation: --port"],
    }


@pytest.mark.parametrize(("gpu", "seqs", "tokens"), [("h100-sxm", 1024, 8192), ("a100", 256, 2048)])
def test_batch_limits_depend_on_the_gpu_named_beside_the_line(
    gpu: str, seqs: int, tokens: int
) -> None:
    engine = load_scenario(serve_cmd=LINE, gpu=gpu).deployment.engine
    assert (engine.max_num_seqs, engine.max_num_batched_tokens) == (seqs, tokens)


def test_options_and_settings_override_the_line() -> None:
    scenario = load_scenario(
        serve_cmd=LINE, gpu="h100-sxm", tp=4, settings=["max_model_len=8192", "replicas=2"]
    )
    assert (scenario.deployment.tp, scenario.deployment.replicas) == (4, 2)
    assert scenario.deployment.engine.max_model_len == 8192


def test_scenario_file_keeps_its_gpu_and_workload_but_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "workload: {arrivals: {process: constant, rate_per_s: 1}, prompt_tokens: 9, "
        "output_tokens: 9, num_requests: 7}\n"
        "deployment: {model: llama-3.1-8b, gpu: h200-sxm, max_num_seqs: 3}\n"
    )
    scenario = load_scenario(file, serve_cmd=LINE)
    assert scenario.deployment.gpu.name == "h200-sxm"
    assert scenario.deployment.model.name == "qwen3-8b"
    assert scenario.deployment.engine.max_num_seqs == 1024
    assert scenario.workload.num_requests == 7


def test_line_of_sglang_resolves_and_says_whose_schedule_it_is() -> None:
    scenario = load_scenario(
        serve_cmd="python -m sglang.launch_server --model-path Qwen/Qwen3-8B --tp 2 "
        "--mem-fraction-static 0.85 --max-running-requests 64",
        gpu="h100-sxm",
    )
    assert scenario.deployment.engine.max_num_seqs == 64
    said = scenario.resolved()["launch_line"]
    assert said["engine"] == "sglang"
    assert "the schedule is that of vLLM" in said["notes"][0]


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({}, "--serve-cmd: deployment.gpu: got nothing, allowed: --gpu NAME"),
        ({"gpu": "h100-sxm", "gpus": 1}, "--gpus 1: got 1 GPU, allowed: at least 2 GPUs"),
        ({"gpu": "h100-sxm", "gpus": 2, "tp": 4}, "--gpus 2: got 2 GPUs, allowed: at least 4 GPUs"),
        ({"gpu": "h100-sxm", "deployment": "x.yaml"}, "--serve-cmd: got a second deployment"),
        ({"gpu": "h100-sxm", "settings": ["tp=1", "tp=2"]}, "a second value"),
    ],
)
def test_line_with_wrong_company_is_refused(options: dict[str, object], pattern: str) -> None:
    with pytest.raises(InputError, match=pattern):
        load_scenario(serve_cmd=LINE, **options)  # type: ignore[arg-type]


def test_value_that_only_the_deployment_can_refuse_names_the_flag() -> None:
    with pytest.raises(InputError, match=r"launch line: -tp 3: deployment\.tp: got 3, allowed: 1"):
        load_scenario(serve_cmd="vllm serve Qwen/Qwen3-8B -tp 3", gpu="h100-sxm")
    with pytest.raises(InputError, match="a path or a variable: name the model by --model"):
        load_scenario(serve_cmd="vllm serve /models/foo", gpu="h100-sxm")
    scenario = load_scenario(serve_cmd="vllm serve /models/foo", gpu="h100", model="qwen3-8b")
    assert scenario.deployment.model.name == "qwen3-8b"


def test_scenario_without_a_line_says_nothing_of_one() -> None:
    assert "launch_line" not in load_scenario().resolved()
