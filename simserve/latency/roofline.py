"""Step time from first principles: each operator takes as long as its work or its bytes need.

Per operator: ``max(flops / (peak × efficiency), bytes / (bandwidth × efficiency))`` (Williams,
Waterman, Patterson, "Roofline", CACM 2009), summed over the operators of a step. Peaks are the
datasheet's, efficiencies stand beside them in the GPU's profile, each with its source.

A step of ``T`` tokens, ``S`` sequences and ``L`` layers on each of ``tp`` GPUs (Megatron-LM
sharding, arXiv:1909.08053, which vLLM follows) is the sum of

* four GEMMs per layer (QKV, output, gate and up, down), ``N × K`` weights each:
  ``2·T·N·K`` flops; weights once, ``T·(N + K)`` activations in and out;
* attention of decodes: every token of context is read once from the KV cache;
* attention of a prefill chunk, causal: ``4·heads·head_size`` flops for each of the
  ``new·(past + (new + 1)/2)`` pairs (FlashAttention-2, arXiv:2307.08691, section 3.1);
* the LM head: a GEMM with one row per *sequence* (vLLM computes logits for unfinished chunks too);
* if ``tp`` > 1, two all-reduces per layer and one after the embedding, a ring's
  ``2·(tp − 1)/tp`` bytes each (Patarasu and Yuan, JPDC 2009), and one gather of the logits;
* a fixed launch overhead per layer, and host time per step and per sequence, which nothing
  hides (synchronous scheduling).

Not modelled: CUDA-graph padding, uneven contexts, sampling, embedding look-up, clocks. It is
the model of last resort: measured tables are to be preferred where there are any.
"""

from __future__ import annotations

from collections.abc import Callable

from simserve.errors import InputError
from simserve.inputs.hardware_profile import GpuSpec
from simserve.inputs.model_spec import VOCAB_PADDING, ModelSpec
from simserve.latency.model import UNLIMITED_CONTEXT, DecodeLine
from simserve.records.clock import to_ps
from simserve.records.step import StepShape

# Activations are kept in bf16 (or fp16) between operators, whatever the weights are.
_ACTIVATION_BYTES = 2.0
# Flops for one query-key pair and one value of a head: a multiply-add in QKᵀ and one in PV.
_ATTENTION_FLOPS = 4.0
# A weight of one byte is fp8, which the tensor cores multiply as it is. Other widths below
# two bytes are unpacked to 16 bits first (weight-only quantisation).
_FP8_WEIGHT_BYTES = 1.0


class RooflineModel:
    """Prices the steps of ``model`` on ``tp`` GPUs of one kind; see the module's docstring.

    Everything that the deployment fixes is folded here into a cost per token, per sequence,
    per context token and per pair, all in seconds.
    """

    __slots__ = (
        "_context_s",
        "_decode_lines",
        "_kv_read_s",
        "_pair_s",
        "_query_s",
        "_seconds_by_seqs",
        "_seconds_by_tokens",
    )

    def __init__(self, model: ModelSpec, gpu: GpuSpec, tp: int) -> None:
        share = {name: sourced.value for name, sourced in gpu.efficiency.items()}
        hbm_bytes_per_s = gpu.hbm_bytes_per_s * share["hbm_efficiency"]
        query_values = model.layers * (model.attention_heads // tp) * model.head_size
        self._pair_s = (
            _ATTENTION_FLOPS
            * query_values
            / (_flops_per_s(gpu, _ACTIVATION_BYTES) * share["attention_prefill_efficiency"])
        )
        kv_bytes = float(model.kv_bytes_per_token(tp))
        self._kv_read_s = kv_bytes / hbm_bytes_per_s
        # A chunk reads its queries and writes as many outputs.
        self._query_s = 2 * query_values * _ACTIVATION_BYTES / hbm_bytes_per_s
        # The decode kernel reaches its own share of the bandwidth. Its flops (one pair per
        # context token) weigh only where many heads share little KV.
        decode_bytes_per_s = gpu.hbm_bytes_per_s * share["attention_decode_efficiency"]
        self._context_s = max(kv_bytes / decode_bytes_per_s, self._pair_s)
        self._seconds_by_tokens = _Tabulated(_by_tokens(model, gpu, tp, share))
        self._seconds_by_seqs = _Tabulated(_by_seqs(model, gpu, tp, share))
        self._decode_lines: dict[int, DecodeLine] = {}

    def step_s(self, shape: StepShape) -> float:
        """Return the duration of a step in seconds, host time included."""
        tokens, context_tokens, prefill = shape
        seqs = tokens + len(prefill)
        attention_s = context_tokens * self._context_s
        for new, past in prefill:
            tokens += new
            compute_s = new * (past + 0.5 * (new + 1)) * self._pair_s
            memory_s = (past + new) * self._kv_read_s + new * self._query_s
            attention_s += compute_s if compute_s > memory_s else memory_s
        return attention_s + self._seconds_by_tokens[tokens] + self._seconds_by_seqs[seqs]

    def decode_line(self, decode_seqs: int, decode_context_tokens: int) -> DecodeLine:
        """Return the line of a decode-only step; one line serves every context.

        It agrees with ``step_s`` to half a picosecond, and half a one per context token.
        """
        line = self._decode_lines.get(decode_seqs)
        if line is None:
            base_s = self._seconds_by_tokens[decode_seqs] + self._seconds_by_seqs[decode_seqs]
            line = DecodeLine(to_ps(base_s), to_ps(self._context_s), UNLIMITED_CONTEXT)
            self._decode_lines[decode_seqs] = line
        return line


class _Tabulated(dict[int, float]):
    """A function of a count, computed when first asked for: a step then costs one look-up."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[int], float]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, count: int) -> float:
        value = self[count] = self._function(count)
        return value


def _by_tokens(
    model: ModelSpec, gpu: GpuSpec, tp: int, share: dict[str, float]
) -> Callable[[int], float]:
    """Return the seconds of a step that depend on its tokens, or on nothing, as a function."""
    hidden = model.hidden_size
    query = model.attention_heads // tp * model.head_size
    keys = model.kv_heads_per_gpu(tp) * model.head_size
    ffn = model.ffn_size // tp
    shapes = ((query + 2 * keys, hidden), (hidden, query), (2 * ffn, hidden), (hidden, ffn))
    gemms = [_gemm(n, k, model, gpu, share) for n, k in shapes]
    layers = model.layers
    fixed_s = layers * share["kernel_launch_s"] + share["host_step_s"]
    reduce_s_per_token = 0.0
    if tp > 1:
        reduces = 2 * layers + 1
        fixed_s += reduces * share["collective_latency_s"]
        link_bytes_per_s = gpu.link_bytes_per_s * share["link_efficiency"]
        ring = 2 * (tp - 1) / tp
        reduce_s_per_token = reduces * ring * hidden * _ACTIVATION_BYTES / link_bytes_per_s

    def seconds(tokens: int) -> float:
        layer_s = sum(gemm(tokens) for gemm in gemms)
        return layers * layer_s + tokens * reduce_s_per_token + fixed_s

    return seconds


def _by_seqs(
    model: ModelSpec, gpu: GpuSpec, tp: int, share: dict[str, float]
) -> Callable[[int], float]:
    """Return the seconds of a step that depend on its sequences, as a function."""
    padded = -(-model.vocab_size // VOCAB_PADDING) * VOCAB_PADDING
    head = _gemm(-(-padded // tp), model.hidden_size, model, gpu, share)
    fixed_s, seq_s = 0.0, share["host_per_seq_s"]
    if tp > 1:
        link_bytes_per_s = gpu.link_bytes_per_s * share["link_efficiency"]
        fixed_s = share["collective_latency_s"]
        seq_s += (tp - 1) / tp * padded * _ACTIVATION_BYTES / link_bytes_per_s

    def seconds(seqs: int) -> float:
        return head(seqs) + fixed_s + seqs * seq_s

    return seconds


def _gemm(
    n: int, k: int, model: ModelSpec, gpu: GpuSpec, share: dict[str, float]
) -> Callable[[int], float]:
    """Return the seconds of ``rows × k`` times ``k × n`` as a function of the rows."""
    weight_bytes = model.weight_bytes_per_value
    hbm_bytes_per_s = gpu.hbm_bytes_per_s * share["hbm_efficiency"]
    flops_per_s = _flops_per_s(gpu, weight_bytes) * share["gemm_efficiency"]
    compute_s = 2 * n * k / flops_per_s
    weights_s = n * k * weight_bytes / hbm_bytes_per_s
    activations_s = (n + k) * _ACTIVATION_BYTES / hbm_bytes_per_s

    def seconds(rows: int) -> float:
        return max(rows * compute_s, weights_s + rows * activations_s)

    return seconds


def _flops_per_s(gpu: GpuSpec, weight_bytes: float) -> float:
    """Return the dense peak rate that GEMMs with weights of this width run at."""
    dtypes = ("fp8", "bf16", "fp16") if weight_bytes == _FP8_WEIGHT_BYTES else ("bf16", "fp16")
    for dtype in dtypes:
        if dtype in gpu.flops_per_s:
            return gpu.flops_per_s[dtype]
    got = f"rates for {', '.join(gpu.flops_per_s)}"
    raise InputError(gpu.name, "flops", got, f"a rate for one of {', '.join(dtypes)}")
