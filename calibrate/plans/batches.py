"""Uneven contexts and routed tokens, drawn from a seed: the same in a plan and where it runs."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# Shapes of a batch's contexts, as ``attn_decode.csv`` names them, and how many standard
# deviations of the logarithm a log-normal batch has: chat traces have 0.8-1.5.
UNIFORM, BIMODAL, TRACE = "uniform", "bimodal", "trace"
_TRACE_SIGMA = 1.0
# A bimodal batch: this share of long contexts, and how much longer they are.
_LONG_FRAC, _LONG_TIMES = 0.125, 16.0

BALANCED, DRAWN, SKEWED = "balanced", "uniform", "zipf"
ROUTINGS = (BALANCED, DRAWN, SKEWED)
"""Every expert gets as many tokens; each token draws experts alike; some are drawn more."""
# Exponent of the skewed draw: of 128 experts the busiest then gets some 4 times its share.
_ZIPF = 0.4


def uneven_contexts(shape: str, batch: int, mean_tokens: int, seed: int) -> list[int]:
    """Return ``batch`` contexts of about ``mean_tokens`` on average, in random order."""
    stream = np.random.default_rng([seed, batch, mean_tokens])
    if shape == UNIFORM:
        return [mean_tokens] * batch
    if shape == BIMODAL:
        long = np.arange(batch) < max(1, round(_LONG_FRAC * batch))
        weights = np.where(long, _LONG_TIMES, 1.0)
    else:
        weights = stream.lognormal(0.0, _TRACE_SIGMA, batch)
    contexts = np.maximum(1, np.rint(weights / weights.mean() * mean_tokens)).astype(int)
    return [int(one) for one in stream.permutation(contexts)]


def variation(contexts: Sequence[int]) -> float:
    """Return the standard deviation of contexts over their mean."""
    return float(np.std(contexts) / np.mean(contexts))


def routed(
    routing: str, tokens: int, experts: int, per_token: int, seed: int
) -> npt.NDArray[np.int64]:
    """Return the different experts of each token, ``int64[tokens, per_token]``."""
    stream = np.random.default_rng([seed, tokens, experts, per_token])
    if routing == BALANCED:
        return np.arange(tokens * per_token).reshape(tokens, per_token) % experts
    odds = np.ones(experts)
    if routing == SKEWED:
        odds = stream.permutation(1.0 / np.arange(1, experts + 1) ** _ZIPF)
    # The largest of Gumbel noise plus log odds are a draw without replacement.
    noise = stream.gumbel(size=(tokens, experts)) + np.log(odds)
    return np.argpartition(-noise, per_token - 1, axis=1)[:, :per_token]


@functools.cache
def load(routing: str, tokens: int, experts: int, per_token: int, seed: int) -> tuple[int, float]:
    """Return how many experts have tokens, and the busiest one's tokens over the mean of all."""
    chosen = routed(routing, tokens, experts, per_token, seed)
    counts = np.bincount(chosen.ravel(), minlength=experts)
    return int((counts > 0).sum()), float(counts.max() / counts.mean())
