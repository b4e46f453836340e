"""Decodes of latent attention from ``mla.csv``: batches × contexts, for the heads on one GPU.

A decode works on the latent itself, as vLLM's does; rows of the phase ``prefill`` do so too,
where vLLM expands keys and values, so that chunks are left to the roofline.
"""

from __future__ import annotations

from simserve.inputs.hardware_profile import GpuSpec
from simserve.inputs.model_shape import LatentAttention
from simserve.latency.roofline_gemm import SIXTEEN_BITS, flops_per_s
from simserve.latency.tables.answers import TRANSFER
from simserve.latency.tables.attention_rows import MeasuredAttention, Points, decode_grid
from simserve.latency.tables.curve import MOST_OCTAVES, octaves
from simserve.latency.tables.limits import AttentionLimit, Heads
from simserve.latency.tables.selection import Setting

TABLE = "mla"
_MULTIPLY_ADD = 2.0


class LatentLimit(AttentionLimit):
    """Lower bounds of absorbed latent attention of one layer; ``heads`` query heads on one GPU."""

    __slots__ = ()

    def __init__(self, heads: int, mla: LatentAttention, kv_bytes: float, gpu: GpuSpec) -> None:
        super().__init__(Heads(heads, 1, mla.cached_values), kv_bytes, gpu)
        pair_flops = _MULTIPLY_ADD * heads * (mla.cached_values + mla.kv_rank)
        self.pair_s = pair_flops / flops_per_s(gpu, SIXTEEN_BITS)
        self.kv_read_s = mla.cached_values * kv_bytes / gpu.hbm_bytes_per_s
        self.context_s = max(self.kv_read_s, self.pair_s)


def latent_decodes(setting: Setting) -> MeasuredAttention | None:
    """Return the decodes that the table has for the model's heads, None if it has none.

    Raises:
        InputError: if its heads are farther than two octaves, unless extrapolation is allowed.
    """
    table, mla = setting.profile.tables.get(TABLE), setting.model.mla
    if table is None or mla is None or setting.model.indexer is not None:
        return None
    by_heads: dict[int, Points] = {}
    for row in table.rows:
        if row.keys["phase"] == "decode" and row.keys["q"] == 1:
            point = row.number("batch"), row.number("ctx")
            by_heads.setdefault(row.number("heads"), {})[point] = row.seconds
    if not by_heads:
        return None
    heads = setting.model.attention_heads // setting.tp
    nearest = min(by_heads, key=lambda one: (octaves((heads,), (one,)), one))
    if octaves((heads,), (nearest,)) > MOST_OCTAVES and not setting.allow_extrapolation:
        setting.nothing(table, "heads", heads, by_heads)
    kv_bytes = setting.model.kv_bytes_per_value
    limit, lent = (LatentLimit(one, mla, kv_bytes, setting.gpu) for one in (heads, nearest))
    points = by_heads[nearest]
    if nearest != heads:  # the same utilisation, at most 1
        points = {
            point: limit.decode_s(*point) / min(1.0, lent.decode_s(*point) / seconds)
            for point, seconds in points.items()
        }
    source = None if nearest == heads else TRANSFER
    return MeasuredAttention({"": decode_grid(points, limit)}, limit, None, source)
