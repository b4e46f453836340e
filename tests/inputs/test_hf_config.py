"""Any ``config.json``: ten shapes that no file of simserve has, recomputed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from simserve.errors import InputError
from simserve.inputs.hf_config import read_config
from simserve.inputs.model_catalogue import load_model
from simserve.inputs.model_spec import ModelSpec

DENSE: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_size": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 768,
    "vocab_size": 1024,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "rope_theta": 10_000.0,
}
EMBEDDINGS = 2 * 1024 * 256
NORMS = 256 * (2 * 4 + 1)
ATTENTION = 4 * (256 * (256 + 2 * 2 * 32) + 256 * 256)
FFN = 4 * 3 * 256 * 768
MOE: dict[str, Any] = DENSE | {
    "model_type": "qwen3_moe",
    "head_dim": 64,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 128,
}
MOE_ATTENTION = 4 * (256 * (512 + 2 * 2 * 64) + 512 * 256 + 2 * 64)
EXPERTS = 4 * (16 * 256 + 16 * 3 * 256 * 128)
LATENT: dict[str, Any] = DENSE | {
    "model_type": "deepseek_v3",
    "num_key_value_heads": 8,
    "kv_lora_rank": 96,
    "q_lora_rank": 128,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 40,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 2,
    "moe_intermediate_size": 64,
    "first_k_dense_replace": 1,
}
LATENT_LAYER = 256 * (128 + 96 + 16) + 128 * 8 * 48 + 96 * 8 * (32 + 40) + 8 * 40 * 256 + 128 + 96
BLOCK_FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}


def read(**changes: Any) -> ModelSpec:
    return read_config(DENSE | changes, "config.json", "model")


# (config, parameters, KV bytes per token in 16 bits, cache bytes of one sequence of 1,000 tokens)
UNSEEN = {
    "grouped-query": (DENSE, EMBEDDINGS + NORMS + ATTENTION + FFN, 4 * 2 * 2 * 32 * 2, None),
    "multi-query, tied": (
        DENSE | {"num_key_value_heads": 1, "tie_word_embeddings": True, "model_type": "gemma"},
        EMBEDDINGS // 2 + NORMS + 4 * (256 * (256 + 2 * 32) + 256 * 256) + FFN,
        4 * 2 * 32 * 2,
        None,
    ),
    "multi-head, biased queries": (
        DENSE | {"num_key_value_heads": None, "model_type": "qwen2"},
        EMBEDDINGS + NORMS + 4 * (4 * 256 * 256 + 3 * 256) + FFN,
        4 * 2 * 256 * 2,
        None,
    ),
    "window on all layers": (
        DENSE | {"model_type": "mistral", "sliding_window": 128},
        EMBEDDINGS + NORMS + ATTENTION + FFN,
        4 * 2 * 2 * 32 * 2,
        128 * 4 * 2 * 2 * 32 * 2,
    ),
    "alternating windows, four norms": (
        DENSE | {"model_type": "gemma2", "sliding_window": 100, "head_dim": 64},
        EMBEDDINGS + 256 * (4 * 4 + 1) + 4 * (256 * (512 + 256) + 512 * 256) + FFN,
        4 * 2 * 2 * 64 * 2,
        (1000 + 100) * 2 * 2 * 2 * 64 * 2,
    ),
    "experts": (MOE, EMBEDDINGS + NORMS + MOE_ATTENTION + EXPERTS, 4 * 2 * 2 * 64 * 2, None),
    "experts in every second layer, a shared one in each": (
        DENSE
        | {
            "model_type": "llama4_text",
            "num_local_experts": 8,
            "num_experts_per_tok": 1,
            "interleave_moe_layer_step": 2,
            "intermediate_size_mlp": 1024,
            "attention_chunk_size": 256,
        },
        EMBEDDINGS + NORMS + ATTENTION + 2 * 3 * 256 * 1024 + 2 * (8 * 256 + 9 * 3 * 256 * 768),
        4 * 2 * 2 * 32 * 2,
        (1 * 1000 + 3 * 256) * 2 * 2 * 32 * 2,
    ),
    "latent, first layer dense": (
        LATENT,
        EMBEDDINGS + NORMS + 4 * LATENT_LAYER + 3 * 256 * 768 + 3 * (8 * 256 + 10 * 3 * 256 * 64),
        4 * (96 + 16) * 2,
        None,
    ),
    "nested text part, patterned windows": (
        {
            "model_type": "gemma3",
            "vision_config": {"hidden_size": 9},
            "tie_word_embeddings": True,
            "text_config": {
                key: value for key, value in DENSE.items() if key != "tie_word_embeddings"
            }
            | {"model_type": "gemma3_text", "sliding_window": 50, "sliding_window_pattern": 4},
        },
        EMBEDDINGS // 2 + 256 * (4 * 4 + 1) + 4 * 2 * 32 + ATTENTION + FFN,
        4 * 2 * 2 * 32 * 2,
        (1000 + 3 * 50) * 2 * 2 * 32 * 2,
    ),
    "two matrices, learned positions, biases": (
        {
            "model_type": "opt",
            "num_hidden_layers": 4,
            "hidden_size": 256,
            "num_attention_heads": 8,
            "ffn_dim": 1024,
            "vocab_size": 1024,
            "max_position_embeddings": 2048,
        },
        1024 * 256
        + 2050 * 256
        + 4 * (4 * 256 * 256 + 4 * 256 + 2 * 256 * 1024 + 1024 + 256 + 4 * 256)
        + 2 * 256,
        4 * 2 * 256 * 2,
        None,
    ),
}


@pytest.mark.parametrize("case", sorted(UNSEEN))
def test_an_unseen_shape_weighs_what_it_does_by_hand(case: str) -> None:
    config, parameters, kv_bytes, sequence_bytes = UNSEEN[case]
    model = read_config(config, "config.json", "unseen")
    assert model.parameters == parameters
    assert model.weight_bytes() == 2 * parameters  # 1024 entries need no padding
    assert model.kv_bytes_per_token() == kv_bytes
    assert model.kv_bytes(1000) == (sequence_bytes or 1000 * kv_bytes)


def test_ten_shapes_are_recomputed() -> None:
    assert len(UNSEEN) == 10


def test_native_blocks_of_fp8_are_counted_with_their_scales() -> None:
    model = read(quantization_config=BLOCK_FP8)
    matrices = {(384, 256): 4, (256, 256): 4, (1536, 256): 4, (256, 768): 4}
    scales = sum(n * -(-rows // 128) * -(-cols // 128) for (rows, cols), n in matrices.items())
    values = sum(n * rows * cols for (rows, cols), n in matrices.items())
    assert model.weight_bytes() == values + 4 * scales + 2 * (EMBEDDINGS + NORMS)


@pytest.mark.parametrize(
    ("quantization", "bits", "group"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 64}, 4, 64),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1, "desc_act": True}, 8, 0),
        ({"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}, 4, 32),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 4, 64),
        (
            {
                "quant_method": "compressed-tensors",
                "ignore": ["lm_head"],
                "config_groups": {
                    "group_0": {
                        "weights": {"num_bits": 8, "type": "int", "strategy": "channel"},
                        "input_activations": {"num_bits": 8},
                    }
                },
            },
            8,
            0,
        ),
    ],
)
def test_a_quantised_checkpoint_is_recognised(
    quantization: dict[str, Any], bits: int, group: int
) -> None:
    weights = read(quantization_config=quantization).weights
    assert weights is not None
    assert (weights.bits, weights.group_size) == (bits, group)


COMPRESSED_FP8 = {
    "quant_method": "compressed-tensors",
    "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}},
}


@pytest.mark.parametrize(
    ("scheme", "expected"), [(None, 2), ({"num_bits": 8, "type": "float", "strategy": "tensor"}, 1)]
)
def test_a_checkpoint_with_a_scheme_for_its_kv_has_half_of_it(
    scheme: dict[str, Any] | None, expected: int
) -> None:
    model = read(quantization_config=COMPRESSED_FP8 | {"kv_cache_scheme": scheme})
    assert model.kv_bytes_per_token() == read().kv_bytes_per_token() * expected // 2


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"quantization_config": COMPRESSED_FP8 | {"kv_cache_scheme": {"num_bits": 4}}},
            "kv_cache_scheme: got (None, 4), allowed: type float of num_bits 8",
        ),
        ({"ssm_state_size": 128}, "ssm_state_size: got 128, allowed: a field whose effect"),
        ({"layer_types": ["linear_attention"] * 4}, "layer_types: got linear_attention"),
        ({"layer_types": ["full_attention"] * 3}, "one entry for each of num_hidden_layers (4)"),
        ({"sliding_window": 64}, "sliding_window: got 64, allowed: null, or"),
        ({"num_key_value_heads": 3}, "a divisor of num_attention_heads (8)"),
        ({"num_attention_heads": 7, "num_key_value_heads": 7}, "a multiple of num_attention_heads"),
        ({"hidden_size": None}, "hidden_size: got nothing"),
        ({"hidden_size": "256"}, "hidden_size: got the text '256', allowed: an integer of at"),
        ({"hidden_size": 256.0}, "hidden_size: got 256.0"),
        ({"vocab_size": 0}, "vocab_size: got 0"),
        ({"vocab_size": -5}, "vocab_size: got -5"),
        ({"num_hidden_layers": True}, "num_hidden_layers: got True"),
        ({"num_experts": 8}, "num_experts_per_tok: got nothing"),
        ({"num_experts": 8, "num_experts_per_tok": 9}, "num_experts_per_tok: got 9"),
        ({"num_experts": 8, "num_local_experts": 4}, "num_experts: got 8, allowed: the same as"),
        ({"v_head_dim": 64}, "kv_lora_rank: got nothing, allowed: a rank, since v_head_dim"),
        ({"index_topk": 64}, "index_topk: got 64, allowed: nothing"),
        ({"torch_dtype": "int4"}, "torch_dtype: got int4"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings: got no, allowed: true or false"),
        ({"num_kv_shared_layers": 2}, "num_kv_shared_layers: got 2"),
        ({"first_k_dense_replace": 9}, "first_k_dense_replace: got 9, allowed: at most 4"),
        ({"quantization_config": {"quant_method": "modelopt"}}, "quant_method: got modelopt"),
        ({"quantization_config": {"quant_method": "awq", "bits": 3}}, "bits: got 3, allowed: 4"),
        ({"quantization_config": 8}, "quantization_config: got 8"),
        (
            {"quantization_config": BLOCK_FP8 | {"modules_to_not_convert": ["model.mlp"]}},
            "modules_to_not_convert: got model.mlp",
        ),
    ],
)
def test_a_field_that_is_unknown_or_contradicts_is_refused_in_one_line(
    changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(InputError) as caught:
        read(**changes)
    assert expected in str(caught.value)
    assert str(caught.value).startswith("config.json: ")
    assert "\n" not in str(caught.value)


def test_windows_that_are_switched_off_count_as_full() -> None:
    model = read(model_type="qwen2", sliding_window=64, use_sliding_window=False)
    assert not model.has_windows
    late = read(model_type="qwen2", sliding_window=64, use_sliding_window=True, max_window_layers=3)
    assert [(group.layers, group.window) for group in late.groups] == [(1, 64), (3, None)]


def test_a_model_type_that_is_not_known_is_labelled_assumed() -> None:
    model = read(model_type="brand_new")
    assert model.kind == "assumed"
    assert "brand_new is not known" in model.source
    assert model.parameters == read().parameters


def test_a_folder_or_a_file_is_a_model(tmp_path: Path) -> None:
    folder = tmp_path / "Mine-8B"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(DENSE), encoding="utf-8")
    by_folder, by_file = load_model(str(folder)), load_model(str(folder / "config.json"))
    assert by_folder == by_file
    assert by_folder.name == "Mine-8B"
    assert by_folder.parameters == read().parameters


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "allowed: a JSON object"),
        ("[]", "got list, allowed: a JSON object"),
        ('{"hidden_size": 1, "hidden_size": 2}', "the key hidden_size twice"),
        (None, "allowed: a config.json that can be read (No such file or directory)"),
    ],
)
def test_a_file_that_is_no_config_is_refused(
    tmp_path: Path, text: str | None, expected: str
) -> None:
    path = tmp_path / "model.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_model(str(path))
    assert expected in str(caught.value)
