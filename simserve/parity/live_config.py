"""Builds a vLLM scheduler for a case, as vLLM's engine core builds its own."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from simserve.errors import InputError
from simserve.parity.case import Case
from simserve.parity.case_file import settings_of

SMALLEST_MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_hidden_layers": 1,
    "vocab_size": 1000,
    "max_position_embeddings": 1 << 20,
    "torch_dtype": "float16",
}
"""A model that vLLM knows; nothing of it is ever computed. One full-attention KV group."""

QUIET = {"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}


def build_scheduler(case: Case) -> tuple[Any, Any]:
    """Return vLLM's scheduler for a case, and the block hasher that its requests need.

    Raises:
        InputError: if vLLM refuses the settings, or resolves one to another value.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("vllm").setLevel(logging.ERROR)  # it warns of kernels that are missing
    from vllm.v1.structured_output import StructuredOutputManager

    config = _config(case)
    blocks = _kv_blocks(case, config)
    block_size, hash_block_size, hasher = _hashing(blocks, config)
    make = config.scheduler_config.get_scheduler_cls()
    scheduler = make(
        vllm_config=config,
        kv_cache_config=blocks,
        structured_output_manager=StructuredOutputManager(config),
        block_size=block_size,
        hash_block_size=hash_block_size,
        log_stats=False,
    )
    return scheduler, hasher


def _config(case: Case) -> Any:
    from vllm.config import CacheConfig, DeviceConfig, SchedulerConfig, VllmConfig

    settings = settings_of(case.limits)
    asked, kv = settings["scheduler"], settings["kv"]
    cache_settings = {name: kv[name] for name in ("block_size", "enable_prefix_caching")}
    try:
        config = VllmConfig(
            model_config=_model(asked["max_model_len"]),
            scheduler_config=SchedulerConfig(is_encoder_decoder=False, **asked),
            cache_config=CacheConfig(**cache_settings),
            device_config=DeviceConfig(device="cpu"),
        )
    except ValueError as error:
        raise InputError(case.name, None, str(error), "settings that vLLM takes") from None
    config.cache_config.num_gpu_blocks = kv["num_blocks"]
    resolved = {name: getattr(config.scheduler_config, name, None) for name in asked}
    resolved["max_model_len"] = config.model_config.max_model_len
    resolved |= {name: getattr(config.cache_config, name) for name in cache_settings}
    for name, value in (asked | cache_settings).items():
        if resolved[name] != value:
            raise InputError(case.name, name, value, f"vLLM makes it {resolved[name]}")
    return config


@lru_cache(maxsize=128)
def _model(max_model_len: int) -> Any:
    from vllm.config import ModelConfig

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(SMALLEST_MODEL), encoding="utf-8")
        return ModelConfig(
            model=folder,
            skip_tokenizer_init=True,
            dtype="float16",
            seed=0,
            max_model_len=max_model_len,
        )


def _kv_blocks(case: Case, config: Any) -> Any:
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec

    attention = FullAttentionSpec(
        block_size=case.limits.block_size,
        num_kv_heads=1,
        head_size=1,
        dtype=config.model_config.dtype,
    )
    return KVCacheConfig(
        num_blocks=case.limits.num_blocks,
        kv_cache_tensors=[],
        kv_cache_groups=[KVCacheGroupSpec(["layer"], attention)],
    )


def _hashing(blocks: Any, config: Any) -> tuple[int, int, Any]:
    from vllm.utils.hashing import get_hash_fn_by_name
    from vllm.v1.core.kv_cache_utils import (
        get_request_block_hasher,
        init_none_hash,
        resolve_kv_cache_block_sizes,
    )

    block_size, hash_block_size = resolve_kv_cache_block_sizes(blocks, config)
    if not config.cache_config.enable_prefix_caching:
        return block_size, hash_block_size, None
    hash_of = get_hash_fn_by_name(config.cache_config.prefix_caching_hash_algo)
    init_none_hash(hash_of)
    return block_size, hash_block_size, get_request_block_hasher(hash_block_size, hash_of)
