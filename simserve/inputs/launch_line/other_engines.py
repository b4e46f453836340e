"""Settings of SGLang and TensorRT-LLM that need more than a new name.

Only what maps honestly is converted; the schedule stays vLLM's, and the notes say so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from simserve.errors import InputError
from simserve.inputs.launch_line.arguments import Given
from simserve.inputs.launch_line.flag_table import FlagTable
from simserve.inputs.launch_line.manifest import scalar_text
from simserve.inputs.yaml_reader import read_yaml

Conversion = Callable[[Any], tuple[dict[str, Any], str]]


def _static_fraction(value: Any) -> tuple[dict[str, Any], str]:
    """SGLang's fraction holds weights and KV cache alone: what else there is stands outside."""
    outside = ("activation_peak_bytes", "context_bytes", "cuda_graph_pool_bytes")
    note = "mem_fraction_static holds weights and KV cache only: nothing else is taken from it"
    return {"gpu_memory_utilization": value} | dict.fromkeys(outside, 0), note


def _prefill_chunk(value: Any) -> tuple[dict[str, Any], str]:
    if value == -1:
        return {"enable_chunked_prefill": False}, ""
    note = "chunked_prefill_size bounds prefill alone; here decodes count in max_num_batched_tokens"
    return {"max_num_batched_tokens": value}, note


def _inverted(value: Any) -> tuple[dict[str, Any], str]:
    return {"enable_prefix_caching": not value}, ""


def _round_robin(value: Any) -> tuple[dict[str, Any], str]:
    if value == 1:
        return {"replicas": 1}, ""
    return {"replicas": value, "router": "round-robin"}, "data parallel ranks are whole replicas"


def _kv_dtype(value: Any) -> tuple[dict[str, Any], str]:
    return {"kv_cache_dtype": "bfloat16" if value == "bf16" else value}, ""


CONVERSIONS: Mapping[str, Conversion] = {
    "static fraction": _static_fraction,
    "prefill chunk": _prefill_chunk,
    "no prefix caching": _inverted,
    "round-robin replicas": _round_robin,
    "kv dtype": _kv_dtype,
}


def read_options_file(file: str, table: FlagTable) -> list[Given]:
    """Return the flags that a YAML file of TensorRT-LLM options gives, nested keys dotted.

    Raises:
        InputError: if it is not YAML, or a key is not known.
    """
    return _options(read_yaml(file), "", file, table)


def _options(entry: Mapping[str, Any], above: str, file: str, table: FlagTable) -> list[Given]:
    given: list[Given] = []
    for key, value in entry.items():
        path = f"{above}{key}"
        if isinstance(value, Mapping):
            given += _options(value, f"{path}.", file, table)
            continue
        found = table.find("--" + path.replace("_", "-"))
        if found is None:
            raise table.unknown(file, "--" + path.replace("_", "-"))
        flag = found[0]
        if flag.takes_no_value and not isinstance(value, bool):
            raise InputError(file, path, value, "true or false")
        raw = value if isinstance(value, (bool, list)) or value is None else scalar_text(value)
        if value is not None:
            given.append(Given(flag, raw, f"{file}: {path}"))
    return given
