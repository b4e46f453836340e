"""Step time from first principles: each operator takes as long as its work or its bytes need.

Per operator: ``max(flops / (peak × efficiency), bytes / (bandwidth × efficiency))`` (Williams,
Waterman, Patterson, "Roofline", CACM 2009), summed over the operators of a step. Peaks are the
datasheet's, efficiencies stand beside them in the GPU's profile, each with its source.

A step of ``T`` tokens, ``S`` sequences and ``L`` layers on each of ``tp`` GPUs (Megatron-LM
sharding, arXiv:1909.08053, which vLLM follows) is the sum of

* the GEMMs of every layer, experts included: see ``roofline_gemm``;
* attention of decodes and of prefill chunks, full, windowed, latent or sparse: see
  ``roofline_attention``;
* the LM head: a GEMM with one row per *sequence* (vLLM computes logits for unfinished chunks too);
* if ``tp`` > 1, two all-reduces per layer and one after the embedding, a ring's
  ``2·(tp − 1)/tp`` bytes each (Patarasu and Yuan, JPDC 2009), and one gather of the logits;
* a fixed launch overhead per layer, and another per layer of latent attention, which is what
  its measured kernels take beyond their bytes (that of experts is among the GEMMs);
* host time per step and per sequence, which nothing hides (synchronous scheduling).

Not modelled: CUDA-graph padding, uneven contexts, sampling, embedding look-up, load that is
uneven among experts, clocks. It is the model of last resort: measured tables
are to be preferred where there are any.
"""

from __future__ import annotations

from collections.abc import Callable

from simserve.errors import InputError
from simserve.inputs.hardware_profile import GpuSpec
from simserve.inputs.model_matrices import Matrix, layer_matrices, padded_vocab
from simserve.inputs.model_spec import ModelSpec
from simserve.latency.model import UNLIMITED_CONTEXT, DecodeLine
from simserve.latency.roofline_attention import AttentionCost, attention_costs
from simserve.latency.roofline_gemm import ACTIVATION_BYTES, gemm
from simserve.records.clock import to_ps
from simserve.records.step import StepShape


class RooflineModel:
    """An estimate from FLOPs, bytes and link traffic, unmeasured; see the module's docstring.

    Everything that the deployment fixes is folded here into a cost per token, per sequence,
    per context token and per pair, all in seconds.
    """

    __slots__ = (
        "_context_s",
        "_costs",
        "_decode_lines",
        "_kv_read_s",
        "_pair_s",
        "_plain",
        "_query_s",
        "_seconds_by_seqs",
        "_seconds_by_tokens",
        "_windows",
    )

    def __init__(self, model: ModelSpec, gpu: GpuSpec, tp: int) -> None:
        share = {name: sourced.value for name, sourced in gpu.efficiency.items()}
        if tp > 1 and not gpu.link_bytes_per_s:
            raise InputError(gpu.name, "tp", tp, "1: its profile has no link between devices")
        costs = attention_costs(model, gpu, tp)
        self._costs: tuple[AttentionCost, ...] = costs
        # One kind of layer that sees everything: the common case, and the fast one.
        self._plain = len(costs) == 1 and costs[0].window is None and not costs[0].past_s
        _, self._context_s, self._pair_s, self._kv_read_s, self._query_s, _ = costs[0]
        self._windows = sorted({one.window for one in costs if one.window is not None})
        self._seconds_by_tokens = _Tabulated(_by_tokens(model, gpu, tp, share))
        self._seconds_by_seqs = _Tabulated(_by_seqs(model, gpu, tp, share))
        self._decode_lines: dict[tuple[int, int], DecodeLine] = {}

    def step_s(self, shape: StepShape) -> float:
        """Return the duration of a step in seconds, host time included."""
        tokens, context_tokens, prefill, _ = shape
        seqs = tokens + len(prefill)
        if self._plain:
            attention_s = context_tokens * self._context_s
            for new, past in prefill:
                tokens += new
                compute_s = new * (past + 0.5 * (new + 1)) * self._pair_s
                memory_s = (past + new) * self._kv_read_s + new * self._query_s
                attention_s += compute_s if compute_s > memory_s else memory_s
        else:
            attention_s = self._decodes_s(tokens, context_tokens)
            for new, past in prefill:
                tokens += new
                attention_s += sum(cost.chunk_s(new, past) for cost in self._costs)
        return attention_s + self._seconds_by_tokens[tokens] + self._seconds_by_seqs[seqs]

    def decode_line(self, decode_seqs: int, decode_context_tokens: int) -> DecodeLine:
        """Return the line of a decode-only step: one for all contexts, or one between windows.

        It agrees with ``step_s`` to half a picosecond, and half a one per context token.
        """
        segment = 0
        for window in self._windows:
            segment += decode_seqs * window < decode_context_tokens
        line = self._decode_lines.get((decode_seqs, segment))
        if line is None:
            line = self._line(decode_seqs, segment)
            self._decode_lines[decode_seqs, segment] = line
        return line

    def _decodes_s(self, seqs: int, context_tokens: int) -> float:
        """Return the attention of decodes whose contexts sum to ``context_tokens``."""
        total_s = 0.0
        for cost in self._costs:
            seen = context_tokens if cost.window is None else seqs * cost.window
            total_s += min(context_tokens, seen) * cost.context_s
        return total_s

    def _line(self, seqs: int, segment: int) -> DecodeLine:
        """Return the line above the first ``segment`` windows, full by then, and no other."""
        base_s = self._seconds_by_tokens[seqs] + self._seconds_by_seqs[seqs]
        full = self._windows[:segment]
        per_context_s = 0.0
        for cost in self._costs:
            if cost.window in full:
                base_s += seqs * (cost.window or 0) * cost.context_s
            else:
                per_context_s += cost.context_s
        start = seqs * full[-1] + 1 if full else 0
        last = segment == len(self._windows)
        limit = UNLIMITED_CONTEXT if last else seqs * self._windows[segment]
        return DecodeLine(to_ps(base_s), to_ps(per_context_s), limit, start)


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
    gemms = [gemm(matrix, model, gpu) for matrix in layer_matrices(model, tp)]
    fixed_s = _launches_s(model, share) + share["host_step_s"]
    reduce_s_per_token = 0.0
    if tp > 1:
        reduces = 2 * model.layers + 1
        fixed_s += reduces * share["collective_latency_s"]
        link_bytes_per_s = gpu.link_bytes_per_s * share["link_efficiency"]
        ring_bytes = 2 * (tp - 1) / tp * model.hidden_size * ACTIVATION_BYTES
        reduce_s_per_token = reduces * ring_bytes / link_bytes_per_s

    def seconds(tokens: int) -> float:
        return sum(one(tokens) for one in gemms) + tokens * reduce_s_per_token + fixed_s

    return seconds


def _launches_s(model: ModelSpec, share: dict[str, float]) -> float:
    """Return the seconds that the layers of a step take however few tokens it has."""
    latent_layers = model.layers if model.mla is not None else 0
    return model.layers * share["kernel_launch_s"] + latent_layers * share["latent_launch_s"]


def _by_seqs(
    model: ModelSpec, gpu: GpuSpec, tp: int, share: dict[str, float]
) -> Callable[[int], float]:
    """Return the seconds of a step that depend on its sequences, as a function."""
    padded = padded_vocab(model)
    head = gemm(Matrix("head", "lm_head", -(-padded // tp), model.hidden_size, 1), model, gpu)
    fixed_s, seq_s = 0.0, share["host_per_seq_s"]
    if tp > 1:
        link_bytes_per_s = gpu.link_bytes_per_s * share["link_efficiency"]
        fixed_s = share["collective_latency_s"]
        seq_s += (tp - 1) / tp * padded * ACTIVATION_BYTES / link_bytes_per_s

    def seconds(seqs: int) -> float:
        return head(seqs) + fixed_s + seqs * seq_s

    return seconds
