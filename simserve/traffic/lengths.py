"""How many tokens a prompt or an output has: fixed, lognormal by two quantiles, or a histogram."""

from __future__ import annotations

import math

import numpy as np

from simserve.inputs.workload import HistogramSpec, LengthSpec
from simserve.records.requests import IntArray
from simserve.traffic.limits import MOST_TOKENS, check_count

# The 95 % quantile of the standard normal distribution.
Z95 = 1.6448536269514722


def draw_lengths(which: str, spec: LengthSpec, count: int, rng: np.random.Generator) -> IntArray:
    """Return ``count`` lengths in whole tokens, each at least 1: ``int64[count]``.

    Lognormal lengths have the quantiles asked for: ``mu = ln(median)`` and
    ``sigma = ln(p95 / median) / z95``, where z95 is the 95 % quantile of a normal variable.
    They are rounded, and then **clipped**: a length below ``min`` (1 if not given) becomes
    ``min``, one above ``max`` becomes ``max``, so lengths pile up at the bounds. Clipping
    rather than drawing again keeps the median and p95 as asked wherever the bounds lie outside
    of them, and a bound changes only the requests that it touches. The mean is that of the
    clipped lengths. Every length takes one draw, so a longer list begins with the shorter one.

    Raises:
        InputError: if a length is more than anybody can count; ``which`` names the lengths.
    """
    for key in ("fixed", "min", "max"):
        check_count(f"{which}.{key}", getattr(spec, key), MOST_TOKENS)
    lowest, highest = spec.min or 1, spec.max or MOST_TOKENS
    if spec.histogram is not None:
        drawn = _from_histogram(which, spec.histogram, count, rng)
        return np.asarray(np.clip(drawn, lowest, highest))
    if spec.median is None or spec.p95 is None:
        return np.full(count, spec.fixed, dtype=np.int64)
    mu = math.log(spec.median)
    sigma = (math.log(spec.p95) - mu) / Z95
    logs = mu + sigma * rng.standard_normal(count)
    # Bounded before exp as well, which would overflow for absurd ratios of p95 to median.
    np.minimum(logs, math.log(MOST_TOKENS), out=logs)
    return np.clip(np.rint(np.exp(logs)), lowest, highest).astype(np.int64)


def _from_histogram(
    which: str, spec: HistogramSpec, count: int, rng: np.random.Generator
) -> IntArray:
    """Return lengths by the inverse of the distribution function, which is linear in a bucket."""
    check_count(f"{which}.histogram.upto", spec.upto[-1], MOST_TOKENS)
    edges = np.array((spec.above, *spec.upto), dtype=np.float64)
    weights = np.array(spec.weights)
    share = np.concatenate(([0.0], np.cumsum(weights / weights.max())))
    place = rng.random(count) * share[-1]
    bucket = np.searchsorted(share, place, side="right") - 1
    bucket = np.minimum(bucket, np.flatnonzero(weights)[-1])
    within = (place - share[bucket]) / (share[bucket + 1] - share[bucket])
    lengths = edges[bucket] + within * (edges[bucket + 1] - edges[bucket])
    # Above the lower end, at most the upper: each whole length has the same room.
    return np.asarray(np.minimum(np.floor(lengths) + 1, edges[bucket + 1]), dtype=np.int64)
