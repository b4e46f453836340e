"""A deployment resolves to numbers by vLLM's rules; contradictions and misfits are refused."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from simserve.errors import DoesNotFitError, InputError
from simserve.inputs.deployment import Deployment, read_deployment
from simserve.inputs.engine_resolution import EngineSettings
from simserve.policy.limits import SchedulerLimits

GIB = 2**30
_AWQ = {"quantization": "awq"}


def deployment(**keys: Any) -> Deployment:
    return read_deployment({"model": "llama-3.1-8b", "gpu": "h100-sxm"} | keys)


def complaint(**keys: Any) -> str:
    with pytest.raises(InputError) as caught:
        deployment(**keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_engine_settings_are_the_scheduler_limits_and_the_memory_fraction() -> None:
    names = {one.name for one in fields(EngineSettings)}
    assert names == {one.name for one in fields(SchedulerLimits)} | {"gpu_memory_utilization"}


def test_defaults_are_those_of_a_vllm_server_on_an_h100() -> None:
    engine = deployment().engine
    assert engine.max_num_seqs == 1024
    assert engine.max_num_batched_tokens == 8192
    assert engine.max_model_len == 131_072
    assert engine.block_size == 16
    assert engine.gpu_memory_utilization == 0.92
    assert engine.enable_chunked_prefill and engine.enable_prefix_caching
    assert engine.scheduling_policy == "fcfs"


def test_every_setting_says_where_it_came_from() -> None:
    resolved = deployment(max_num_seqs=64)
    assert set(resolved.sources) == {one.name for one in fields(EngineSettings)}
    assert resolved.sources["max_num_seqs"].startswith("given")
    assert "vllm 0.33.0" in resolved.sources["max_num_batched_tokens"]
    assert resolved.engine.async_scheduling
    assert "vllm 0.33.0" in resolved.sources["async_scheduling"]


@pytest.mark.parametrize("scheduler", ["continuous", "static", "my.module:MyScheduler"])
def test_only_the_engine_s_own_scheduler_plans_ahead_unasked(scheduler: str) -> None:
    resolved = deployment(scheduler=scheduler)
    assert not resolved.engine.async_scheduling
    assert scheduler in resolved.sources["async_scheduling"]


@given(
    gpu=st.sampled_from(["h100", "h200", "a100"]),
    fraction=st.floats(0.5, 1.0),
    seqs=st.integers(1, 1024),
    block_size=st.sampled_from([8, 16, 32, 64]),
    tp=st.sampled_from([1, 2, 4, 8]),
)
def test_memory_terms_sum_to_the_memory_of_the_gpu(
    gpu: str, fraction: float, seqs: int, block_size: int, tp: int
) -> None:
    resolved = deployment(
        gpu=gpu,
        gpu_memory_utilization=fraction,
        max_num_seqs=seqs,
        block_size=block_size,
        tp=tp,
        max_model_len=4096,
    )
    kv = resolved.kv
    assert sum(term.bytes for term in kv.terms) == resolved.gpu.memory_bytes
    assert all(term.bytes >= 0 for term in kv.terms)
    assert kv.num_blocks == resolved.engine.num_blocks == kv.usable_blocks + 1
    assert kv.block_bytes == block_size * resolved.model.kv_bytes_per_token(tp)


@given(st.floats(0.3, 0.99), st.floats(0.3, 0.99))
def test_a_larger_memory_fraction_never_gives_fewer_blocks(one: float, other: float) -> None:
    assume(one <= other)
    less, more = (
        deployment(gpu_memory_utilization=fraction, max_model_len=1024).kv.num_blocks
        for fraction in (one, other)
    )
    assert less <= more


def test_a_given_block_count_is_kept_and_counts_the_null_block() -> None:
    resolved = deployment(num_gpu_blocks=1001, max_model_len=16_000)
    assert resolved.engine.num_blocks == 1001
    assert resolved.kv.usable_tokens == 16_000
    message = complaint(num_gpu_blocks=1000, max_model_len=16_000)
    assert "num_gpu_blocks: got 1000, allowed: at least 1001" in message


def test_reserves_can_be_given() -> None:
    less = deployment(cuda_graph_pool_bytes="1GiB").kv.num_blocks
    assert deployment(cuda_graph_pool_bytes=0).kv.num_blocks - less == GIB // (16 * 131_072)


def test_a_model_that_does_not_fit_says_by_how_much_and_what_would() -> None:
    with pytest.raises(DoesNotFitError) as caught:
        deployment(model="llama-3.1-70b")
    assert "141.1 GB" in str(caught.value)
    assert "GB less per GPU" in str(caught.value)
    assert "take tp 4" in str(caught.value) or "take tp 2" in str(caught.value)


def test_the_way_out_that_is_named_does_fit() -> None:
    message = complaint(model="llama-3.1-70b")
    tp = int(message.partition("take tp ")[2].split()[0])
    assert deployment(model="llama-3.1-70b", tp=tp, max_model_len=16).tp == tp


def test_a_context_that_does_not_fit_says_the_longest_that_does() -> None:
    message = complaint(gpu="rtx-4090")
    assert "max_model_len: got 131072 (max_position_embeddings of llama-3.1-8b)" in message
    assert "GB are missing" in message
    longest = int(message.partition("at most ")[2].split()[0])
    assert deployment(gpu="rtx-4090", max_model_len=longest).engine.max_model_len == longest
    assert f"at most {longest} " in complaint(gpu="rtx-4090", max_model_len=longest + 1)


def test_batched_tokens_follow_the_rules_for_defaults() -> None:
    assert deployment(max_model_len=100, max_num_seqs=4).engine.max_num_batched_tokens == 400
    whole = deployment(enable_chunked_prefill=False, max_model_len=20_000).engine
    assert whole.max_num_batched_tokens == 20_000
    assert deployment(max_num_batched_tokens=512).engine.max_num_seqs == 512


@pytest.mark.parametrize("scheduler", ["continuous", "static"])
def test_schedulers_of_whole_prompts_switch_chunking_off(scheduler: str) -> None:
    resolved = deployment(scheduler=scheduler, max_model_len=8192)
    assert not resolved.engine.enable_chunked_prefill
    assert scheduler in resolved.sources["enable_chunked_prefill"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            {"max_num_batched_tokens": 100, "max_num_seqs": 101},
            "max_num_batched_tokens: got 100, allowed: at least max_num_seqs (101)",
        ),
        (
            {"max_num_batched_tokens": 2048, "enable_chunked_prefill": False},
            "at least max_model_len (131072)",
        ),
        (
            {"scheduler": "static", "enable_chunked_prefill": True},
            "enable_chunked_prefill: got True",
        ),
        ({"num_gpu_blocks": 10**9}, "GB are missing"),
        (
            {"kv_cache_memory_bytes": "200GB"},
            "kv_cache_memory_bytes: got 200000000000, allowed: at most",
        ),
        ({"kv_cache_memory_bytes": "1GB"}, "kv_cache_memory_bytes"),
        ({"kv_cache_memory_bytes": "1GB", "num_gpu_blocks": 9}, "either num_gpu_blocks or"),
        ({"max_model_len": "200k"}, "max_model_len: got 200000, allowed: at most 131072"),
        (
            {"long_prefill_token_threshold": 500, "max_model_len": 400},
            "long_prefill_token_threshold",
        ),
        (
            {"scheduler": "static", "async_scheduling": True},
            "async_scheduling: got True, allowed: false with scheduler static",
        ),
        (
            {"scheduler": "continuous", "prefill_schedule_interval": 2},
            "prefill_schedule_interval: got 2",
        ),
        ({"tp": 3}, "1, 2, 4, 8"),
        ({"tp": 0}, "tp: got 0"),
        ({"tp": "two"}, "tp: got two"),
        ({"tp": True}, "tp: got True"),
        ({"tp": 1.0}, "tp: got 1.0"),
        ({"replicas": 10**9}, "replicas"),
        ({"model": 5}, "model: got 5"),
        ({"model": None}, "model: got nothing"),
        ({"gpu": "h1000"}, "did you mean h100-sxm?"),
        ({"router": "rond-robin"}, "did you mean round-robin?"),
        ({"scheduler": "nonsense"}, "package.module:Class"),
        ({"scheduling_policy": "lifo"}, "fcfs, priority"),
        ({"engine": "sglang"}, "vllm"),
        ({"gpu_memory_utilization": 1.5}, "a fraction from 0.01 to 1"),
        ({"gpu_memory_utilization": float("nan")}, "a fraction"),
        ({"watermark": -0.1}, "a fraction from 0"),
        ({"enable_prefix_caching": "yes"}, "true or false"),
        ({"max_num_sqs": 5}, "max_num_seqs, the nearest"),
        ({"max-num-seqs": 5}, "max_num_seqs, the nearest"),
        ({"tensor_parallel_size": 2}, "allowed: tp"),
        ({"kv_cache_dtype": "fp7"}, "did you mean fp8?"),
        ({"quantization": "awk"}, "did you mean awq?"),
        ({"quantization": "mxfp4"}, "covers experts, llama-3.1-8b has none"),
        ({"model": "deepseek-v3", "tp": 8, "gpu": "h200", "quantization": "awq"}, "fp8-block, or"),
        ({"dtype": "float32"}, "does not model"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(keys: dict[str, Any], expected: str) -> None:
    assert expected in complaint(**keys)


def test_eight_bit_kv_values_double_the_blocks() -> None:
    plain, eight = deployment().kv, deployment(kv_cache_dtype="fp8_e4m3").kv
    assert 2 * eight.block_bytes == plain.block_bytes
    assert eight.num_blocks // 2 == plain.num_blocks
    assert deployment(kv_cache_dtype="auto").kv == plain


def test_quantised_weights_leave_their_bytes_to_the_kv_pool() -> None:
    plain, fp8, awq = (deployment(**keys) for keys in ({}, {"quantization": "fp8"}, _AWQ))
    for one in (fp8, awq):
        saved = plain.model.weight_bytes() - one.model.weight_bytes()
        more = (one.kv.num_blocks - plain.kv.num_blocks) * plain.kv.block_bytes
        assert abs(saved - more) < plain.kv.block_bytes
    assert awq.model.weight_bytes() < fp8.model.weight_bytes() < plain.model.weight_bytes()


def test_the_format_that_a_checkpoint_is_in_may_be_named() -> None:
    keys: dict[str, Any] = {"model": "deepseek-v3", "gpu": "h200", "tp": 8}
    assert deployment(**keys, quantization="fp8") == deployment(**keys)


def test_a_scheduler_may_be_a_class_path() -> None:
    assert deployment(scheduler="my_pkg.sched:Mine").scheduler == "my_pkg.sched:Mine"


@pytest.mark.parametrize("model", ["llama-3.1-8b", "deepseek-v3"])
def test_quantization_none_leaves_the_weights_as_the_checkpoint_has_them(model: str) -> None:
    keys: dict[str, Any] = {"model": model, "gpu": "h200-sxm", "tp": 8}
    as_stored = deployment(**keys)
    assert deployment(**keys, quantization="none") == as_stored
    assert deployment(**keys, quantization=" None") == as_stored
    assert deployment(**keys, quantization="fp8").model.weights is not None


@pytest.mark.parametrize(
    ("gpu", "tp", "joined"),
    [("h100-sxm", 16, 8), ("h100-nvl", 4, 2), ("l4", 16, 8), ("apple-m2-ultra", 2, 1)],
)
def test_tensor_parallelism_stays_among_the_gpus_that_a_link_joins(
    gpu: str, tp: int, joined: int
) -> None:
    keys = {"model": "llama-3.1-8b", "gpu": gpu, "max_model_len": 4096}
    said = complaint(**keys | {"tp": tp, "model": "llama-3.1-405b"})
    assert said.startswith(f"deployment: deployment.tp: got {tp}, allowed: ")
    assert f"up to {joined}: " in said or joined == 1
    if joined > 1:
        assert deployment(**keys | {"tp": joined}).tp == joined


def test_a_rack_joins_more_gpus_than_a_board() -> None:
    assert deployment(model="llama-3.1-405b", gpu="gb200-nvl72", tp=16).tp == 16


def test_the_way_out_of_too_little_memory_is_no_network() -> None:
    assert "take larger GPUs" in complaint(model="llama-3.1-405b", tp=8)


@pytest.mark.parametrize(
    ("gpu", "weights", "refused"),
    [
        ("v100-sxm2-32gb", "fp8", True),
        ("v100-sxm2-32gb", "awq", True),
        ("v100-sxm2-32gb", "gptq", False),
        ("t4", "fp8", False),
        ("a100-80gb-sxm", "fp8", False),
        ("mi300x", "fp8", False),
    ],
)
def test_weights_that_a_gpu_has_no_kernels_for_are_refused(
    gpu: str, weights: str, refused: bool
) -> None:
    keys = {"gpu": gpu, "quantization": weights, "max_model_len": 4096, "max_num_seqs": 8}
    if refused:
        assert "(compute capability 7.0), allowed: a GPU of at least 7.5" in complaint(**keys)
    else:
        assert deployment(**keys).gpu.name == gpu
