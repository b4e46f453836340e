"""What every model of the catalogue weighs, against published counts and hand arithmetic."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simserve.inputs.model_catalogue import list_models, load_model
from simserve.inputs.quantization import FORMATS

GIB = 2**30

# What the sparse indexer of DeepSeek-V3.2 adds to V3: query, key, weights, the key's norm.
INDEXER = 61 * (64 * 128 * 1536 + 128 * 7168 + 64 * 7168 + 2 * 128)
# name: parameters as commonly published for the checkpoint (general knowledge; text part,
# without multi-token prediction), KV bytes per token in 16 bits
# (2 × layers × KV heads × head size × 2; latent: layers × 576 × 2).
PUBLISHED = {
    "opt-13b": (12_853_473_280, 819_200),
    "llama-2-7b": (6_738_415_616, 524_288),
    "llama-2-13b": (13_015_864_320, 819_200),
    "llama-2-70b": (68_976_648_192, 327_680),
    "llama-3-8b": (8_030_261_248, 131_072),
    "llama-3-70b": (70_553_706_496, 327_680),
    "bloom-176b": (176_247_271_424, 4_014_080),
    "llama-3.1-8b": (8_030_261_248, 131_072),
    "llama-3.1-70b": (70_553_706_496, 327_680),
    "llama-3.1-405b": (405_853_388_800, 516_096),
    "llama-4-scout-17b-16e": (107_769_861_120, 196_608),
    "llama-4-maverick-17b-128e": (400_711_848_960, 196_608),
    "mistral-7b-v0.1": (7_241_732_096, 131_072),
    "mistral-nemo-12b": (12_247_782_400, 163_840),
    "mixtral-8x7b": (46_702_792_704, 131_072),
    "mixtral-8x22b": (140_620_634_112, 229_376),
    "qwen2.5-7b": (7_615_616_512, 57_344),
    "qwen2.5-32b": (32_763_876_352, 262_144),
    "qwen2.5-72b": (72_706_203_648, 327_680),
    "qwen3-8b": (8_190_735_360, 147_456),
    "qwen3-14b": (14_768_307_200, 163_840),
    "qwen3-32b": (32_762_123_264, 262_144),
    "qwen3-30b-a3b": (30_532_122_624, 98_304),
    "qwen3-235b-a22b": (235_093_634_560, 192_512),
    "deepseek-v3": (671_026_419_200, 70_272),
    "deepseek-v3.2": (671_026_419_200 + INDEXER, 70_272),
    "kimi-k2": (1_026_408_232_448, 70_272),
    "glm-5": (744_000_000_000, 89_856),
    "gemma-2-9b": (9_241_705_984, 344_064),
    "gemma-2-27b": (27_227_128_320, 376_832),
    "gemma-3-12b": (11_765_788_416, 393_216),
    "gemma-3-27b": (27_009_002_240, 507_904),
    "gemma-4-26b-a4b": (25_200_000_000, 225_280),
    "phi-4": (14_659_507_200, 204_800),
    "granite-3.3-8b": (8_170_864_640, 163_840),
    "gpt-oss-20b": (20_914_757_184, 49_152),
    "gpt-oss-120b": (116_829_156_672, 73_728),
    "minimax-m2.5": (228_700_000_000, 253_952),
}
# Published to four digits only, or with vectors that simserve does not count (routing biases).
ROUNDED = {
    "deepseek-v3": 1e-7,
    "kimi-k2": 1e-7,
    "deepseek-v3.2": 1e-7,
    "glm-5": 1e-3,
    "gemma-4-26b-a4b": 5e-3,
    "minimax-m2.5": 1e-3,
}


def test_every_model_of_the_catalogue_is_in_the_table() -> None:
    assert set(PUBLISHED) == set(list_models())


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_parameters_and_kv_bytes_are_the_published_ones(name: str) -> None:
    model = load_model(name)
    parameters, kv_bytes = PUBLISHED[name]
    assert model.parameters == pytest.approx(parameters, rel=ROUNDED.get(name, 0), abs=0)
    assert model.kv_bytes_per_token() == kv_bytes


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_weights_are_two_bytes_a_parameter_unless_the_checkpoint_is_quantised(name: str) -> None:
    model = load_model(name)
    padding = -model.vocab_size % 64 * model.hidden_size * (1 if model.tied_embeddings else 2)
    whole = 2 * (model.parameters + padding)
    if model.weights is None:
        assert model.weight_bytes() == whole
    else:
        assert whole / 4 < model.weight_bytes() < whole / 1.9


@pytest.mark.parametrize(("name", "gib"), [("gpt-oss-20b", 12.8), ("gpt-oss-120b", 60.8)])
def test_mxfp4_experts_weigh_what_the_model_card_says(name: str, gib: float) -> None:
    # Checkpoint sizes of the gpt-oss model card (arXiv:2508.10925, table 1).
    assert load_model(name).weight_bytes() / GIB == pytest.approx(gib, abs=0.05)


def test_sharing_kv_heads_saves_what_the_heads_differ() -> None:
    model = load_model("llama-3-70b")
    every_head = replace(model, kv_heads=model.attention_heads)
    assert model.kv_bytes_per_token() == 327_680
    assert every_head.kv_bytes_per_token() == 2_621_440
    assert replace(model, kv_heads=1).kv_bytes_per_token() == 327_680 // 8


def test_latent_attention_keeps_one_latent_per_layer_on_every_gpu() -> None:
    model = load_model("deepseek-v3")
    assert model.kv_bytes_per_token() == 61 * (512 + 64) * 2
    assert model.kv_bytes_per_token(8) == model.kv_bytes_per_token(1)
    eight = replace(load_model("deepseek-v3.2"), kv_bytes_per_value=1.0)
    assert eight.kv_bytes_per_token() == 61 * 656  # vLLM's fp8_ds_mla: 512 + 4 × 4 + 64 × 2
    assert eight.index_bytes_per_token == 61 * 132  # 128 values in fp8 and one scale


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_layers_with_a_window_keep_the_window_at_most(name: str) -> None:
    model = load_model(name)
    assert model.kv_bytes(1) == model.cache_bytes_per_token()
    short, long = 64, model.max_position_embeddings
    assert model.kv_bytes(short) == short * model.cache_bytes_per_token()
    assert model.kv_bytes(long) <= long * model.cache_bytes_per_token()
    windows = [group for group in model.attention_groups if group.window is not None]
    saved = sum(
        (long - (group.window or 0)) * model.group_bytes_per_token(group) for group in windows
    )
    assert model.kv_bytes(long) == long * model.cache_bytes_per_token() - saved


def test_gemma_3_saves_five_layers_in_six() -> None:
    model = load_model("gemma-3-27b")
    # 62 layers: 10 full, 52 of 1024 tokens; 2 × 16 × 128 × 2 = 8192 bytes a layer and token.
    assert model.kv_bytes(131_072) == 10 * 131_072 * 8192 + 52 * 1024 * 8192


def test_kv_of_every_kind_of_layer_is_cut_on_its_own() -> None:
    model = load_model("gemma-4-26b-a4b")
    # 25 layers of 8 × 256, 5 of 2 × 512 that 8 GPUs replicate four times.
    assert model.kv_bytes_per_token(8) == 2 * 2 * (25 * 256 + 5 * 512)


def test_a_token_of_a_mixture_is_computed_by_the_experts_it_is_sent_to() -> None:
    # The names state the active parameters: 3B of 30B, 22B of 235B, 37B of 671B.
    for name, active in (("qwen3-30b-a3b", 3.3e9), ("qwen3-235b-a22b", 22e9)):
        assert load_model(name).active_parameters == pytest.approx(active, rel=0.03)
    assert load_model("deepseek-v3").active_parameters == pytest.approx(37e9, rel=0.02)


@pytest.mark.parametrize(
    ("method", "bytes_per_weight"),
    [
        ("fp8", 1 + 4 / 4096),
        ("fp8-block", 1 + 4 / 128**2),
        ("int8", 1 + 4 / 4096),
        ("awq", 0.5 + 2.5 / 128),
        ("gptq", 0.5 + 2.5 / 128),
        ("nf4", 0.5 + 4 / 64),
        ("mxfp4", 0.5 + 1 / 32),
    ],
)
def test_a_format_stores_its_bits_and_its_scales(method: str, bytes_per_weight: float) -> None:
    stored = FORMATS[method].matrix_bytes(14_336, 4096)
    assert stored == pytest.approx(14_336 * 4096 * bytes_per_weight, rel=1e-12)


@pytest.mark.parametrize("method", ["fp8", "int8", "awq", "gptq", "nf4"])
def test_embeddings_head_and_norms_stay_in_sixteen_bits(method: str) -> None:
    plain = load_model("llama-3.1-8b")
    layers = 32 * (4096 * (4096 + 2 * 1024) + 4096 * 4096 + 3 * 4096 * 14_336)
    stored = replace(plain, weights=FORMATS[method]).weight_bytes()
    rest = 2 * (plain.parameters - layers)
    assert rest + layers * FORMATS[method].bits / 8 < stored
    assert stored < rest + layers * (FORMATS[method].bits / 8 + 0.0626)


def test_a_bias_and_a_second_matrix_are_counted() -> None:
    qwen = load_model("qwen2.5-7b")
    assert qwen.parameters - replace(qwen, attention_bias="none").parameters == 28 * (
        3584 + 2 * 512
    )
    opt = load_model("opt-13b")
    gated = replace(opt, ffn_matrices=3, ffn_bias=False)
    assert gated.parameters - replace(opt, ffn_bias=False).parameters == 40 * 5120 * 20_480
