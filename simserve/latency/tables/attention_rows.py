"""The rows of an attention table that fit a deployment's heads, as grids by regime.

FlashAttention-2 splits the KV of a decode over thread blocks only while
``batch × KV heads < 0.8 · 2 · SMs`` (its ``num_splits_heuristic``); past that one block serves
one head of one request. The batch is the padded one. Times on either side have nothing in
common, so each regime has its own grid, and none is interpolated across.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from simserve.errors import InputError
from simserve.inputs.model_shape import AttentionGroup
from simserve.latency.tables.answers import TRANSFER
from simserve.latency.tables.csv_file import Row, Table
from simserve.latency.tables.curve import MOST_OCTAVES
from simserve.latency.tables.grid import Grid, build_grid
from simserve.latency.tables.lending import heads_apart, lent_points
from simserve.latency.tables.limits import AttentionLimit, Heads
from simserve.latency.tables.profile import HEAD
from simserve.latency.tables.selection import Setting

SPLIT, UNSPLIT = "split", "unsplit"
# FlashAttention-2, csrc/flash_attn/flash_api.cpp, num_splits_heuristic: no split from 0.8 of
# the block slots on, of which there are two per SM.
_FULL_SHARE, _BLOCKS_PER_SM = 0.8, 2
# The names of KV values by their bytes; two bytes are either of the 16-bit formats.
_KV_DTYPES = {1.0: ("fp8",), 4.0: ("fp32",)}
_SIXTEEN_BITS = ("bf16", "fp16")

Points = dict[tuple[float, float], float]
GridOf = Callable[[Points, AttentionLimit], Grid]


@dataclass(frozen=True, slots=True)
class MeasuredAttention:
    """Grids by regime for one layer of ``heads``; ``source`` is set if others lent them.

    ``unsplit_from`` is the smallest padded batch of the regime ``unsplit``, None if the rows
    do not tell regimes apart.
    """

    grids: Mapping[str, Grid]
    limit: AttentionLimit
    unsplit_from: int | None
    source: str | None

    def regime(self, padded_batch: int) -> str:
        """Return the regime of a decode."""
        if self.unsplit_from is None:
            return next(iter(self.grids))
        return SPLIT if padded_batch < self.unsplit_from else UNSPLIT


@dataclass(frozen=True, slots=True)
class FittingRows:
    """Rows of one table, the bound of the heads asked for, and of others that lend theirs."""

    table: Table
    rows: list[Row]
    limit: AttentionLimit
    lent: AttentionLimit | None


def heads_of(setting: Setting, group: AttentionGroup) -> Heads:
    """Return the heads of ``group`` on one GPU."""
    keys = max(1, group.kv_heads // setting.tp)
    return Heads(setting.model.attention_heads // setting.tp, keys, group.head_size)


def measured(
    setting: Setting,
    name: str,
    group: AttentionGroup,
    axes: tuple[str, str],
    grid_of: GridOf,
) -> MeasuredAttention | None:
    """Return what table ``name`` has for ``group``, None for what the roofline must answer.

    Raises:
        InputError: if the table has not the group's KV dtype, size or number of heads.
    """
    fitting = fitting_rows(setting, name, group)
    if fitting is None:
        return None
    by_regime: dict[str, Points] = {}
    for row in fitting.rows:
        point = row.number(axes[0]), row.number(axes[1])
        by_regime.setdefault(row.text("regime"), {})[point] = row.seconds
    limit, lent = fitting.limit, fitting.lent
    threshold = unsplit_from(setting, fitting.table, set(by_regime), limit.heads)
    grids = {}
    for regime, points in by_regime.items():
        own = points if lent is None else lent_points(name, points, lent, limit)
        grids[regime] = grid_of(own, limit)
    return MeasuredAttention(grids, limit, threshold, TRANSFER if lent else None)


def fitting_rows(setting: Setting, name: str, group: AttentionGroup) -> FittingRows | None:
    """Return the rows of table ``name`` that price ``group``, None if there are none.

    Raises:
        InputError: if the table has not the group's KV dtype, size or number of heads.
    """
    table = setting.profile.tables.get(name)
    if table is None:
        return None
    window = group.window or 0
    if not any(row.keys["window"] == window for row in table.rows):
        return None
    kv_bytes = setting.model.kv_bytes_per_value
    dtypes = _KV_DTYPES.get(kv_bytes, _SIXTEEN_BITS)
    rows = [
        row
        for row in setting.of_dtype(table, "kv_dtype", *dtypes)
        if row.keys["window"] == window and _is_even(row)
    ]
    heads = heads_of(setting, group)
    lender = _lender(setting, table, rows, heads)
    if lender is None:
        return None
    rows = [row for row in rows if _heads(row) == lender]
    rows = setting.of_backend(table, setting.of_queries(rows))
    limit, lent = (AttentionLimit(one, kv_bytes, setting.gpu) for one in (heads, lender))
    return FittingRows(table, rows, limit, lent if lender != heads else None)


def _is_even(row: Row) -> bool:
    """Return whether a row is of one prompt, and of decodes of equal context."""
    keys = row.keys
    return (
        keys.get("shape", "uniform") == "uniform"
        and keys.get("n_req", 1) == 1
        and ("n_dec" not in keys or keys["max_ctx"] in (0, keys["ctx"]))
    )


def _heads(row: Row) -> Heads:
    return Heads(row.number("hq"), row.number("hkv"), row.number("d"))


def _lender(setting: Setting, table: Table, rows: list[Row], heads: Heads) -> Heads | None:
    """Return the measured heads nearest to ``heads``: themselves, if they were measured."""
    known = {_heads(row) for row in rows}
    alike = [one for one in known if one.size == heads.size]
    if not alike:
        setting.nothing(table, "d", heads.size, (one.size for one in known))
        return None
    apart = functools.partial(heads_apart, table.name, heads)
    nearest = min(alike, key=lambda one: (apart(one), one.shape))
    distance = apart(nearest)
    if distance > MOST_OCTAVES and not setting.allow_extrapolation:
        wanted = f"{heads.queries}/{heads.keys}"
        setting.nothing(table, "hq/hkv", wanted, (f"{one.queries}/{one.keys}" for one in alike))
    return nearest


def unsplit_from(setting: Setting, table: Table, regimes: set[str], heads: Heads) -> int | None:
    """Return the smallest padded batch whose KV is not split; None for a single regime."""
    if len(regimes) == 1 and not regimes & {SPLIT, UNSPLIT}:
        return None
    if not regimes <= {SPLIT, UNSPLIT}:
        got = ", ".join(sorted(one or "nothing" for one in regimes))
        raise InputError(table.where, "regime", got, f"{SPLIT} and {UNSPLIT}, or one alone")
    sms = setting.profile.sms
    if sms is None:
        where = str(Path(setting.profile.where) / HEAD)
        allowed = "the multiprocessors: they decide where KV is split"
        raise InputError(where, "device.sms", "nothing", allowed)
    return ceil(_FULL_SHARE * _BLOCKS_PER_SM * sms / heads.keys)


def decode_grid(points: Points, limit: AttentionLimit) -> Grid:
    """Return the grid of a decode table: batches × contexts."""
    return build_grid(points, limit.decode_s)
