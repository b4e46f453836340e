"""Attention of mixed steps: decodes and a prefill chunk in one call, from ``attn_mixed``.

A surface over the new tokens and the past of the chunk, the number of decodes and their mean
context. It is cleaned like every table: monotone along all four, no shorter than the datasheet
allows, holes between rows interpolated. Between rows time is linear in the raw sizes, its
square root in the new tokens. Pure calls are another regime: a kernel may split the KV of
decodes only where no chunk is in the call (FlashAttention-2's mha_varlen_fwd), so that a mixed
call can take several times as long as its parts one after the other.

Beyond the last rows: each decode, and each context token, costs what it does on average in the
last row, beside the smallest chunk; a chunk adds what the limit adds, at the
utilisation of the largest chunk beside the shortest decodes. Before the first row its time is
held.
"""

from __future__ import annotations

import functools
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from simserve.inputs.model_shape import AttentionGroup
from simserve.latency.tables.answers import EXACT, EXTRAP, INTERP, TRANSFER, worse
from simserve.latency.tables.attention_rows import (
    SPLIT,
    UNSPLIT,
    fitting_rows,
    unsplit_from,
)
from simserve.latency.tables.curve import LEAST_UTILISATION, is_raised
from simserve.latency.tables.holes import fill_between, fill_beyond
from simserve.latency.tables.isotonic import Floats, isotonic_grid
from simserve.latency.tables.limits import AttentionLimit
from simserve.latency.tables.selection import Setting

Point = tuple[int, int, int, int]
"""Decodes, their context, the past of the chunk, its new tokens: the axes of a surface."""
_AXES = ("n_dec", "ctx", "past", "q")
_NEW = 3


@dataclass(frozen=True, slots=True)
class Surface:
    """The seconds of one layer, ``float64[decodes, contexts, pasts, news]``, of one regime."""

    axes: tuple[tuple[int, ...], ...]
    times: Floats
    sources: npt.NDArray[np.str_]
    raised: int


def build_surface(points: Mapping[Point, float], limit: AttentionLimit) -> Surface:
    """Return the surface of ``points`` → seconds, cleaned and made whole."""
    axes = tuple(tuple(sorted({point[axis] for point in points})) for axis in range(len(_AXES)))
    places = [{size: index for index, size in enumerate(sizes)} for sizes in axes]
    raw = np.full([len(sizes) for sizes in axes], np.nan)
    for point, seconds in points.items():
        raw[tuple(at[size] for at, size in zip(places, point, strict=True))] = seconds
    limits = _limits(axes, limit)
    fitted = isotonic_grid(raw)
    clean = np.maximum(fitted, limits)  # NaN stays NaN
    inner = fill_between(clean, limits, axes, _NEW)
    measured = ~np.isnan(raw)
    pairs = zip(fitted[measured].tolist(), clean[measured].tolist(), strict=True)
    return Surface(
        axes,
        fill_beyond(inner, limits),
        np.where(np.isnan(inner), EXTRAP, np.where(measured, EXACT, INTERP)),
        sum(is_raised(before, after) for before, after in pairs),
    )


def _limits(axes: Sequence[Sequence[int]], limit: AttentionLimit) -> Floats:
    decodes, contexts, pasts, news = np.meshgrid(*axes, indexing="ij", sparse=True)
    tokens = (decodes * contexts).astype(np.float64)
    compute_s = news * (pasts + 0.5 * (news + 1)) * limit.pair_s + tokens * limit.pair_s
    memory_s = (pasts + news) * limit.kv_read_s + news * limit.query_s + tokens * limit.kv_read_s
    bound: Floats = np.maximum(compute_s, memory_s)
    return bound


@dataclass(frozen=True, slots=True)
class MixedSurfaces:
    """Surfaces by regime for ``layers`` layers; ``source`` is set if other heads lent them."""

    surfaces: Mapping[str, Surface]
    limit: AttentionLimit
    layers: int
    unsplit_from: int | None
    source: str | None

    @property
    def raised(self) -> int:
        """Rows that were quicker than the datasheet allows."""
        return sum(one.raised for one in self.surfaces.values())

    def beside(self, decodes: int) -> ChunkBeside | None:
        """Return the call's time over chunk and context, None if its regime has no rows."""
        surface = self._surface(decodes)
        if surface is None:
            return None
        batches = surface.axes[0]
        above = min(bisect_left(batches, decodes), len(batches) - 1)
        near = [above]
        times = surface.times[above]
        source = EXACT
        if decodes > batches[-1]:
            share = decodes / batches[-1] - 1
            times = times + share * times[:, :1, :1]
            source = EXTRAP
        elif decodes < batches[0]:
            source = EXTRAP
        elif decodes < batches[above]:
            near.append(above - 1)
            share = (decodes - batches[above - 1]) / (batches[above] - batches[above - 1])
            low = surface.times[above - 1]
            times = low + (times - low) * share
            source = INTERP
        return ChunkBeside(decodes, surface, times * self.layers, near, self.source or source, self)

    def _surface(self, decodes: int) -> Surface | None:
        if self.unsplit_from is None:
            return next(iter(self.surfaces.values()))
        return self.surfaces.get(SPLIT if decodes < self.unsplit_from else UNSPLIT)


class ChunkBeside:
    """One call's attention in all layers, of one chunk beside a fixed number of decodes."""

    __slots__ = (
        "_chunk_used",
        "_context_s",
        "_contexts",
        "_decodes",
        "_last",
        "_limit_layers",
        "_near",
        "_news",
        "_owner",
        "_pasts",
        "_planes",
        "_source",
        "_spans",
        "_surface",
    )

    def __init__(
        self,
        decodes: int,
        surface: Surface,
        times: Floats,
        near: list[int],
        source: str,
        owner: MixedSurfaces,
    ) -> None:
        self._decodes, self._surface, self._near = decodes, surface, near
        self._source, self._owner = source, owner
        _, contexts, pasts, news = surface.axes
        self._last = contexts[-1], pasts[-1], news[-1]
        limit, layers = owner.limit, owner.layers
        least_s = layers * decodes * limit.context_s
        per_token_s = float(times[-1, 0, 0]) / contexts[-1]
        self._context_s = min(max(per_token_s, least_s), least_s / LEAST_UTILISATION)
        chunk_s = layers * limit.chunk_s(news[-1], pasts[-1])
        self._chunk_used = min(1.0, max(LEAST_UTILISATION, chunk_s / float(times[0, -1, -1])))
        # A single knot is doubled, so that every size lies in a cell.
        sizes = [[*one, one[-1] + 1] if len(one) == 1 else list(one) for one in surface.axes[1:]]
        more = [(0, 1 if len(one) == 1 else 0) for one in surface.axes[1:]]
        self._contexts, self._pasts, self._news = sizes
        self._spans = [[1 / (b - a) for a, b in pairwise(one)] for one in sizes]
        # planes[context][past][new]: the square roots of seconds.
        self._planes: list[list[list[float]]] = np.sqrt(np.pad(times, more, mode="edge")).tolist()

    def seconds(self, context: float, new: float, past: float) -> float:
        """Return the seconds with ``new`` tokens on ``past``; ``context`` is the decodes' mean."""
        contexts, pasts, news = self._contexts, self._pasts, self._news
        last = self._last
        if context > last[0] or past > last[1] or new > last[2]:
            return self._beyond(context, new, past)
        of_context, of_past, of_new = self._spans
        i = bisect_right(news, new, 1, len(of_new)) - 1
        j = bisect_right(pasts, past, 1, len(of_past)) - 1
        k = bisect_right(contexts, context, 1, len(of_context)) - 1
        share = (new - news[i]) * of_new[i] if new > news[i] else 0.0
        plane = self._planes[k]
        row = plane[j]
        root = row[i]
        root += (row[i + 1] - root) * share
        low = root * root
        row = plane[j + 1]
        root = row[i]
        root += (row[i + 1] - root) * share
        on_past = (past - pasts[j]) * of_past[j] if past > pasts[j] else 0.0
        low += (root * root - low) * on_past
        if context <= contexts[k]:
            return low
        plane = self._planes[k + 1]
        row = plane[j]
        root = row[i]
        root += (row[i + 1] - root) * share
        high = root * root
        row = plane[j + 1]
        root = row[i]
        root += (row[i + 1] - root) * share
        high += (root * root - high) * on_past
        return low + (high - low) * ((context - contexts[k]) * of_context[k])

    def source(self, context: float, new: float, past: float) -> str:
        """Return where the seconds come from."""
        if self._source == TRANSFER:
            return TRANSFER
        cell: list[list[int]] = [self._near]
        for size, knots in zip((context, past, new), self._surface.axes[1:], strict=True):
            if not knots[0] <= size <= knots[-1]:
                return EXTRAP
            below = bisect_right(knots, size) - 1
            cell.append([below] if knots[below] == size else [below, below + 1])
        corners = self._surface.sources[np.ix_(*cell)].ravel().tolist()
        between = EXACT if len(corners) == 1 else INTERP
        return functools.reduce(worse, corners, worse(self._source, between))

    def _beyond(self, context: float, new: float, past: float) -> float:
        edge = min(context, self._last[0]), min(new, self._last[2]), min(past, self._last[1])
        limit = self._owner.limit
        shares = zip(limit.chunk_shares_s(new, past), limit.chunk_shares_s(*edge[1:]), strict=True)
        added_s = self._owner.layers * max(one - other for one, other in shares) / self._chunk_used
        return self.seconds(*edge) + added_s + (context - edge[0]) * self._context_s


def measured_mixed(setting: Setting, group: AttentionGroup) -> MixedSurfaces | None:
    """Return what ``attn_mixed`` has for ``group``, None if it has nothing.

    Raises:
        InputError: if the table has not the group's KV dtype, size or number of heads.
    """
    fitting = fitting_rows(setting, "attn_mixed", group)
    if fitting is None or not fitting.rows:
        return None
    limit, lent = fitting.limit, fitting.lent
    by_regime: dict[str, dict[Point, float]] = {}
    for row in fitting.rows:
        point = row.number("n_dec"), row.number("ctx"), row.number("past"), row.number("q")
        seconds = row.seconds
        if lent is not None:  # the same utilisation, at most 1
            seconds = limit.mixed_s(*point) / min(1.0, lent.mixed_s(*point) / seconds)
        by_regime.setdefault(row.text("regime"), {})[point] = seconds
    return MixedSurfaces(
        {regime: build_surface(points, limit) for regime, points in by_regime.items()},
        limit,
        group.layers,
        unsplit_from(setting, fitting.table, set(by_regime), limit.heads),
        TRANSFER if lent is not None else None,
    )
