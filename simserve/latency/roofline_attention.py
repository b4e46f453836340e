"""What attention costs in a roofline: per kind of layer, linear in the work, capped by windows.

* Grouped-query attention: a pair of a query and a context token is ``4·heads·head_size`` flops
  (FlashAttention-2, arXiv:2307.08691, section 3.1) and a context token its K and V in bytes.
* Latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1 and appendix C). A decode works
  on the latent itself, with the up-projections absorbed: ``2·heads·(2·kv_rank + rope)`` flops
  a pair, the latent's bytes per context token, on every GPU the whole latent. A prefill
  expands it, as vLLM does (v1/attention/backends/mla/common.py): ``2·heads·(query + value)``
  flops a pair, and ``2·kv_rank·heads·(nope + value)`` for each past token, once per chunk.
* A window caps a token's context at its size. For decodes only the sum of contexts is known:
  ``min(sum, sequences × window)`` is exact for equal contexts, else too much (min is concave).
  Chunked attention is priced as a window: too much by half a chunk on average.
* Sparse attention (DeepSeek-V3.2, arXiv:2512.02556): a window of ``top_k`` for the attention,
  and an indexer that goes through the whole context.
"""

from __future__ import annotations

from typing import NamedTuple

from simserve.inputs.hardware_profile import GpuSpec
from simserve.inputs.model_shape import LatentAttention
from simserve.inputs.model_spec import ModelSpec
from simserve.latency.roofline_gemm import ACTIVATION_BYTES, SIXTEEN_BITS, flops_per_s

# Flops of a multiply-add, and of one pair per value of a head: one in QKᵀ and one in PV.
_MULTIPLY_ADD = 2.0
_ATTENTION_FLOPS = 4.0


class AttentionCost(NamedTuple):
    """The seconds that attention takes in some of the layers.

    Per context token of a decode, per pair of a prefill, per token whose KV a prefill reads,
    per token of a prefill for its queries and outputs, per past token that is expanded.
    """

    window: int | None
    context_s: float
    pair_s: float
    kv_read_s: float
    query_s: float
    past_s: float

    def chunk_s(self, new: float, past: float) -> float:
        """Return the seconds of a prefill chunk of ``new`` tokens on top of ``past``."""
        window = self.window
        if window is None:
            pairs, read = new * (past + 0.5 * (new + 1)), past + new
        else:
            growing = min(max(window - past, 0), new)
            pairs = growing * (past + 0.5 * (growing + 1)) + (new - growing) * window
            past = min(past, window)
            read = past + new
        compute_s = pairs * self.pair_s + past * self.past_s
        memory_s = read * self.kv_read_s + new * self.query_s
        return max(compute_s, memory_s)


def attention_costs(model: ModelSpec, gpu: GpuSpec, tp: int) -> tuple[AttentionCost, ...]:
    """Return the cost of each kind of layer of ``model`` on one of ``tp`` GPUs."""
    rates = _Rates(model, gpu, tp)
    if model.mla is not None:
        return _latent(model, model.mla, rates)
    costs = []
    for group in model.attention_groups:
        query_values = group.layers * rates.heads * group.head_size
        kv_bytes = model.group_bytes_per_token(group, tp)
        pair_s = _ATTENTION_FLOPS * query_values / rates.pair_flops_per_s
        costs.append(rates.cost(group.window, kv_bytes, pair_s, pair_s, 2 * query_values))
    return tuple(costs)


def _latent(model: ModelSpec, mla: LatentAttention, rates: _Rates) -> tuple[AttentionCost, ...]:
    head_layers = model.layers * rates.heads
    decode_flops = _MULTIPLY_ADD * head_layers * (mla.cached_values + mla.kv_rank)
    prefill_flops = _MULTIPLY_ADD * head_layers * (mla.query_size + mla.value_size)
    expand_flops = _MULTIPLY_ADD * head_layers * mla.kv_rank * (mla.nope_size + mla.value_size)
    latent = rates.cost(
        model.indexer.top_k if model.indexer else None,
        model.kv_bytes_per_token(),
        decode_flops / rates.pair_flops_per_s,
        prefill_flops / rates.pair_flops_per_s,
        head_layers * (mla.query_size + mla.value_size),
    )._replace(past_s=expand_flops / rates.gemm_flops_per_s)
    if model.indexer is None:
        return (latent,)
    queries = model.layers * model.indexer.heads * model.indexer.head_size
    pair_s = _MULTIPLY_ADD * queries / rates.pair_flops_per_s
    indexer = rates.cost(None, model.index_bytes_per_token, pair_s, pair_s, queries)
    return latent, indexer


class _Rates:
    """The rates that the kernels of attention reach on one GPU."""

    def __init__(self, model: ModelSpec, gpu: GpuSpec, tp: int) -> None:
        share = {name: sourced.value for name, sourced in gpu.efficiency.items()}
        peak = flops_per_s(gpu, SIXTEEN_BITS)
        self.heads = model.attention_heads // tp
        self.pair_flops_per_s = peak * share["attention_prefill_efficiency"]
        self.gemm_flops_per_s = peak * share["gemm_efficiency"]
        self.bytes_per_s = gpu.hbm_bytes_per_s * share["hbm_efficiency"]
        self.decode_bytes_per_s = gpu.hbm_bytes_per_s * share["attention_decode_efficiency"]

    def cost(
        self,
        window: int | None,
        kv_bytes: float,
        decode_pair_s: float,
        pair_s: float,
        query_values: float,
    ) -> AttentionCost:
        """Return the cost of layers that keep ``kv_bytes`` per token.

        A decode's flops, one pair per context token, weigh only where many heads share
        little KV; its kernel reaches its own share of the bandwidth.
        """
        return AttentionCost(
            window=window,
            context_s=max(kv_bytes / self.decode_bytes_per_s, decode_pair_s),
            pair_s=pair_s,
            kv_read_s=kv_bytes / self.bytes_per_s,
            query_s=query_values * ACTIVATION_BYTES / self.bytes_per_s,
            past_s=0.0,
        )
