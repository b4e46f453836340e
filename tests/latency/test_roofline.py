"""The roofline model: its laws, its bounds, and a figure that can be checked by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.errors import InputError
from simserve.inputs.hardware_profile import GpuSpec, load_gpu
from simserve.inputs.model_catalogue import load_model
from simserve.inputs.model_spec import ModelSpec
from simserve.inputs.sourced import Sourced
from simserve.latency.model import UNLIMITED_CONTEXT, LinearDecodeModel
from simserve.latency.roofline import RooflineModel
from simserve.records.clock import PS_PER_S
from simserve.records.step import PrefillChunk, StepShape

LLAMA_8B, LLAMA_70B = load_model("llama-3.1-8b"), load_model("llama-3.1-70b")
H100 = load_gpu("h100-sxm")
DEPLOYMENTS = [(LLAMA_8B, 1), (LLAMA_8B, 2), (LLAMA_70B, 4), (LLAMA_70B, 16)]

chunks = st.builds(PrefillChunk, st.integers(1, 9000), st.integers(0, 120_000))
shapes = st.builds(
    lambda seqs, per_seq, prefill: StepShape(seqs, seqs * per_seq, tuple(prefill)),
    st.integers(1, 500),
    st.integers(1, 50_000),
    st.lists(chunks, max_size=3),
)
deployments = st.sampled_from(DEPLOYMENTS)

DURATIONS = ("kernel_launch_s", "host_step_s", "host_per_seq_s", "collective_latency_s")


def with_efficiency(gpu: GpuSpec, **values: float) -> GpuSpec:
    changed = {
        name: replace(sourced, value=values.get(name, sourced.value))
        for name, sourced in gpu.efficiency.items()
    }
    return replace(gpu, efficiency=changed)


def without_overheads(gpu: GpuSpec) -> GpuSpec:
    return with_efficiency(gpu, **dict.fromkeys(DURATIONS, 0.0))


def datasheet(gpu: GpuSpec) -> GpuSpec:
    everything = dict.fromkeys(gpu.efficiency, 1.0) | dict.fromkeys(DURATIONS, 0.0)
    return with_efficiency(gpu, **everything)


def step_s(model: ModelSpec, gpu: GpuSpec, tp: int, shape: StepShape) -> float:
    return RooflineModel(model, gpu, tp).step_s(shape)


# --- laws ---


@settings(max_examples=100)
@given(deployments, shapes)
def test_doubling_every_rate_and_halving_every_overhead_halves_every_duration(
    deployment: tuple[ModelSpec, int], shape: StepShape
) -> None:
    model, tp = deployment
    halved = {name: H100.efficiency[name].value / 2 for name in DURATIONS}
    twice = replace(
        with_efficiency(H100, **halved),
        hbm_bytes_per_s=2 * H100.hbm_bytes_per_s,
        link_bytes_per_s=2 * H100.link_bytes_per_s,
        flops_per_s={dtype: 2 * rate for dtype, rate in H100.flops_per_s.items()},
    )
    assert step_s(model, twice, tp, shape) == pytest.approx(
        step_s(model, H100, tp, shape) / 2, rel=1e-12
    )


@settings(max_examples=200)
@given(deployments, shapes, st.integers(1, 5000), st.integers(0, 3))
def test_more_work_never_takes_less_time(
    deployment: tuple[ModelSpec, int], shape: StepShape, more: int, kind: int
) -> None:
    seqs, context_tokens, prefill, _ = shape
    chunk = prefill[0] if prefill else PrefillChunk(1, 0)
    rest = prefill[1:]
    less = StepShape(seqs, context_tokens, (chunk, *rest))
    larger = [
        StepShape(seqs, context_tokens + more, (chunk, *rest)),
        StepShape(seqs, context_tokens, (chunk._replace(new_tokens=chunk[0] + more), *rest)),
        StepShape(seqs, context_tokens, (chunk._replace(past_tokens=chunk[1] + more), *rest)),
        StepShape(seqs + more, context_tokens + more, (chunk, *rest)),
    ][kind]
    latency = RooflineModel(deployment[0], H100, deployment[1])
    assert latency.step_s(larger) >= latency.step_s(less)


@settings(max_examples=100)
@given(deployments, shapes)
def test_step_is_never_shorter_than_the_datasheet_allows(
    deployment: tuple[ModelSpec, int], shape: StepShape
) -> None:
    model, tp = deployment
    embedding = model.vocab_size * model.hidden_size
    matrices = model.parameters - embedding * (1 if model.tied_embeddings else 2)
    norms = (2 * model.layers + 1) * model.hidden_size
    flops = 2 * (matrices - norms) * shape.tokens + 2 * embedding * shape.seqs
    pairs = shape.decode_context_tokens + sum(
        new * past + new * (new + 1) // 2 for new, past in shape.prefill
    )
    flops += 4 * model.layers * model.attention_heads * model.head_size * pairs
    read_bytes = (matrices - norms + embedding) * model.weight_bytes_per_value
    read_bytes += shape.context_tokens * model.kv_bytes_per_token(1)
    least_s = max(flops / tp / H100.flops_per_s["bf16"], read_bytes / tp / H100.hbm_bytes_per_s)
    assert least_s <= step_s(model, datasheet(H100), tp, shape) * (1 + 1e-12)
    assert least_s <= step_s(model, H100, tp, shape)


@settings(max_examples=100)
@given(deployments, st.integers(1, 1024), st.integers(1, 100_000))
def test_decode_line_equals_the_step_to_within_rounding(
    deployment: tuple[ModelSpec, int], seqs: int, per_seq: int
) -> None:
    latency = RooflineModel(deployment[0], H100, deployment[1])
    context = seqs * per_seq
    line = latency.decode_line(seqs, context)
    line_ps = line.base_ps + line.per_context_ps * context
    exact_ps = latency.step_s(StepShape(seqs, context)) * PS_PER_S
    assert line_ps == pytest.approx(exact_ps, abs=0.5 * (1 + context) + 1e-9 * exact_ps)
    assert line_ps == pytest.approx(exact_ps, rel=1e-4)
    assert line.context_limit == UNLIMITED_CONTEXT


def test_decode_line_is_the_same_whatever_was_asked_before() -> None:
    fresh, used = (RooflineModel(LLAMA_8B, H100, 1) for _ in range(2))
    for seqs in (1, 64, 8, 64):
        used.decode_line(seqs, 10 * seqs)
    assert used.decode_line(64, 1) == fresh.decode_line(64, 10**6)


def test_two_chunks_cost_the_weights_once() -> None:
    latency = RooflineModel(LLAMA_8B, without_overheads(H100), 1)
    one = latency.step_s(StepShape(0, 0, (PrefillChunk(8, 0),)))
    both = latency.step_s(StepShape(0, 0, (PrefillChunk(8, 0), PrefillChunk(8, 0))))
    assert both == pytest.approx(one, rel=0.01)


def test_chunks_of_a_prompt_do_its_attention_exactly_once() -> None:
    def attention_s(*prefill: PrefillChunk) -> float:
        """Return what a halved attention efficiency adds: its compute time, and nothing else."""
        slow, fast = (with_efficiency(H100, attention_prefill_efficiency=e) for e in (0.1, 0.2))
        shape = StepShape(0, 0, prefill)
        return step_s(LLAMA_8B, slow, 1, shape) - step_s(LLAMA_8B, fast, 1, shape)

    whole = attention_s(PrefillChunk(8192, 0))
    parts = [attention_s(PrefillChunk(2048, past)) for past in range(0, 8192, 2048)]
    assert sum(parts) == pytest.approx(whole, rel=1e-9)
    assert parts == sorted(parts)


# --- figures ---


def test_one_decode_of_llama_8b_on_h100_reads_the_weights_once() -> None:
    latency = RooflineModel(LLAMA_8B, without_overheads(H100), 1)
    weights = LLAMA_8B.weight_bytes(1) - LLAMA_8B.vocab_size * LLAMA_8B.hidden_size * 2
    expected_s = weights / (3.35e12 * 0.80)  # 5.6 ms: 15 GB, the embedding table is not read
    assert latency.step_s(StepShape(1, 1)) == pytest.approx(expected_s, rel=0.002)
    assert expected_s == pytest.approx(5.6e-3, rel=0.01)


def test_context_of_a_decode_costs_its_bytes() -> None:
    latency = RooflineModel(LLAMA_8B, H100, 1)
    more_s = latency.step_s(StepShape(64, 131_072)) - latency.step_s(StepShape(64, 64))
    assert more_s == pytest.approx((131_072 - 64) * 131_072 / (3.35e12 * 0.80), rel=1e-9)


def test_long_prefill_costs_its_flops() -> None:
    gpu = with_efficiency(datasheet(H100), gemm_efficiency=0.5, attention_prefill_efficiency=0.25)
    tokens = 8192
    matrices = 32 * (4096 * (4096 + 2 * 1024) + 4096 * 4096 + 3 * 4096 * 14336)
    gemm_s = 2 * matrices * tokens / (989e12 * 0.5)
    attention_s = 4 * 32 * 4096 * tokens * (tokens + 1) / 2 / (989e12 * 0.25)
    head_s = 128_256 * 4096 * 2 / 3.35e12
    assert step_s(LLAMA_8B, gpu, 1, StepShape(0, 0, (PrefillChunk(tokens, 0),))) == pytest.approx(
        gemm_s + attention_s + head_s, rel=1e-3
    )


def test_host_and_launch_time_are_added_to_the_kernels() -> None:
    shape = StepShape(10, 1000, (PrefillChunk(100, 0),))
    overhead_s = step_s(LLAMA_8B, H100, 1, shape) - step_s(
        LLAMA_8B, without_overheads(H100), 1, shape
    )
    value = {name: H100.efficiency[name].value for name in DURATIONS}
    expected_s = 32 * value["kernel_launch_s"] + value["host_step_s"]
    assert overhead_s == pytest.approx(expected_s + 11 * value["host_per_seq_s"])


def test_one_gpu_pays_for_no_collective() -> None:
    slow_link = replace(H100, link_bytes_per_s=1.0)
    shape = StepShape(10, 1000)
    assert step_s(LLAMA_8B, slow_link, 1, shape) == step_s(LLAMA_8B, H100, 1, shape)
    assert step_s(LLAMA_8B, slow_link, 2, shape) > 1000 * step_s(LLAMA_8B, H100, 2, shape)


def test_collectives_are_two_per_layer_one_embedding_and_the_logits() -> None:
    shape = StepShape(100, 100)
    no_link = step_s(LLAMA_70B, replace(H100, link_bytes_per_s=math.inf), 4, shape)
    link_s = step_s(LLAMA_70B, H100, 4, shape) - no_link
    ring_bytes = 161 * 2 * 3 / 4 * 100 * 8192 * 2
    logit_bytes = 3 / 4 * 100 * 128_256 * 2
    rate = H100.link_bytes_per_s * H100.efficiency["link_efficiency"].value
    assert link_s == pytest.approx((ring_bytes + logit_bytes) / rate, rel=1e-6)


def test_kv_heads_fewer_than_gpus_are_replicated() -> None:
    def context_s(tp: int) -> float:
        latency = RooflineModel(LLAMA_70B, without_overheads(H100), tp)
        return latency.step_s(StepShape(8, 80_000)) - latency.step_s(StepShape(8, 8))

    assert context_s(8) == pytest.approx(context_s(1) / 8)
    assert context_s(16) == pytest.approx(context_s(8))  # 8 KV heads: one each is the least


def test_fp8_weights_halve_the_weight_time_and_use_the_fp8_rate() -> None:
    fp8 = replace(LLAMA_8B, weight_bytes_per_value=1.0)
    gpu = without_overheads(H100)
    assert step_s(fp8, gpu, 1, StepShape(1, 1)) == pytest.approx(
        step_s(LLAMA_8B, gpu, 1, StepShape(1, 1)) / 2, rel=0.01
    )
    fast = RooflineModel(fp8, gpu, 1)._seconds_by_tokens[8192]
    slow = RooflineModel(LLAMA_8B, gpu, 1)._seconds_by_tokens[8192]
    assert fast == pytest.approx(slow * 989 / 1979, rel=1e-6)


def test_gpu_without_a_rate_for_the_model_is_refused() -> None:
    with pytest.raises(InputError, match="h100-sxm: flops: got rates for int8"):
        RooflineModel(LLAMA_8B, replace(H100, flops_per_s={"int8": 1e15}), 1)


def test_model_is_one_whose_decodes_lie_on_lines() -> None:
    assert isinstance(RooflineModel(LLAMA_8B, H100, 1), LinearDecodeModel)


def test_efficiency_of_one_reaches_the_datasheet() -> None:
    assert {type(sourced) for sourced in datasheet(H100).efficiency.values()} == {Sourced}
    assert step_s(LLAMA_8B, datasheet(H100), 1, StepShape(1, 1)) == pytest.approx(
        15.0e9 / 3.35e12, rel=0.01
    )
