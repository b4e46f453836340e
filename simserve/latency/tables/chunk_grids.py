"""The grid of a prefill table: new tokens × past, continued far beyond what was measured.

Many tables know only whole prompts, no chunk on top of a past. A chunk then takes the
utilisation of a prompt that is as long as past and chunk together, for its keys and values run
as far. Against layer profiles that have both (RTX 4090, RTX PRO 6000) this errs by 18-20 % in
the median and is right on average, where the utilisation of the chunk without its past errs by
34 %, nearly always too long.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from simserve.latency.tables.answers import EXTRAP
from simserve.latency.tables.attention_rows import Points
from simserve.latency.tables.curve import LEAST_UTILISATION
from simserve.latency.tables.grid import Grid, build_grid
from simserve.latency.tables.limits import AttentionLimit

# Surfaces are continued by doubling to these sizes, longer than any model's context.
_MOST_NEW, _MOST_PAST = 1 << 17, 1 << 21
_LEAST_PAST = 16


def chunk_grid(points: Points, limit: AttentionLimit) -> Grid:
    """Return the grid of a prefill table, new × past tokens, continued by doubling."""
    news, pasts = (max(point[axis] for point in points) for axis in (0, 1))
    more_news, more_pasts = _doubled(news, _MOST_NEW), _doubled(pasts or _LEAST_PAST, _MOST_PAST)
    if pasts:
        return build_grid(points, limit.chunk_s, more_news, more_pasts, root_rows=True)
    prompts = build_grid(points, limit.chunk_s, more_news, root_rows=True)
    return _on_pasts(prompts, limit, [0, _LEAST_PAST, *more_pasts])


def _on_pasts(prompts: Grid, limit: AttentionLimit, pasts: list[float]) -> Grid:
    """Return a grid with ``pasts`` from the times of whole prompts alone."""
    news = np.array(prompts.rows, dtype=np.float64)
    whole = np.array(prompts.times)[:, 0]
    floor_s = whole[0]
    bounds = np.array([[limit.chunk_s(new, past) for past in pasts] for new in news])
    length = np.minimum(news[:, None] + np.array(pasts), news[-1])
    prompt_s = np.interp(length, news, np.sqrt(whole)) ** 2
    prompt_bound_s = np.vectorize(lambda new: limit.chunk_s(new, 0))(length)
    used = np.clip((prompt_bound_s + floor_s) / prompt_s, LEAST_UTILISATION, 1.0)
    times = np.maximum((bounds + floor_s) / used, bounds)
    times[:, 0] = whole
    times = np.maximum.accumulate(np.maximum.accumulate(times, axis=0), axis=1)
    beyond = (EXTRAP,) * (len(pasts) - 1)
    return dataclasses.replace(
        prompts,
        columns=tuple(pasts),
        times=tuple(map(tuple, times.tolist())),
        sources=tuple((one[0], *beyond) for one in prompts.sources),
    )


def _doubled(last: float, most: int) -> list[float]:
    """Return the sizes beyond ``last`` by doubling, the final one at least ``most``."""
    sizes: list[float] = []
    size = last
    while size < most:
        size *= 2
        sizes.append(size)
    return sizes
