"""The ``quantization_config`` of a ``config.json`` as a weight format, and the width of its KV."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from simserve.inputs.hf_fields import Fields
from simserve.inputs.quantization import FORMATS, WHOLE_CHANNEL, WeightFormat

_KEY = "quantization_config"
_METHODS = "fp8, mxfp4, awq, gptq, bitsandbytes, compressed-tensors"
# Modules that stay in 16 bits in every format here, whatever the list says.
_KEPT = re.compile(
    r"lm_head|embed|norm|router|(?<!shared_expert_)gate(?!_)|shared_expert_gate|"
    r"e_score_correction_bias|indexers_proj|weights_proj|eh_proj|vision|multi_modal_projector|visual"
)
_NIBBLE_BITS, _BYTE_BITS, _GROUP = 4, 8, 128
_KV_BYTES, _SHORT_KV_BYTES = 2.0, 1.0


def read_format(fields: Fields) -> WeightFormat | None:
    """Return the format of the checkpoint's matrices, None if they are plain 16 bits.

    Raises:
        InputError: for a method, a width or a list of exceptions that is not modelled.
    """
    config = fields.get(_KEY, "compression_config")
    if config is None:
        return None
    if not isinstance(config, Mapping):
        raise fields.refuse(_KEY, config, "an object with quant_method")
    method = config.get("quant_method")
    if method in ("fp8", "mxfp4"):
        weights = _eight_bit_float(fields, config) if method == "fp8" else FORMATS["mxfp4"]
    elif method in ("awq", "gptq"):
        weights = _grouped_integer(fields, config, method)
    elif method == "bitsandbytes":
        weights = FORMATS["nf4"] if config.get("load_in_4bit") else FORMATS["int8"]
    elif method == "compressed-tensors":
        weights = _compressed(fields, config)
    else:
        got = "nothing" if method is None else method
        raise fields.refuse(f"{_KEY}.quant_method", got, _METHODS)
    _refuse_exceptions(fields, config, weights)
    return weights


def read_kv_bytes(fields: Fields) -> float:
    """Return the bytes of a cached value where nothing else is asked for.

    A compressed-tensors checkpoint with a ``kv_cache_scheme`` has its KV in fp8 (vLLM 0.33,
    ``model_executor/layers/attention/attention.py``), which knows no other scheme.

    Raises:
        InputError: for another scheme.
    """
    config = fields.get(_KEY, "compression_config")
    if not isinstance(config, Mapping) or config.get("quant_method") != "compressed-tensors":
        return _KV_BYTES
    scheme = config.get("kv_cache_scheme")
    if scheme is None:
        return _KV_BYTES
    kind = (scheme.get("type"), scheme.get("num_bits")) if isinstance(scheme, Mapping) else scheme
    if kind != ("float", _BYTE_BITS):
        raise fields.refuse(f"{_KEY}.kv_cache_scheme", kind, "type float of num_bits 8, or null")
    return _SHORT_KV_BYTES


def _eight_bit_float(fields: Fields, config: Mapping[str, Any]) -> WeightFormat:
    return _in_blocks(fields, "weight_block_size", config.get("weight_block_size"))


def _in_blocks(fields: Fields, key: str, block: object) -> WeightFormat:
    """Return 8-bit floats with a scale per block of [outputs, inputs], or per matrix without."""
    if not block:
        return FORMATS["fp8"]
    whole = isinstance(block, list) and all(type(one) is int and one > 0 for one in block)
    if not isinstance(block, list) or not whole or len(block) != 2:
        raise fields.refuse(f"{_KEY}.{key}", block, "two integers of at least 1")
    return _with_groups(FORMATS["fp8-block"], block[1], block[0])


def _grouped_integer(fields: Fields, config: Mapping[str, Any], method: str) -> WeightFormat:
    bits = config.get("bits", config.get("w_bit", _NIBBLE_BITS))
    group = config.get("group_size", config.get("q_group_size", _GROUP))
    if bits not in (_NIBBLE_BITS, _BYTE_BITS):
        raise fields.refuse(f"{_KEY}.bits", bits, "4 or 8")
    weights = FORMATS[method]
    return WeightFormat(
        method=method,
        bits=bits,
        scale_bytes=weights.scale_bytes,
        group_size=_group(fields, group),
    )


def _compressed(fields: Fields, config: Mapping[str, Any]) -> WeightFormat:
    """Return the one format of a compressed-tensors file; refuse a mixture."""
    groups = config.get("config_groups")
    schemes = list(groups.values()) if isinstance(groups, Mapping) else []
    schemes = [one for one in schemes if isinstance(one, Mapping)]
    if len(schemes) != 1 or not isinstance(schemes[0].get("weights"), Mapping):
        raise fields.refuse(f"{_KEY}.config_groups", f"{len(schemes)} groups", "one group")
    weights, only_weights = schemes[0]["weights"], schemes[0].get("input_activations") is None
    bits, kind = weights.get("num_bits"), weights.get("type", "int")
    strategy = weights.get("strategy") or "group"
    if (kind, bits) == ("float", _BYTE_BITS):
        return _in_blocks(fields, "block_structure", weights.get("block_structure"))
    if (kind, bits) == ("int", _BYTE_BITS) and not only_weights:
        return FORMATS["int8"]
    if kind == "int" and bits in (_NIBBLE_BITS, _BYTE_BITS):
        size = weights.get("group_size") if strategy == "group" else None
        return WeightFormat(
            method="gptq",
            bits=bits,
            scale_bytes=FORMATS["gptq"].scale_bytes,
            group_size=_group(fields, -1 if size is None else size),
        )
    raise fields.refuse(f"{_KEY}.config_groups", f"{kind}{bits}", "int4, int8 or float8 weights")


def _group(fields: Fields, size: object) -> int:
    """Return the group size; -1 in these files is a whole channel."""
    if type(size) is not int or (size < 1 and size != -1):
        raise fields.refuse(f"{_KEY}.group_size", size, "an integer of at least 1, or -1")
    return WHOLE_CHANNEL if size == -1 else size


def _with_groups(weights: WeightFormat, inputs: int, outputs: int) -> WeightFormat:
    return WeightFormat(
        method=weights.method,
        bits=weights.bits,
        scale_bytes=weights.scale_bytes,
        group_size=inputs,
        group_channels=outputs,
        gemm_dtype=weights.gemm_dtype,
    )


def _refuse_exceptions(fields: Fields, config: Mapping[str, Any], weights: WeightFormat) -> None:
    """Refuse matrices that the file leaves in 16 bits and simserve would count as quantised."""
    for key in ("modules_to_not_convert", "ignored_layers", "ignore"):
        modules = config.get(key) or []
        if not isinstance(modules, list):
            raise fields.refuse(f"{_KEY}.{key}", modules, "a list of modules")
        for module in modules:
            attention = weights.experts_only and "self_attn" in str(module)
            if not attention and not _KEPT.search(str(module)):
                allowed = "modules that stay in 16 bits anyway (embeddings, norms, router, lm_head)"
                raise fields.refuse(f"{_KEY}.{key}", module, allowed)
