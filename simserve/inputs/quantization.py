"""How weights and KV values are stored: bits per value, scales per group, rate of the GEMMs.

A format covers the linear layers, or only the routed experts; embeddings, LM head, router,
norms and biases stay in the checkpoint's 16 bits, as they do in vLLM's loaders. The sizes of
scales are those of the files that the methods write:

* ``fp8``: one 8-bit value per weight, one 32-bit scale per output channel;
* ``fp8-block``: DeepSeek-V3's, one 32-bit scale per 128 × 128 block (arXiv:2412.19437, 3.3);
* ``int8``: 8 bits, one 32-bit scale per output channel (arXiv:2208.07339, vector-wise);
* ``awq``, ``gptq``: 4 bits, a 16-bit scale and a 4-bit zero point per group of 128 along the
  input (arXiv:2306.00978, arXiv:2210.17323; GPTQModel and AutoAWQ files);
* ``nf4``: 4 bits, a 32-bit maximum per 64 values (arXiv:2305.14314; no double quantisation);
* ``mxfp4``: 4 bits, an 8-bit exponent per 32 values (OCP Microscaling Formats v1.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from simserve.errors import InputError, unknown_name
from simserve.inputs.hardware_profile import GpuSpec

# What a group spans along the input: all of it is one scale per output channel.
WHOLE_CHANNEL = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFormat:
    """One way to store matrices: ``group_size`` inputs × ``group_channels`` outputs a scale.

    ``gemm_dtype`` is what the tensor cores multiply: a GPU without a rate for it, and every
    weight-only format (``bf16``), runs at the 16-bit rate. ``experts_only`` leaves all but the
    routed experts in 16 bits.
    """

    method: str
    bits: int
    scale_bytes: float
    group_size: int
    group_channels: int = 1
    gemm_dtype: str = "bf16"
    experts_only: bool = False

    def matrix_bytes(self, outputs: int, inputs: int) -> float:
        """Return the bytes of an ``outputs × inputs`` matrix with its scales."""
        group = self.group_size or inputs
        groups = -(-inputs // group) * -(-outputs // self.group_channels)
        return outputs * inputs * self.bits / 8 + groups * self.scale_bytes


_FP32, _FP16, _FP8, _INT4 = 4.0, 2.0, 1.0, 0.5

FORMATS: Mapping[str, WeightFormat] = MappingProxyType(
    {
        one.method: one
        for one in (
            WeightFormat(
                method="fp8",
                bits=8,
                scale_bytes=_FP32,
                group_size=WHOLE_CHANNEL,
                gemm_dtype="fp8",
            ),
            WeightFormat(
                method="fp8-block",
                bits=8,
                scale_bytes=_FP32,
                group_size=128,
                group_channels=128,
                gemm_dtype="fp8",
            ),
            WeightFormat(
                method="int8",
                bits=8,
                scale_bytes=_FP32,
                group_size=WHOLE_CHANNEL,
                gemm_dtype="int8",
            ),
            WeightFormat(method="awq", bits=4, scale_bytes=_FP16 + _INT4, group_size=128),
            WeightFormat(method="gptq", bits=4, scale_bytes=_FP16 + _INT4, group_size=128),
            WeightFormat(method="nf4", bits=4, scale_bytes=_FP32, group_size=64),
            WeightFormat(
                method="mxfp4", bits=4, scale_bytes=_FP8, group_size=32, experts_only=True
            ),
        )
    }
)
# vLLM's names of --quantization, and the usual ones, for the formats above.
_SPELLINGS = {name: name for name in FORMATS} | {
    "awq-marlin": "awq",
    "gptq-marlin": "gptq",
    "int4": "gptq",
    "bitsandbytes": "nf4",
    "w8a8": "int8",
    "gpt-oss-mxfp4": "mxfp4",
}
AS_STORED = "none"
"""In place of a format: the weights stay as the checkpoint has them."""
QUANTIZATION_NAMES = tuple(sorted([*_SPELLINGS, AS_STORED]))

# vLLM's --kv-cache-dtype (config/cache.py): bytes per value; "auto" is the model's own.
KV_DTYPES: Mapping[str, float | None] = MappingProxyType(
    {
        "auto": None,
        "bfloat16": 2.0,
        "float16": 2.0,
        "fp8": 1.0,
        "fp8-e4m3": 1.0,
        "fp8-e5m2": 1.0,
        "int8": 1.0,
    }
)


# The least compute capability that vLLM 0.33.0 asks for (2026-11-20; get_min_capability in
# model_executor/layers/quantization: fp8.py, auto_awq.py, mxfp4.py and, for int8, the scheme
# W8A8Int8 of compressed_tensors); below 8.9 weights of fp8 are unpacked to 16 bits.
_LEAST_CAPABILITY: Mapping[str, float] = MappingProxyType(
    {"fp8": 7.5, "fp8-block": 7.5, "int8": 7.5, "awq": 7.5, "mxfp4": 8.0}
)


def refuse_older_gpu(native: WeightFormat, gpu: GpuSpec, where: str, which: str) -> None:
    """Raise InputError, as vLLM does, for a GPU that has no kernels for the weights."""
    least = _LEAST_CAPABILITY.get(native.method)
    if least is None or gpu.compute_capability is None or gpu.compute_capability >= least:
        return
    got = f"{gpu.name} (compute capability {gpu.compute_capability:.1f})"
    allowed = (
        f"a GPU of at least {least:.1f}: older ones have no kernels for {native.method} weights"
    )
    raise InputError(where, which, got, allowed)


def find_format(name: str, where: str, which: str) -> WeightFormat:
    """Return the format that ``name`` stands for; raise InputError, naming the nearest."""
    normal = name.strip().lower().replace("_", "-")
    if normal not in _SPELLINGS:
        raise unknown_name(where, which, normal or repr(name), _SPELLINGS)
    return FORMATS[_SPELLINGS[normal]]


def find_kv_bytes(name: str, where: str, which: str) -> float | None:
    """Return the bytes of a KV value of dtype ``name``, None for the model's own."""
    normal = name.strip().lower().replace("_", "-")
    if normal not in KV_DTYPES:
        raise unknown_name(where, which, normal or repr(name), KV_DTYPES)
    return KV_DTYPES[normal]


def same_family(native: WeightFormat, asked: WeightFormat) -> bool:
    """Return whether ``asked`` names the format that the checkpoint is already in."""
    return native.method.partition("-")[0] == asked.method.partition("-")[0]


def refuse_other_format(
    native: WeightFormat, asked: WeightFormat, model: str, where: str, which: str
) -> None:
    """Raise InputError, as vLLM does, if a quantised checkpoint is asked to be in another."""
    if not same_family(native, asked):
        allowed = f"{native.method}, or nothing: the checkpoint of {model} is {native.method}"
        raise InputError(where, which, asked.method, allowed)
