"""What matrices cost in a roofline: dense GEMMs, and experts of which a step touches some.

A GEMM of ``rows`` tokens takes the longer of ``2·rows·outputs·inputs`` flops and of reading
its weights once, with activations in and out. Weights are multiplied at the rate of their
format (fp8, int8) where the GPU has one; weight-only formats (AWQ, GPTQ, NF4, MXFP4) are
unpacked and run at the 16-bit rate with their own bytes (Marlin, arXiv:2408.11743).

``T`` tokens routed to ``k`` of ``E`` experts do ``T·k`` rows of work, and touch
``E·u, u = 1 - (1 - k/E)^T`` experts if routing were uniform and independent: those weights
are read. Trained routers touch fewer, about 0.87 of it mid-range, and no fewer than ``k``.
Their grouped GEMMs reach a share of the peak of their own, about a third of a dense one's, after
a time per layer for routing, permutation and launches that no number of tokens makes shorter.
"""

from __future__ import annotations

from collections.abc import Callable

from simserve.errors import InputError
from simserve.inputs.hardware_profile import GpuSpec
from simserve.inputs.model_matrices import Matrix
from simserve.inputs.model_shape import Experts
from simserve.inputs.model_spec import ModelSpec

# Activations are kept in bf16 (or fp16) between operators, whatever the weights are.
ACTIVATION_BYTES = 2.0
SIXTEEN_BITS = "bf16"
# Plain weights of one byte are fp8, which the tensor cores multiply as it is.
_FP8_WEIGHT_BYTES = 1.0
# At half of the experts touched a trained router touches 0.87 of what uniform routing would
# (published comparisons of simulators with vLLM); here 1 - 0.52·u·(1 - u), 1 at both ends.
_ROUTER_SKEW = 0.52
# Up and down: each has half of what routing, permutation and launches take in a layer.
_EXPERT_MATRICES = 2

Seconds = Callable[[int], float]


def gemm(matrix: Matrix, model: ModelSpec, gpu: GpuSpec) -> Seconds:
    """Return the seconds of ``matrix`` in all its layers as a function of the rows."""
    share = {name: sourced.value for name, sourced in gpu.efficiency.items()}
    hbm_bytes_per_s = gpu.hbm_bytes_per_s * share["hbm_efficiency"]
    layers, outputs, inputs = matrix.layers, matrix.outputs, matrix.inputs
    reached = share["expert_gemm_efficiency" if matrix.part == "experts" else "gemm_efficiency"]
    rate = flops_per_s(gpu, _gemm_dtype(matrix, model)) * reached
    compute_s = layers * 2 * outputs * inputs / rate
    weights_s = model.matrix_bytes(matrix) / matrix.copies / hbm_bytes_per_s
    activations_s = layers * (outputs + inputs) * ACTIVATION_BYTES / hbm_bytes_per_s
    if matrix.part != "experts" or model.experts is None:
        return lambda rows: max(rows * compute_s, weights_s + rows * activations_s)
    experts = model.experts
    launch_s = layers * share["expert_launch_s"] / _EXPERT_MATRICES

    def seconds(tokens: int) -> float:
        rows, touched = tokens * experts.per_token, experts_touched(experts, tokens)
        return launch_s + max(rows * compute_s, touched * weights_s + rows * activations_s)

    return seconds


def experts_touched(experts: Experts, tokens: int) -> float:
    """Return how many experts of a layer the tokens of a step are expected to reach."""
    share = 1 - (1 - experts.per_token / experts.count) ** tokens
    trained = experts.count * share * (1 - _ROUTER_SKEW * share * (1 - share))
    return max(trained, float(min(experts.per_token, tokens * experts.per_token)))


def flops_per_s(gpu: GpuSpec, dtype: str) -> float:
    """Return the dense peak rate of ``dtype``; of 16 bits where the GPU has none for it.

    Raises:
        InputError: if the GPU's profile has no rate for 16 bits either.
    """
    dtypes = dict.fromkeys((dtype, SIXTEEN_BITS, "fp16"))
    for one in dtypes:
        if one in gpu.flops_per_s:
            return gpu.flops_per_s[one]
    got = f"rates for {', '.join(gpu.flops_per_s)}"
    raise InputError(gpu.name, "flops", got, f"a rate for one of {', '.join(dtypes)}")


def _gemm_dtype(matrix: Matrix, model: ModelSpec) -> str:
    weights = model.format_of(matrix)
    if weights is not None:
        return weights.gemm_dtype
    return "fp8" if model.weight_bytes_per_value == _FP8_WEIGHT_BYTES else SIXTEEN_BITS
