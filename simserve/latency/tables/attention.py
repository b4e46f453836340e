"""Attention of a step: decodes as lines in their summed context, prefill chunks from a surface.

A batch of ``n`` decodes is priced at its mean context: exact for kernels that balance their
load (FlashAttention-3). What uneven batches cost beyond that stands in ``waves``.

What no table covers (latent, sparse, or windowed attention without rows) has the roofline's
cost, group by group.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from simserve.latency.roofline_attention import AttentionCost, attention_costs
from simserve.latency.tables.answers import (
    EXACT,
    EXTRAP,
    INTERP,
    ROOFLINE,
    Answer,
    worse,
)
from simserve.latency.tables.attention_rows import (
    SPLIT,
    UNSPLIT,
    MeasuredAttention,
    decode_grid,
    measured,
)
from simserve.latency.tables.between_batches import at_equal_sums
from simserve.latency.tables.chunk_grids import chunk_grid
from simserve.latency.tables.curve import LEAST_UTILISATION
from simserve.latency.tables.grid import Grid
from simserve.latency.tables.latent import latent_chunks, latent_decodes
from simserve.latency.tables.limits import Heads
from simserve.latency.tables.lines import Lines, through
from simserve.latency.tables.mixed import MixedSurfaces, measured_mixed
from simserve.latency.tables.selection import Setting


class DecodeAttention(Protocol):
    """The decodes of a step in some of the layers."""

    def decode_lines(self, batch: int, padded_batch: int) -> Lines:
        """Return the seconds over the summed context."""
        ...


class ChunkAttention(Protocol):
    """The prefill chunks of a step in some of the layers."""

    def seconds(self, new: float, past: float) -> float:
        """Return the seconds of a chunk of ``new`` tokens on top of ``past``."""
        ...

    def answer(self, new: int, past: int) -> Answer:
        """Return the same with its source."""
        ...


class Attention(NamedTuple):
    """The attention of all layers, by groups of layers that are alike.

    ``mixed`` has None for groups whose mixed steps are composed of their parts. ``missing``
    names, in words, what the roofline answers; ``raised`` counts, by table, the rows that were
    quicker than the datasheet allows.
    """

    decodes: list[DecodeAttention]
    chunks: list[ChunkAttention]
    mixed: list[MixedSurfaces | None]
    missing: list[str]
    raised: dict[str, int]


def attention(setting: Setting) -> Attention:
    """Return the attention of the setting's model."""
    model = setting.model
    costs = attention_costs(model, setting.gpu, setting.tp)
    if model.mla is not None:
        return _latent(setting, costs)
    decodes: list[DecodeAttention] = []
    chunks: list[ChunkAttention] = []
    surfaces: list[MixedSurfaces | None] = []
    missing: list[str] = []
    raised = {"attn_decode": 0, "attn_prefill": 0, "attn_mixed": 0}
    for group, cost in zip(model.attention_groups, costs, strict=True):
        seen = f" with a window of {group.window}" if group.window else ""
        decode = measured(setting, "attn_decode", group, ("batch", "ctx"), decode_grid)
        if decode is None:
            decodes.append(RooflineAttention(cost))
            missing.append(f"decode attention{seen}")
        else:
            decodes.append(TabledDecodes(decode, group.layers, cost))
            raised["attn_decode"] += sum(grid.raised for grid in decode.grids.values())
        prefill = measured(setting, "attn_prefill", group, ("q", "past"), chunk_grid)
        if prefill is None:
            chunks.append(RooflineAttention(cost))
            missing.append(f"prefill attention{seen}")
        else:
            chunks.append(TabledChunks(prefill, group.layers))
            raised["attn_prefill"] += sum(grid.raised for grid in prefill.grids.values())
        mixed = measured_mixed(setting, group)
        surfaces.append(mixed)
        if mixed is not None:
            raised["attn_mixed"] += mixed.raised
        elif decode is not None or prefill is not None:
            share = setting.profile.mixed_added_frac
            shorter = "the shorter" if share == 1 else f"{share:g} of the shorter"
            missing.append(f"attention of mixed steps{seen} (the longer part and {shorter})")
    return Attention(decodes, chunks, surfaces, missing, raised)


def _latent(setting: Setting, costs: Sequence[AttentionCost]) -> Attention:
    """Return latent attention: from ``mla`` what it has, else the roofline's."""
    rooflines = [RooflineAttention(cost) for cost in costs]
    nothing = [None] * len(costs)
    of_decodes, of_chunks = latent_decodes(setting), latent_chunks(setting)
    tables = [one for one in (of_decodes, of_chunks) if one is not None]
    if not tables:
        return Attention([*rooflines], [*rooflines], [*nothing], ["latent attention"], {})
    layers, missing = setting.model.layers, []
    decodes: list[DecodeAttention] = [*rooflines]
    chunks: list[ChunkAttention] = [*rooflines]
    if of_decodes is None:
        missing.append("decode attention")
    else:
        decodes = [TabledDecodes(of_decodes, layers, costs[0])]
    if of_chunks is None:
        missing.append("prefill attention")
    else:
        chunks = [TabledChunks(of_chunks, layers)]
    missing.append("attention of mixed steps (the longer part and the shorter)")
    raised = {"mla": sum(grid.raised for table in tables for grid in table.grids.values())}
    return Attention(decodes, chunks, [*nothing], missing, raised)


class RooflineAttention:
    """The roofline's cost of some layers, as both protocols ask for it."""

    __slots__ = ("_cost", "seconds")

    def __init__(self, cost: AttentionCost) -> None:
        self._cost = cost
        self.seconds = cost.chunk_s

    def answer(self, new: int, past: int) -> Answer:
        """Return the roofline's cost of a chunk."""
        return Answer(self._cost.chunk_s(new, past), ROOFLINE)

    def decode_lines(self, batch: int, padded_batch: int) -> Lines:
        """Return one line, which ends where all windows are full."""
        slope, window = self._cost.context_s, self._cost.window
        if window is None:
            return Lines((0.0,), (0.0,), (slope,), (ROOFLINE,))
        full = float(batch * window)
        return Lines((0.0, full), (0.0, full * slope), (slope, 0.0), (ROOFLINE, ROOFLINE))


class TabledDecodes:
    """Decodes from ``attn_decode``: linear between contexts, and between batches.

    Between batches at the same summed context (``between_batches``); where one thread block
    goes through all of a request's KV at the same context, for there the rounds count.
    """

    __slots__ = ("_cost", "_layers", "_table")

    def __init__(self, table: MeasuredAttention, layers: int, cost: AttentionCost) -> None:
        self._table, self._layers, self._cost = table, layers, cost

    @property
    def heads(self) -> Heads:
        """The heads on one GPU."""
        return self._table.limit.heads

    def is_unsplit(self, padded_batch: int) -> bool:
        """Return whether one thread block goes through all of a request's KV, for each head."""
        regime = self._table.regime(padded_batch)
        return regime in self._table.grids and regime != SPLIT

    def knots(self, batch: int, padded_batch: int) -> tuple[tuple[float, float], ...]:
        """Return the batches whose contexts a batch is priced at, and their weights.

        Measured ones where it is priced at its own contexts; else it is its own measure.
        """
        regime = self._table.regime(padded_batch)
        if regime != UNSPLIT:
            return ((batch, 1.0),)
        grid = self._table.grids[regime]
        return tuple((grid.rows[row], share) for row, share in _around(grid.rows, batch))

    def decode_lines(self, batch: int, padded_batch: int) -> Lines:
        """Return the seconds over the summed context of ``batch`` decodes.

        The rule of regimes takes the padded batch, for which the kernel was launched; a
        regime without rows is left to the roofline.
        """
        grid = self._table.grids.get(self._table.regime(padded_batch))
        if grid is None:
            return RooflineAttention(self._cost).decode_lines(batch, padded_batch)
        shares = _around(grid.rows, batch)
        rows = [(self._row(grid, row), share) for row, share in shares]
        ends = [end for (_, end, _), _ in rows]
        if len(shares) == 2 and self._table.regime(padded_batch) != UNSPLIT:
            sizes = [grid.rows[row] for row, _ in shares]
            small, large = zip(sizes, (line for (line, _, _), _ in rows), strict=True)
            sums, seconds, slope = at_equal_sums(batch, small, large)
            until = min(end * size for end, size in zip(ends, sizes, strict=True))
        else:
            contexts = sorted({context for (line, _, _), _ in rows for context in line.starts[1:]})
            sums = [batch * context for context in contexts]
            seconds = [
                sum(share * line.seconds(context) for (line, _, _), share in rows)
                for context in contexts
            ]
            slope = sum(share * line.slopes[-1] for (line, _, _), share in rows) / batch
            until = batch * min(ends)
        on_row = len(shares) == 1 and shares[0][1] == 1 and self._table.source is None
        own = grid.rows[0] <= batch <= grid.rows[-1]
        sources = [EXTRAP]
        sources += [INTERP if own and tokens < until else EXTRAP for tokens in sums[:-1]]
        sources.append(EXTRAP)
        if self._table.source is not None:
            sources = [self._table.source] * len(sources)
        exact = rows[0][0][2] if on_row else ()
        return through(
            sums,
            [self._layers * one for one in seconds],
            self._layers * slope,
            sources,
            frozenset(batch * context for context in exact),
        )

    def _row(self, grid: Grid, row: int) -> tuple[Lines, float, list[float]]:
        """Return one batch over its context, where its rows end, and its own contexts."""
        contexts: list[float] = list(grid.columns)
        times = list(grid.times[row])
        slope = times[-1] / contexts[-1]
        bound_s = self._table.limit.decode_s(grid.rows[row], 1)
        if bound_s < LEAST_UTILISATION * slope:
            slope = bound_s / LEAST_UTILISATION
            contexts.append(times[-1] / slope)
            times.append(times[-1])
        cells = list(zip(grid.columns, grid.sources[row], strict=True))
        own = [context for context, source in cells if source == EXACT]
        inside = [context for context, source in cells if source != EXTRAP]
        lines = through(contexts, times, slope, [""] * (len(contexts) + 1))
        return lines, inside[-1] if inside else 0, own


class TabledChunks:
    """Chunks from ``attn_prefill``: √time linear in the new tokens, time linear in the past.

    The square root because attention grows with the square of a prompt: it errs by 3.2 %
    where interpolation of the time errs by 6.0 % (AIConfigurator, interpolation design).
    """

    __slots__ = ("_grid", "_layers", "_limit", "_news", "_pasts", "_roots", "_source", "_tail")

    def __init__(self, table: MeasuredAttention, layers: int) -> None:
        grid = self._grid = next(iter(table.grids.values()))
        self._layers, self._limit, self._source = layers, table.limit, table.source
        self._news, self._pasts = grid.rows, grid.columns
        # roots[past][new]: the square roots of all layers' seconds.
        self._roots: list[list[float]] = [
            [(layers * grid.times[i][j]) ** 0.5 for i in range(len(self._news))]
            for j in range(len(self._pasts))
        ]
        corner_s = layers * self._limit.chunk_s(self._news[-1], self._pasts[-1])
        self._tail = min(1.0, max(LEAST_UTILISATION, corner_s / self._roots[-1][-1] ** 2))

    def seconds(self, new: float, past: float) -> float:
        """Return the seconds of a chunk of ``new`` tokens on top of ``past``."""
        news, pasts, roots = self._news, self._pasts, self._roots
        if new > news[-1] or past > pasts[-1]:
            return self._beyond(new, past)
        new = max(new, news[0])
        past = max(past, pasts[0])
        i, j = bisect_right(news, new) - 1, bisect_right(pasts, past) - 1
        row, start = roots[j], news[i]
        root = row[i]
        if new == start:
            low = root * root
            if past != pasts[j]:
                root = roots[j + 1][i]
        else:
            share = (new - start) / (news[i + 1] - start)
            root += (row[i + 1] - root) * share
            low = root * root
            if past != pasts[j]:
                row = roots[j + 1]
                root = row[i] + (row[i + 1] - row[i]) * share
        if past != pasts[j]:
            low += (root * root - low) * ((past - pasts[j]) / (pasts[j + 1] - pasts[j]))
        limit = self._limit
        compute_s = new * (past + 0.5 * (new + 1)) * limit.pair_s
        memory_s = (past + new) * limit.kv_read_s + new * limit.query_s
        bound_s = self._layers * (compute_s if compute_s > memory_s else memory_s)
        return low if low > bound_s else bound_s

    def answer(self, new: int, past: int) -> Answer:
        """Return the seconds of a chunk and their source."""
        return Answer(self.seconds(new, past), self._source or self._cell(new, past))

    def _cell(self, new: int, past: int) -> str:
        news, pasts, sources = self._news, self._pasts, self._grid.sources
        if not (news[0] <= new <= news[-1] and pasts[0] <= past <= pasts[-1]):
            return EXTRAP
        i, j = bisect_right(news, new) - 1, bisect_right(pasts, past) - 1
        corners = [
            sources[a][b]
            for a in ((i,) if new == news[i] else (i, i + 1))
            for b in ((j,) if past == pasts[j] else (j, j + 1))
        ]
        if len(corners) > 1:
            corners.append(INTERP)
        return functools.reduce(worse, corners)

    def _beyond(self, new: float, past: float) -> float:
        """Return the edge's seconds and what the limit adds beyond it, at the last utilisation."""
        edge = min(new, self._news[-1]), min(past, self._pasts[-1])
        added_s = self._limit.chunk_s(new, past) - self._limit.chunk_s(*edge)
        return self.seconds(*edge) + self._layers * added_s / self._tail


def _around(sizes: Sequence[float], size: int) -> list[tuple[int, float]]:
    """Return the rows around ``size`` and their weights; beyond the last, in proportion."""
    if size <= sizes[0]:
        return [(0, 1.0)]
    if size >= sizes[-1]:
        return [(len(sizes) - 1, size / sizes[-1])]
    above = bisect_right(sizes, size)
    share = (size - sizes[above - 1]) / (sizes[above] - sizes[above - 1])
    if not share:
        return [(above - 1, 1.0)]
    return [(above - 1, 1 - share), (above, share)]
