"""What the modelling code of a ``model_type`` fixes and its ``config.json`` does not say.

Biases, norms and the kind of FFN stand in transformers' classes (modeling_*.py, 5.x), not in
the configuration. A ``model_type`` that is not here is read as a Llama, and labelled assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The traits of one ``model_type``.

    ``tied`` is the class default of ``tie_word_embeddings``, None if there is none to trust.
    ``full_every``: without ``layer_types``, every so many-th layer sees the whole context;
    1 is all of them, 0 none. ``shared_experts`` are there without a field that says so.
    """

    attention_bias: str = "none"
    ffn_bias: bool = False
    ffn_matrices: int = 3
    qk_norm: bool = False
    norms_per_layer: int = 2
    norm_bias: bool = False
    embedding_norm: bool = False
    learned_positions: int = 0
    sinks: bool = False
    expert_bias: bool = False
    shared_experts: int = 0
    tied: bool | None = False
    full_every: int = 1
    beside_dense: bool = False


_LLAMA = Family()
# OPT keeps two positions before the first (modeling_opt.py, OPTLearnedPositionalEmbedding).
_OPT_POSITION_OFFSET = 2
_OPT = Family(
    attention_bias="all",
    ffn_bias=True,
    ffn_matrices=2,
    norm_bias=True,
    tied=True,
    learned_positions=_OPT_POSITION_OFFSET,
)

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "llama": _LLAMA,
        "mistral": Family(full_every=0),
        "mixtral": Family(full_every=0),
        "ministral": Family(full_every=0),
        "phi3": Family(full_every=0),
        "granite": _LLAMA,
        "qwen2": Family(attention_bias="qkv"),
        "qwen3": Family(qk_norm=True),
        "qwen3_moe": Family(qk_norm=True),
        "qwen3_vl_text": Family(qk_norm=True),
        "qwen3_vl_moe_text": Family(qk_norm=True),
        "gemma": Family(tied=True),
        "gemma2": Family(norms_per_layer=4, tied=True, full_every=2),
        "gemma3_text": Family(norms_per_layer=4, qk_norm=True, tied=True, full_every=6),
        # Beside the experts stand their own three norms; the router's scales are in extra.
        "gemma4_text": Family(
            norms_per_layer=7, qk_norm=True, tied=True, full_every=6, beside_dense=True
        ),
        "llama4_text": Family(shared_experts=1, full_every=4),
        "gpt_oss": Family(attention_bias="all", sinks=True, expert_bias=True, full_every=2),
        "minimax_m2": _LLAMA,
        "deepseek_v2": _LLAMA,
        "deepseek_v3": _LLAMA,
        "deepseek_v32": _LLAMA,
        "kimi_k2": _LLAMA,
        "glm_moe_dsa": _LLAMA,
        "opt": _OPT,
        "bloom": replace(_OPT, learned_positions=0, embedding_norm=True),
    }
)
UNKNOWN_FAMILY = Family(tied=None, full_every=0)

# Fields that change neither bytes nor work: names, tokens, rotary angles, training.
_IGNORED = """
_name_or_path architectures auto_map transformers_version model_type torch_dtype dtype
hidden_act hidden_activation activation_function swiglu_limit final_logit_softcapping
attn_logit_softcapping query_pre_attn_scalar attention_softmax_in_fp32 rope_theta rope_scaling
rope_parameters rope_interleave rope_local_base_freq rotary_dim partial_rotary_factor
original_max_position_embeddings initial_context_length rope_type max_sequence_length
n_positions rms_norm_eps layer_norm_eps layer_norm_epsilon layer_norm_elementwise_affine
qk_layernorm initializer_range initializer_factor init_std use_cache pretraining_tp
slow_but_exact attention_dropout hidden_dropout dropout layerdrop embd_pdrop resid_pdrop
gradient_checkpointing offset_alibi masked_softmax_fusion unk_token_id bias_dropout_fusion
apply_residual_connection_post_layernorm skip_bias_add skip_bias_add_qkv output_router_logits
router_aux_loss_coef router_jitter_noise aux_loss_alpha seq_aux norm_topk_prob n_group
topk_group topk_method scoring_func scale_router_logits routed_scaling_factor ep_size
norm_after_topk attention_multiplier embedding_multiplier residual_multiplier logits_scaling
floor_scale attn_scale attn_temperature_tuning attn_temperature use_bidirectional_attention
vocab_size_per_layer_input indexer_rope_interleave qk_head_dim num_nextn_predict_layers use_mtp
num_mtp_modules mtp_transformer_layers router_dtype cache_implementation is_encoder_decoder
return_dict problem_type prefix cross_attention_hidden_size chunk_size_feed_forward id2label
label2id task_specific_params output_attentions output_hidden_states torchscript use_bfloat16
image_token_index mm_tokens_per_image vision_start_token_id vision_end_token_id qk_norm_type
use_routing_bias eoa_token_index text_config vision_config audio_config projector_hidden_act
vision_soft_tokens_per_image multimodal_projector_bias quantization_config compression_config
tie_word_embeddings use_mrope mrope_section
"""
IGNORED_FIELDS = frozenset(_IGNORED.split())
IGNORED_ENDINGS = ("_token_id", "_token_index", "_token_ids")
