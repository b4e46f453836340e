"""Long series made small without hiding anything: a band from lowest to highest, per column.

A figure is a few hundred columns wide, a run has millions of steps. Each column shows the lowest,
the highest and the mean over time of what it stands for; a distribution is shown at quantiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simserve.results.samples import FloatArray, IntArray, Sample

COLUMNS = 480
"""Columns of a series over time: as many as the figures are pixels wide, on a phone."""
QUANTILES = np.concatenate([np.linspace(0, 99, 199), np.linspace(99, 100, 41)[1:]])
"""Percentiles at which a distribution is drawn, finer in its tail: ``float64[239]``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A step function in columns; column ``i`` spans ``edges[i]`` to ``edges[i + 1]``."""

    edges: FloatArray  # [columns + 1]
    low: FloatArray  # [columns]
    high: FloatArray
    mean: FloatArray  # over time


def band(
    times: FloatArray, values: FloatArray, begin: float, end: float, columns: int = COLUMNS
) -> Band:
    """Return the band of the step function that is ``values[i]`` from ``times[i]`` on.

    It is 0 before the first time; times must not decrease, and ``begin`` lie before ``end``.
    """
    edges = np.linspace(begin, end, columns + 1)
    inside = times[(times > begin) & (times < end)]
    at = np.sort(np.concatenate([edges, inside]), kind="stable")
    place = np.searchsorted(times, at, side="right") - 1
    held = np.where(place >= 0, values[np.maximum(place, 0)], 0.0).astype(np.float64)
    lasting = np.diff(at)
    first = np.searchsorted(at, edges[:-1], side="left")
    held = held[:-1]
    width = np.add.reduceat(lasting, first)
    area = np.add.reduceat(held * lasting, first)
    # What holds for no time at all is not seen: two steps may start at one instant.
    lowest = np.where(lasting > 0, held, np.inf)
    highest = np.where(lasting > 0, held, -np.inf)
    return Band(
        edges=edges,
        low=np.minimum.reduceat(lowest, first),
        high=np.maximum.reduceat(highest, first),
        mean=area / width,
    )


def joined(bands: list[Band]) -> Band:
    """Return one band over several series with the same edges: the mean is that of their means."""
    return Band(
        edges=bands[0].edges,
        low=np.min([one.low for one in bands], axis=0),
        high=np.max([one.high for one in bands], axis=0),
        mean=np.mean([one.mean for one in bands], axis=0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """Percentiles of values in equal stretches of a time axis; empty stretches are left out."""

    middles: FloatArray  # [strips]
    percentiles: dict[float, FloatArray]  # each [strips]
    counts: IntArray


def strip(
    times: FloatArray, values: FloatArray, percentiles: tuple[float, ...], columns: int
) -> Strip:
    """Return percentiles of ``values`` over ``columns`` stretches of the span of ``times``."""
    edges = np.linspace(float(times.min()), float(times.max()), columns + 1)
    place = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, columns - 1)
    order = np.argsort(place, kind="stable")
    bounds = np.searchsorted(place[order], np.arange(columns + 1))
    used = np.flatnonzero(np.diff(bounds))
    rows = np.array(
        [np.percentile(values[order[bounds[i] : bounds[i + 1]]], percentiles) for i in used]
    )
    return Strip(
        middles=(edges[used] + edges[used + 1]) / 2,
        percentiles={q: rows[:, at] for at, q in enumerate(percentiles)},
        counts=np.diff(bounds)[used],
    )


def cdf(sample: Sample) -> tuple[FloatArray, FloatArray]:
    """Return durations in seconds and the share at or below each, at ``QUANTILES``."""
    values_s = [sample.percentile(float(q)) for q in QUANTILES]
    return np.array([value for value in values_s if value is not None]), QUANTILES / 100
