"""A deployment that is printed as a launch line and read again is the same deployment."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simserve.errors import InputError
from simserve.inputs.deployment import Deployment, DeploymentSpec, read_deployment
from simserve.inputs.launch_line import read_launch_line, to_serve_command
from simserve.inputs.launch_line.flag_table import vllm_table
from simserve.inputs.launch_line.write import remarks_on

# What a launch line does not say: hardware, simserve's own choices, and what vLLM measures.
NOT_IN_A_LINE = {"gpu", "scheduler", "engine", "latency", "router"} | {
    "allow_extrapolation",
    "activation_peak_bytes",
    "context_bytes",
    "cuda_graph_pool_bytes",
}
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "max_num_seqs": st.integers(1, 2048),
        "max_num_batched_tokens": st.integers(256, 40_000),
        "max_model_len": st.integers(256, 40_960),
        "block_size": st.sampled_from([16, 32, 128]),
        "enable_prefix_caching": st.booleans(),
        "enable_chunked_prefill": st.booleans(),
        "long_prefill_token_threshold": st.integers(0, 256),
        "long_prefill_token_threshold_adaptive": st.booleans(),
        "scheduling_policy": st.sampled_from(["fcfs", "priority"]),
        "scheduler_reserve_full_isl": st.booleans(),
        "watermark": st.floats(0, 0.9),
        "max_num_active_seqs": st.integers(1, 64),
        "async_scheduling": st.booleans(),
        "quantization": st.sampled_from(["fp8", "awq", "gptq_marlin"]),
        "kv_cache_dtype": st.sampled_from(["auto", "bfloat16", "fp8"]),
        "gpu_memory_utilization": st.floats(0.5, 1),
    },
)
POOL = st.one_of(
    st.just({}),
    st.builds(lambda n: {"num_gpu_blocks": n}, st.integers(2700, 4000)),
    st.builds(lambda n: {"kv_cache_memory_bytes": n}, st.integers(10**10, 2 * 10**10)),
)


def _deployment(**entry: Any) -> Deployment:
    return read_deployment({"model": "qwen3-8b", "gpu": "h100-sxm"} | entry)


def _read_again(line: str, gpu: str = "h100-sxm") -> Deployment:
    return read_deployment(read_launch_line(line).deployment | {"gpu": gpu})


@settings(max_examples=150)
@given(SETTINGS, POOL, st.sampled_from([1, 2, 4]), st.sampled_from([1, 3]))
def test_printed_line_reads_back_as_the_same_deployment(
    given_settings: dict[str, Any], pool: dict[str, Any], tp: int, replicas: int
) -> None:
    try:
        router = "least-loaded" if replicas > 1 else "round-robin"
        entry = given_settings | pool
        before = _deployment(tp=tp, replicas=replicas, router=router, **entry)
    except InputError:
        assume(False)
    after = _read_again(to_serve_command(before))
    assert (after.engine, after.tp, after.replicas, after.router, after.kv.num_blocks) == (
        before.engine,
        before.tp,
        before.replicas,
        before.router,
        before.kv.num_blocks,
    )
    assert after.model == before.model
    assert to_serve_command(after) == to_serve_command(before)


def test_only_what_differs_from_the_default_is_printed() -> None:
    assert to_serve_command(_deployment()) == "vllm serve Qwen/Qwen3-8B"
    defaults = {"max_num_seqs": 1024, "block_size": 16, "enable_prefix_caching": True}
    assert to_serve_command(_deployment(**defaults)) == "vllm serve Qwen/Qwen3-8B"
    smaller_class = _deployment(gpu="a100", max_num_seqs=1024)
    assert to_serve_command(smaller_class) == "vllm serve Qwen/Qwen3-8B --max-num-seqs 1024"


def test_scheduling_in_turn_is_printed() -> None:
    line = to_serve_command(_deployment(async_scheduling=False))
    assert line.endswith("--no-async-scheduling")


def test_servers_behind_a_load_balancer_are_printed_one_by_one() -> None:
    several = _deployment(replicas=4, router="round-robin")
    assert "data-parallel" not in to_serve_command(several)
    wanted = "one of 4 servers behind a round-robin load balancer, each on 1 × h100-sxm"
    assert remarks_on(several)[0] == wanted
    ranks = _deployment(replicas=4, router="least-loaded")
    assert to_serve_command(ranks).endswith("--data-parallel-size 4")
    assert remarks_on(ranks)[0] == "on 4 × h100-sxm"


def test_what_vllm_measures_itself_is_a_remark() -> None:
    deployment = _deployment(activation_peak_bytes="2GB")
    assert to_serve_command(deployment) == "vllm serve Qwen/Qwen3-8B"
    assert "activation_peak_bytes" in remarks_on(deployment)[-1]


def test_scheduler_that_vllm_has_not_is_refused() -> None:
    deployment = _deployment(scheduler="static", max_model_len=4096)
    with pytest.raises(InputError, match=r"deployment\.scheduler: got static"):
        to_serve_command(deployment)


def test_format_that_vllm_does_not_make_or_name_is_said() -> None:
    with pytest.raises(InputError, match=r"deployment\.quantization: got nf4, allowed: awq, fp8"):
        to_serve_command(_deployment(quantization="nf4"))
    assert "checkpoint in awq" in "".join(remarks_on(_deployment(quantization="awq")))
    assert "checkpoint" not in "".join(remarks_on(_deployment(quantization="fp8")))


def test_every_setting_has_a_flag_or_is_known_to_have_none() -> None:
    without = {key for key in DeploymentSpec.model_fields if not vllm_table().for_setting(key)}
    assert without == NOT_IN_A_LINE


def test_printed_line_is_safe_to_paste_into_a_shell() -> None:
    line = to_serve_command(_deployment(max_num_seqs=8))
    assert shlex.join(shlex.split(line)) == line
