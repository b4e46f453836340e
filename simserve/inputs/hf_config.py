"""Reads a model's shape from a Hugging Face ``config.json``, its own or one nested in it.

Every field is read, known to change neither bytes nor work, or refused by name: a field that
simserve does not know may stand for a kind of layer that it cannot price.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simserve.errors import InputError
from simserve.inputs.hf_attention import read_groups, read_indexer, read_mla
from simserve.inputs.hf_families import (
    FAMILIES,
    IGNORED_ENDINGS,
    IGNORED_FIELDS,
    UNKNOWN_FAMILY,
    Family,
)
from simserve.inputs.hf_fields import Fields
from simserve.inputs.hf_quantization import read_format, read_kv_bytes
from simserve.inputs.model_shape import Experts
from simserve.inputs.model_spec import ModelSpec

CONFIG_FILE = "config.json"
# Where modelopt checkpoints keep what others keep in quantization_config.
_OTHER_QUANTISATION = "hf_quant_config.json"
_MOST_BYTES = 2 * 2**20
# Layers and heads are gone through one by one; the largest published models have 126 and 128.
_MOST_LISTED = 1 << 14
# What vLLM loads these checkpoints as: 16 bits (dtype auto turns float32 into float16).
_DTYPES = ("bfloat16", "float16", "float32")
# BLOOM's config states no FFN size: it is this many times the hidden size (modeling_bloom.py).
_BLOOM_FFN_FACTOR = 4


def is_config_path(name: str) -> bool:
    """Return whether ``name`` is a ``.json`` file or a folder with a ``config.json``."""
    try:
        return name.endswith(".json") or (Path(name) / CONFIG_FILE).is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def load_config(name: str, where: str, which: str) -> ModelSpec:
    """Return the model whose ``config.json`` is, or stands in, ``name``.

    Raises:
        InputError: if there is no such file, or it cannot be read without guessing.
    """
    try:
        path = Path(name) / CONFIG_FILE if Path(name).is_dir() else Path(name)
        if not path.is_file() and path.exists():
            raise InputError(where, which, name, "a config.json that is a regular file")
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(where, which, name, "a config.json of at most 2 MiB")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(where, which, name, "a config.json in UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(where, which, name, f"a config.json that can be read ({reason})") from None
    try:
        config = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise InputError(str(path), None, str(error), "a JSON object") from None
    if not isinstance(config, dict):
        raise InputError(str(path), None, type(config).__name__, "a JSON object")
    if (path.parent / _OTHER_QUANTISATION).is_file() and not config.get("quantization_config"):
        allowed = f"a quantization_config: {_OTHER_QUANTISATION} beside it is not read"
        raise InputError(str(path), "quantization_config", "nothing", allowed)
    label = path.stem if path.name != CONFIG_FILE else path.resolve().parent.name
    return read_config(config, str(path), label)


def read_config(config: Mapping[str, Any], where: str, name: str) -> ModelSpec:
    """Return the model that the mapping ``config`` describes, named ``name``.

    Raises:
        InputError: naming the first field that is missing, unknown or contradicts another.
    """
    inner, prefix = dict(config), ""
    if isinstance(config.get("text_config"), Mapping):
        inner, prefix = dict(config["text_config"]), "text_config."
        for key in ("tie_word_embeddings", "quantization_config", "compression_config"):
            if key in config:
                inner.setdefault(key, config[key])
    fields = Fields(inner, where, prefix)
    kind = fields.text("model_type") or "nothing"
    family = FAMILIES.get(kind, UNKNOWN_FAMILY)
    spec = _read_shape(fields, family, kind, name)
    fields.refuse_unread(IGNORED_FIELDS, IGNORED_ENDINGS)
    return spec


def _read_shape(fields: Fields, family: Family, kind: str, name: str) -> ModelSpec:
    hidden = fields.count("hidden_size", "n_embed", "n_embd", "d_model")
    heads = fields.count("num_attention_heads", "n_head", most=_MOST_LISTED)
    layers = fields.count("num_hidden_layers", "n_layer", most=_MOST_LISTED)
    positions = fields.count("max_position_embeddings", "seq_length")
    mla = read_mla(fields)
    head_size = mla.query_size if mla else _head_size(fields, hidden, heads)
    kv_heads = fields.optional_count("num_key_value_heads") or heads
    if heads % kv_heads:
        allowed = f"a divisor of num_attention_heads ({heads})"
        raise fields.refuse("num_key_value_heads", kv_heads, allowed)
    experts, ffn = _read_experts(fields, family, kind, layers, hidden)
    _refuse_other_norms(fields)
    dtype = fields.text("torch_dtype", "dtype") or "bfloat16"
    if dtype.removeprefix("torch.") not in _DTYPES:
        raise fields.refuse("torch_dtype", dtype, ", ".join(_DTYPES))
    groups = () if mla else read_groups(fields, family, layers, kv_heads, head_size, heads)
    indexer = read_indexer(fields, mla)
    fields.get("head_dim")
    extra = heads if family.sinks else 0
    extra += 2 * indexer.head_size if indexer else 0
    known = kind in FAMILIES
    note = "" if known else f"; model_type {kind} is not known: read as a Llama, biases ignored"
    if fields.prefix:
        note += "; the text part only, encoders of images or sound are not counted"
    return ModelSpec(
        name=name,
        hf_id=name,
        layers=layers,
        hidden_size=hidden,
        attention_heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        ffn_size=ffn,
        vocab_size=fields.count("vocab_size"),
        tied_embeddings=_tied(fields, family),
        max_position_embeddings=positions,
        qk_norm=bool(fields.flag("use_qk_norm", family.qk_norm)) and kind != "llama4_text",
        ffn_matrices=family.ffn_matrices,
        ffn_bias=fields.flag("mlp_bias", family.ffn_bias),
        attention_bias=_attention_bias(fields, family),
        norms_per_layer=family.norms_per_layer,
        norm_bias=family.norm_bias,
        embedding_norm=family.embedding_norm,
        learned_positions=positions + family.learned_positions if family.learned_positions else 0,
        extra_values_per_layer=extra,
        groups=groups,
        mla=mla,
        indexer=indexer,
        experts=experts,
        weights=read_format(fields),
        kv_bytes_per_value=read_kv_bytes(fields),
        kind="imported" if known else "assumed",
        source=f"config.json of {name}{note}",
    )


def _head_size(fields: Fields, hidden: int, heads: int) -> int:
    """Return ``head_dim``; absent, null or 0 stand for hidden size over heads."""
    size = fields.optional_count("head_dim")
    if size:
        return size
    if hidden % heads:
        allowed = f"a multiple of num_attention_heads ({heads}) where head_dim is absent"
        raise fields.refuse("hidden_size", hidden, allowed)
    return hidden // heads


def _tied(fields: Fields, family: Family) -> bool:
    tied: bool | None = fields.flag("tie_word_embeddings", family.tied)
    if tied is None:
        raise fields.refuse("tie_word_embeddings", "nothing", "true or false")
    return tied


def _attention_bias(fields: Fields, family: Family) -> str:
    if fields.flag("qkv_bias", False):
        return "qkv"
    fallback = family.attention_bias != "none"
    given = fields.flag("attention_bias", fields.flag("enable_bias", fallback))
    if not given:
        return "none"
    return family.attention_bias if fallback else "all"


def _refuse_other_norms(fields: Fields) -> None:
    """Refuse OPT's variants whose layers differ from the published large models'."""
    width = fields.optional_count("word_embed_proj_dim")
    if width and width != fields.count("hidden_size"):
        allowed = "the hidden size: simserve does not model projected embeddings"
        raise fields.refuse("word_embed_proj_dim", width, allowed)
    for key in ("do_layer_norm_before", "_remove_final_layer_norm"):
        fields.flag(key, None)


def _read_experts(
    fields: Fields, family: Family, kind: str, layers: int, hidden: int
) -> tuple[Experts | None, int]:
    """Return the experts, None for a dense model, and the size of the dense FFN, 0 for none."""
    count = fields.optional_count("num_local_experts", "num_experts", "n_routed_experts")
    per_token = fields.optional_count("num_experts_per_tok", "top_k_experts", "experts_per_token")
    moe_size = fields.optional_count("moe_intermediate_size")
    inner = fields.optional_count("intermediate_size", "ffn_dim")
    if inner is None and kind == "bloom":
        inner = fields.optional_count("n_inner") or _BLOOM_FFN_FACTOR * hidden
    dense_size = fields.optional_count("intermediate_size_mlp") or inner
    shared = _shared_size(fields, family, moe_size, inner)
    sparse = _sparse_layers(fields, layers)
    if not count or count == 1:
        if dense_size is None:
            raise fields.refuse("intermediate_size", "nothing", "an integer of at least 1")
        return None, dense_size
    if not per_token or per_token > count:
        got = per_token or "nothing"
        raise fields.refuse("num_experts_per_tok", got, f"an integer from 1 to {count} experts")
    size = moe_size or inner
    if not size:
        raise fields.refuse("moe_intermediate_size", "nothing", "an integer of at least 1")
    if not sparse:
        raise fields.refuse("first_k_dense_replace", layers, "fewer than all layers")
    beside = family.beside_dense and fields.flag("enable_moe_block", True) is True
    if (sparse < layers or beside) and not dense_size:
        raise fields.refuse("intermediate_size", "nothing", "an integer of at least 1")
    experts = Experts(
        count=count,
        per_token=per_token,
        ffn_size=size,
        layers=sparse,
        shared_ffn_size=shared,
        beside_dense=beside,
        bias=family.expert_bias,
    )
    return experts, (dense_size or 0) if sparse < layers or beside else 0


def _shared_size(fields: Fields, family: Family, moe_size: int | None, inner: int | None) -> int:
    """Return the summed FFN size of the experts that every token goes through."""
    given = fields.optional_count("shared_expert_intermediate_size", "shared_intermediate_size")
    number = fields.optional_count("n_shared_experts") or family.shared_experts
    if given:
        return given
    return number * (moe_size or inner or 0)


def _sparse_layers(fields: Fields, layers: int) -> int:
    """Return how many layers have experts."""
    first = fields.optional_count("first_k_dense_replace") or 0
    if first > layers:
        raise fields.refuse("first_k_dense_replace", first, f"at most {layers} layers")
    dense = fields.numbers("mlp_only_layers")
    listed = fields.numbers("moe_layers")
    if isinstance(fields.get("moe_layer_freq"), list):
        return sum(1 for here in fields.numbers("moe_layer_freq") if here)
    if listed:
        return len(set(listed))
    step = (
        fields.optional_count("interleave_moe_layer_step", "decoder_sparse_step", "moe_layer_freq")
        or 1
    )
    return sum(
        1 for layer in range(first, layers) if (layer + 1) % step == 0 and layer not in dense
    )


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise ValueError(f"the key {key} twice")
        seen[key] = value
    return seen
