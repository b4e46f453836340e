"""Latent attention from ``mla.csv``, for the heads on one GPU: decodes, and prefill chunks.

A decode works on the latent itself, as vLLM's does, so that rows of the absorbed kernel price
it. A longer chunk expands keys and values instead (vllm/v1/attention/backends/mla/common.py):
it is priced from rows of the form ``layer`` alone, what an engine's layer took beside its
matrices. Without them chunks are left to the roofline.
"""

from __future__ import annotations

from collections.abc import Callable

from simserve.inputs.hardware_profile import GpuSpec
from simserve.inputs.model_shape import LatentAttention
from simserve.latency.roofline_gemm import ACTIVATION_BYTES, SIXTEEN_BITS, flops_per_s
from simserve.latency.tables.answers import TRANSFER
from simserve.latency.tables.attention_rows import MeasuredAttention, Points, decode_grid
from simserve.latency.tables.chunk_grids import chunk_grid
from simserve.latency.tables.csv_file import Row
from simserve.latency.tables.curve import MOST_OCTAVES, octaves
from simserve.latency.tables.grid import Grid
from simserve.latency.tables.limits import AttentionLimit, Heads
from simserve.latency.tables.selection import Setting

TABLE = "mla"
_LAYER = "layer"
_MULTIPLY_ADD = 2.0
_KV_DTYPES = {1.0: "fp8"}


class LatentLimit(AttentionLimit):
    """Lower bounds of latent attention of one layer; ``heads`` query heads on one GPU.

    Of decodes with the up-projections absorbed, of chunks with keys and values expanded, those
    of the past anew.
    """

    __slots__ = ("past_s",)

    def __init__(self, heads: int, mla: LatentAttention, kv_bytes: float, gpu: GpuSpec) -> None:
        super().__init__(Heads(heads, 1, mla.cached_values), kv_bytes, gpu)
        rate, bytes_per_s = flops_per_s(gpu, SIXTEEN_BITS), gpu.hbm_bytes_per_s
        self.kv_read_s = mla.cached_values * kv_bytes / bytes_per_s
        absorbed_flops = _MULTIPLY_ADD * heads * (mla.cached_values + mla.kv_rank)
        self.context_s = max(self.kv_read_s, absorbed_flops / rate)
        values = mla.query_size + mla.value_size
        self.pair_s = _MULTIPLY_ADD * heads * values / rate
        self.query_s = heads * values * ACTIVATION_BYTES / bytes_per_s
        expanded = heads * (mla.nope_size + mla.value_size)
        self.past_s = _MULTIPLY_ADD * mla.kv_rank * expanded / rate

    def chunk_shares_s(self, new: float, past: float) -> tuple[float, float]:
        """Return what a chunk computes and what it moves, each as its bound."""
        compute_s, memory_s = super().chunk_shares_s(new, past)
        return compute_s + past * self.past_s, memory_s


def latent_decodes(setting: Setting) -> MeasuredAttention | None:
    """Return the decodes that the table has for the model's heads, None if it has none.

    Raises:
        InputError: if its heads are farther than two octaves, unless extrapolation is allowed.
    """

    def point(row: Row) -> tuple[float, float]:
        return row.number("batch"), row.number("ctx")

    rows = [row for row in _rows(setting, "decode") if row.keys["q"] == 1]
    layers = [row for row in rows if row.keys["form"] == _LAYER]
    return _measured(setting, layers or rows, point, LatentLimit.decode_s, decode_grid)


def latent_chunks(setting: Setting) -> MeasuredAttention | None:
    """Return the prefill chunks that the table has for the model's heads, None if it has none.

    Raises:
        InputError: if its heads are farther than two octaves, unless extrapolation is allowed.
    """

    def point(row: Row) -> tuple[float, float]:
        return row.number("q"), row.number("ctx") - row.number("q")

    rows = [
        row
        for row in _rows(setting, "prefill")
        if row.keys["batch"] == 1 and row.keys["form"] == _LAYER
    ]
    return _measured(setting, rows, point, LatentLimit.chunk_s, chunk_grid)


def _rows(setting: Setting, phase: str) -> list[Row]:
    """Return the rows of a phase whose KV has the model's dtype, or none that is told."""
    table = setting.profile.tables.get(TABLE)
    if table is None or setting.model.indexer is not None:
        return []
    kv_dtype = _KV_DTYPES.get(setting.model.kv_bytes_per_value, "bf16")
    return [
        row
        for row in table.rows
        if row.keys["phase"] == phase and row.keys["kv_dtype"] in ("", kv_dtype)
    ]


def _measured(
    setting: Setting,
    rows: list[Row],
    point: Callable[[Row], tuple[float, float]],
    bound_s: Callable[[LatentLimit, float, float], float],
    grid_of: Callable[[Points, AttentionLimit], Grid],
) -> MeasuredAttention | None:
    """Return the grid of the heads nearest to the model's, at their utilisation if others."""
    mla = setting.model.mla
    by_heads: dict[int, Points] = {}
    for row in rows:
        by_heads.setdefault(row.number("heads"), {})[point(row)] = row.seconds
    if mla is None or not by_heads:
        return None
    heads = setting.model.attention_heads // setting.tp
    nearest = min(by_heads, key=lambda one: (octaves((heads,), (one,)), one))
    if octaves((heads,), (nearest,)) > MOST_OCTAVES and not setting.allow_extrapolation:
        setting.nothing(setting.profile.tables[TABLE], "heads", heads, by_heads)
    kv_bytes = setting.model.kv_bytes_per_value
    limit, lent = (LatentLimit(one, mla, kv_bytes, setting.gpu) for one in (heads, nearest))
    points = by_heads[nearest]
    if nearest != heads:  # the same utilisation, at most 1
        points = {
            at: bound_s(limit, *at) / min(1.0, bound_s(lent, *at) / seconds)
            for at, seconds in points.items()
        }
    source = None if nearest == heads else TRANSFER
    return MeasuredAttention({"": grid_of(points, limit)}, limit, None, source)
