"""Waterfalls of some requests: of one by its id, or the mean of those around a percentile.

The mean over a band sums to the mean latency of the band, as each waterfall sums to its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from simserve.errors import InputError, known_names
from simserve.records.clock import PS_PER_S
from simserve.records.requests import IntArray, RequestTable
from simserve.results.samples import FloatArray
from simserve.results.waterfall import COMPONENTS, Waterfalls

WATERFALL_METRICS = ("ttft", "tpot", "e2el")
"""The latencies that a waterfall explains."""

MEDIAN_BAND, TAIL_BAND, ALL = (49.0, 51.0), (95.0, 100.0), (0.0, 100.0)
# On both sides of the percentile that is asked for.
_HALF_BAND = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """The mean waterfall of the requests between two percentiles of a latency, in seconds.

    ``low`` and ``high`` are percentiles, None where one request was picked by its id.
    """

    name: str
    low: float | None
    high: float | None
    requests: int
    parts_s: dict[str, float]

    @property
    def latency_s(self) -> float:
        """The mean latency: the sum of the parts."""
        return math.fsum(self.parts_s.values())

    def share(self, part: str) -> float:
        """Return the share of a part in the latency; 0 of no latency."""
        return self.parts_s[part] / self.latency_s if self.latency_s else 0.0

    @property
    def ranked(self) -> list[str]:
        """The parts that are there, the largest first."""
        there = [name for name in COMPONENTS if self.parts_s[name] > 0]
        return sorted(there, key=lambda name: -self.parts_s[name])


def parts_s_of(found: Waterfalls, metric: str) -> tuple[IntArray, FloatArray]:
    """Return the numbers of the requests that have ``metric``, and its parts in seconds.

    ``float64[n, len(COMPONENTS)]``; of TPOT, the parts per token after the first.
    """
    if metric == "ttft":
        return found.request, found.until_first_ps / PS_PER_S
    if metric == "e2el":
        return found.request, (found.until_first_ps + found.after_first_ps) / PS_PER_S
    several = found.further_tokens > 0
    per_token = found.after_first_ps[several] / found.further_tokens[several, None]
    return found.request[several], per_token / PS_PER_S


def bands(found: Waterfalls, metric: str, percentile: float) -> list[Band]:
    """Return the bands that are shown: all, the median, the slowest, and that of ``percentile``.

    Empty if no request has the metric.
    """
    _, parts_s = parts_s_of(found, metric)
    asked = (max(percentile - _HALF_BAND, 0.0), min(percentile + _HALF_BAND, 100.0))
    order = _by_latency(parts_s)
    ranges = dict.fromkeys((ALL, MEDIAN_BAND, TAIL_BAND, asked))
    return [_band(parts_s, order, *one) for one in ranges if len(order)]


def requests_of(found: Waterfalls, metric: str, band: Band) -> IntArray:
    """Return the numbers of the requests of one of the ``bands``: ``int64[band.requests]``."""
    who, parts_s = parts_s_of(found, metric)
    order = _by_latency(parts_s)
    return np.asarray(who[order[_places(len(order), band.low or 0.0, band.high or 0.0)]])


def of_request(found: Waterfalls, requests: RequestTable, name: str, metric: str) -> Band:
    """Return the waterfall of the request that is called ``name``.

    Raises:
        InputError: if there is none of that name, or it has no such latency.
    """
    names = [requests.id_of(one) for one in range(len(requests))]
    if name not in names:
        raise InputError("--request", None, name, known_names(name, names))
    number, (who, parts_s) = names.index(name), parts_s_of(found, metric)
    if number not in who:
        allowed = f"a request that finished and has a {metric}"
        raise InputError("--request", None, name, allowed)
    row = parts_s[np.searchsorted(who, number)]
    parts = dict(zip(COMPONENTS, row.tolist(), strict=True))
    return Band(name=name, low=None, high=None, requests=1, parts_s=parts)


def _by_latency(parts_s: FloatArray) -> IntArray:
    return np.argsort(parts_s.sum(axis=1), kind="stable")


def _places(count: int, low: float, high: float) -> slice:
    first = min(math.floor(count * low / 100), count - 1)
    return slice(first, max(math.ceil(count * high / 100), first + 1))


def _band(parts_s: FloatArray, order: IntArray, low: float, high: float) -> Band:
    there = order[_places(len(order), low, high)]
    mean_s = parts_s[there].mean(axis=0)
    name = "all" if (low, high) == ALL else f"p{low:g}-p{high:g}"
    return Band(
        name=name,
        low=low,
        high=high,
        requests=len(there),
        parts_s=dict(zip(COMPONENTS, mean_s.tolist(), strict=True)),
    )
