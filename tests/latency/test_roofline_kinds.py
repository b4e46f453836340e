"""The roofline beyond dense full attention: experts, latents, windows, quantised weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.errors import InputError
from simserve.inputs.hardware_profile import GpuSpec, load_gpu
from simserve.inputs.model_catalogue import list_models, load_model
from simserve.inputs.model_shape import Experts
from simserve.inputs.model_spec import ModelSpec
from simserve.inputs.quantization import FORMATS
from simserve.latency.model import UNLIMITED_CONTEXT
from simserve.latency.roofline import RooflineModel
from simserve.latency.roofline_gemm import experts_touched
from simserve.records.clock import PS_PER_S
from simserve.records.step import PrefillChunk, StepShape

H100, H200, A100 = load_gpu("h100-sxm"), load_gpu("h200-sxm"), load_gpu("a100-80gb-sxm")
WINDOWED = ("gpt-oss-20b", "gemma-3-27b", "mistral-7b-v0.1", "deepseek-v3.2", "gemma-4-26b-a4b")


def bare(gpu: GpuSpec) -> GpuSpec:
    """Return ``gpu`` without overheads, every kernel at the datasheet's rate."""
    values = {name: 0.0 if name.endswith("_s") else 1.0 for name in gpu.efficiency}
    efficiency = {name: replace(one, value=values[name]) for name, one in gpu.efficiency.items()}
    return replace(gpu, efficiency=efficiency)


def priced(model: ModelSpec, gpu: GpuSpec = H100) -> RooflineModel:
    return RooflineModel(model, bare(gpu), 1)


@given(st.sampled_from(WINDOWED), st.integers(1, 600), st.integers(0, 10**6), st.integers(0, 10**5))
def test_decode_steps_lie_on_their_line_on_both_sides_of_a_window(
    name: str, seqs: int, context: int, more: int
) -> None:
    latency = RooflineModel(load_model(name), H100, 1)
    context += seqs
    line = latency.decode_line(seqs, context)
    assert line.context_start <= context <= line.context_limit
    for one in (context, min(context + more, line.context_limit)):
        on_line = line.base_ps + line.per_context_ps * one
        assert on_line == pytest.approx(
            latency.step_s(StepShape(seqs, one)) * PS_PER_S, abs=1 + 0.5 * one
        )


@pytest.mark.parametrize("name", WINDOWED)
def test_lines_of_one_batch_cover_every_context_once(name: str) -> None:
    latency = RooflineModel(load_model(name), H100, 1)
    line, starts = latency.decode_line(8, 1), []
    while line.context_limit < UNLIMITED_CONTEXT:
        starts.append(line.context_start)
        following = latency.decode_line(8, line.context_limit + 1)
        assert following.context_start == line.context_limit + 1
        assert following.per_context_ps < line.per_context_ps
        line = following
    assert len(starts) >= 1


@given(
    st.sampled_from(list_models()),
    st.integers(1, 5000),
    st.integers(0, 60_000),
    st.integers(1, 3000),
    st.booleans(),
)
def test_more_work_never_takes_less_time_for_any_model(
    name: str, new: int, past: int, more: int, longer_past: bool
) -> None:
    latency = priced(load_model(name))
    less = StepShape(4, 4000, (PrefillChunk(new, past),))
    chunk = PrefillChunk(new, past + more) if longer_past else PrefillChunk(new + more, past)
    assert latency.step_s(StepShape(4, 4000, (chunk,))) >= latency.step_s(less)
    assert latency.step_s(StepShape(4, 4000 + more)) >= latency.step_s(StepShape(4, 4000))


@pytest.mark.parametrize("name", list_models())
def test_one_token_reads_the_active_weights_once(name: str) -> None:
    model = load_model(name)
    read = float(model.weight_bytes())
    embeddings = model.vocab_size * model.hidden_size * model.weight_bytes_per_value
    read -= 0 if model.tied_embeddings else embeddings
    if model.experts:
        idle = 1 - model.experts.per_token / model.experts.count
        experts = model.experts.layers * model.experts.count * model.ffn_matrices
        values = experts * model.hidden_size * model.experts.ffn_size
        weights, width = model.weights, model.weight_bytes_per_value
        if weights:
            width = weights.matrix_bytes(1 << 12, 1 << 12) / (1 << 24)
        read -= idle * values * width
    expected_s = read / H100.hbm_bytes_per_s
    # Learned positions, norms and what the first token attends to are the difference.
    assert priced(model).step_s(StepShape(1, 1)) == pytest.approx(expected_s, rel=0.02)


def test_a_window_never_costs_more_than_the_whole_context() -> None:
    model = load_model("gemma-3-27b")
    whole = replace(model, groups=())
    for shape in (
        StepShape(16, 16 * 500),
        StepShape(16, 16 * 50_000),
        StepShape(0, 0, (PrefillChunk(4096, 0),)),
        StepShape(0, 0, (PrefillChunk(2048, 60_000),)),
    ):
        assert priced(model).step_s(shape) <= priced(whole).step_s(shape)
    within = StepShape(16, 16 * 1024)
    assert priced(model).step_s(within) == pytest.approx(priced(whole).step_s(within))


def test_a_window_caps_the_context_that_is_read() -> None:
    latency = priced(load_model("mistral-7b-v0.1"))
    assert latency.step_s(StepShape(4, 4 * 4096)) == latency.step_s(StepShape(4, 4 * 30_000))


def test_chunks_of_a_windowed_prompt_do_its_attention_exactly_once() -> None:
    cost = priced(load_model("gemma-3-27b"))._costs[0]._replace(kv_read_s=0.0, query_s=0.0)
    whole = cost.chunk_s(8192, 0)
    parts = [cost.chunk_s(1000, past) for past in range(0, 8000, 1000)] + [cost.chunk_s(192, 8000)]
    assert sum(parts) == pytest.approx(whole, rel=1e-12)
    pairs = 1024 * 1025 / 2 + (8192 - 1024) * 1024
    assert whole == pytest.approx(pairs * cost.pair_s, rel=1e-12)


# --- experts ---


@given(st.integers(1, 400), st.integers(1, 16), st.integers(0, 5000))
def test_touched_experts_grow_with_the_tokens_up_to_all(
    count: int, per_token: int, tokens: int
) -> None:
    experts = Experts(count=count, per_token=min(per_token, count), ffn_size=1, layers=1)
    here, there = experts_touched(experts, tokens), experts_touched(experts, tokens + 1)
    assert here <= there * (1 + 1e-12)
    assert here <= count * (1 + 1e-12)
    if tokens:
        assert here >= experts.per_token
    uniform = count * (1 - (1 - experts.per_token / count) ** tokens)
    assert here <= max(uniform, experts.per_token) * (1 + 1e-12)


def test_trained_routers_touch_fewer_experts_mid_range() -> None:
    experts = Experts(count=128, per_token=8, ffn_size=1, layers=1)
    tokens = 11  # uniform routing touches half of them: 1 - (15/16)^11 = 0.508
    uniform = 128 * (1 - (1 - 8 / 128) ** tokens)
    assert experts_touched(experts, tokens) == pytest.approx(0.87 * uniform, rel=1e-3)
    assert experts_touched(experts, 1) == 8
    assert experts_touched(experts, 10_000) == pytest.approx(128)


def test_a_long_prefill_of_a_mixture_costs_the_flops_of_its_active_experts() -> None:
    model, tokens = load_model("mixtral-8x7b"), 100_000
    active = model.active_parameters - 2 * model.vocab_size * model.hidden_size
    seconds = priced(model)._seconds_by_tokens[tokens]
    # The router's eight outputs cost more in activations than in flops: 0.3 %.
    assert seconds == pytest.approx(2 * active * tokens / 989e12, rel=0.004)


# --- latent attention ---


def test_context_of_a_latent_costs_its_bytes_or_its_absorbed_flops() -> None:
    model = load_model("deepseek-v3")
    flops = 2 * 61 * 128 * (2 * 512 + 64)
    for gpu in (H100, H200):
        seconds = priced(model, gpu).step_s(StepShape(8, 80_000))
        seconds -= priced(model, gpu).step_s(StepShape(8, 8))
        least = max(flops / 989e12, 70_272 / gpu.hbm_bytes_per_s)
        assert seconds == pytest.approx(79_992 * least)


def test_prefill_of_a_latent_expands_the_past_and_attends_per_head() -> None:
    latency = priced(load_model("deepseek-v3"))
    new, past = 4096, 16_384
    seconds = latency.step_s(StepShape(0, 0, (PrefillChunk(new, past),)))
    seconds -= latency._seconds_by_tokens[new] + latency._seconds_by_seqs[1]
    pairs = new * past + new * (new + 1) / 2
    flops = 61 * 128 * (2 * (192 + 128) * pairs + 2 * 512 * 256 * past)
    assert seconds == pytest.approx(flops / 989e12)


def test_sparse_attention_reads_its_top_tokens_and_the_whole_index() -> None:
    latency = priced(load_model("deepseek-v3.2"))
    line = latency.decode_line(4, 4 * 100_000)
    assert line.context_start == 4 * 2048 + 1
    indexer_s = max(61 * 132 / 3.35e12, 2 * 61 * 64 * 128 / 989e12)
    assert line.per_context_ps == pytest.approx(indexer_s * PS_PER_S, abs=1)


# --- stored formats ---


@pytest.mark.parametrize(
    ("method", "gpu", "rate"),
    [
        ("fp8", H100, 1979e12),
        ("fp8", A100, 312e12),  # no fp8 tensor cores: weight-only, at the 16-bit rate
        ("int8", A100, 624e12),
        ("awq", H100, 989e12),
        ("gptq", H100, 989e12),
        ("nf4", A100, 312e12),
    ],
)
def test_gemms_run_at_the_rate_of_their_format_where_there_is_one(
    method: str, gpu: GpuSpec, rate: float
) -> None:
    model = replace(load_model("llama-3.1-8b"), weights=FORMATS[method])
    matrices = 32 * (4096 * (4096 + 2 * 1024) + 4096 * 4096 + 3 * 4096 * 14_336)
    seconds = priced(model, gpu)._seconds_by_tokens[100_000]
    assert seconds == pytest.approx(2 * matrices * 100_000 / rate, rel=1e-6)


def test_a_small_step_of_four_bit_weights_takes_a_quarter() -> None:
    plain = load_model("llama-3.1-70b")
    four_bits = replace(plain, weights=FORMATS["awq"])
    shape = StepShape(1, 1)
    ratio = priced(four_bits).step_s(shape) / priced(plain).step_s(shape)
    assert 0.25 < ratio < 0.28


def test_eight_bit_kv_halves_what_a_context_costs() -> None:
    plain = load_model("llama-3.1-8b")
    eight = replace(plain, kv_bytes_per_value=1.0)

    def context_s(model: ModelSpec) -> float:
        latency = priced(model)
        return latency.step_s(StepShape(64, 640_000)) - latency.step_s(StepShape(64, 64))

    assert context_s(eight) == pytest.approx(context_s(plain) / 2)


# --- parts that cannot be priced ---


def test_a_part_without_a_stated_precision_is_refused() -> None:
    with pytest.raises(InputError, match="ibm-spyre: flops: got rates for unstated"):
        RooflineModel(load_model("llama-3.1-8b"), load_gpu("ibm-spyre"), 1)


def test_a_part_without_a_link_stands_alone() -> None:
    model = load_model("llama-3.1-8b")
    assert RooflineModel(model, load_gpu("m4-max"), 1).step_s(StepShape(1, 1)) > 0
    with pytest.raises(InputError, match="apple-m4-max: tp: got 2, allowed: 1"):
        RooflineModel(model, load_gpu("m4-max"), 2)


@pytest.mark.parametrize("name", ["v100", "gaudi3", "tpu7x", "mi300x", "trainium2"])
def test_other_vendors_parts_are_priced_by_the_same_formulas(name: str) -> None:
    gpu = load_gpu(name)
    weights = 2 * (8_030_261_248 - 128_256 * 4096)
    assert priced(load_model("llama-3.1-8b"), gpu).step_s(StepShape(1, 1)) == pytest.approx(
        weights / gpu.hbm_bytes_per_s, rel=0.01
    )
