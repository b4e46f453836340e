"""Batches of a run that may be treated as independent, although its requests are not.

Two requests that wait in the same queue wait alike, so the standard error of n latencies is far
more than their spread over the root of n. Means over long enough batches are nearly
independent. How many batches a sample has is decided by von Neumann's test on their means:
the largest of a few numbers that passes. What correlation is left widens the interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from simserve.results.samples import FloatArray, IntArray

# Twenty batches are about as good as any larger number (Schmeiser, Operations Research 1982);
# ten are the fewest with which Student's t is not much wider than the normal.
BATCH_COUNTS = (20, 16, 12, 10)
# One-sided: of independent batches, this share is refused. Large, so that doubt refuses.
INDEPENDENCE_LEVEL = 0.1
# Below, a batch's own mean is so lopsided that no correction helps.
SMALLEST_BATCH = 10


@dataclass(frozen=True, slots=True)
class Series:
    """What one run says of one quantity, in order of time: ``float64[entries]`` each.

    The quantity is the sum of ``amounts`` over that of ``weights``. For a latency the weights
    are how often each value occurs; for a rate the weights are seconds.
    """

    amounts: FloatArray
    weights: FloatArray

    @classmethod
    def of_values(cls, values: FloatArray, counts: FloatArray | None = None) -> Series:
        """Return the series of values, each as often as ``counts`` says."""
        weights = np.ones(len(values)) if counts is None else counts.astype(np.float64)
        return cls(values * weights, weights)

    @property
    def values(self) -> FloatArray:
        """Amounts per weight; for a latency, the latencies."""
        return np.asarray(self.amounts / self.weights)

    def edges(self, batches: int) -> IntArray:
        """Return where batches of equal weight begin and end, as places of entries."""
        upto = np.cumsum(self.weights)
        wanted = upto[-1] * np.arange(1, batches) / batches
        inner = np.searchsorted(upto, wanted, side="left") + 1
        return np.concatenate([[0], np.minimum(inner, len(upto)), [len(upto)]]).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """Runs cut into batches of equal weight: ``edges[run]`` as ``Series.edges`` gives them.

    ``per_run`` is 1 where every run is a batch of its own.
    """

    edges: tuple[IntArray, ...]
    per_run: int

    @property
    def count(self) -> int:
        """How many batches there are in all."""
        return self.per_run * len(self.edges)

    def means(self, runs: Sequence[Series]) -> FloatArray:
        """Return the mean of every batch: ``float64[runs, per_run]``."""
        rows = [
            np.add.reduceat(run.amounts, edges[:-1]) / np.add.reduceat(run.weights, edges[:-1])
            for run, edges in zip(runs, self.edges, strict=True)
        ]
        return np.array(rows)


def independent_batches(runs: Sequence[Series]) -> Batches | None:
    """Return the most batches whose means pass for independent; None if none do.

    Several runs are independent of each other; each is cut only as far as needed. From as many
    runs as there should be batches, each is one batch.
    """
    for count in BATCH_COUNTS:
        per_run = -(-count // len(runs))
        if per_run > 1 and any(len(run.weights) < per_run * SMALLEST_BATCH for run in runs):
            continue
        cut = Batches(edges=tuple(run.edges(per_run) for run in runs), per_run=per_run)
        if any((np.diff(edges) < 1).any() for edges in cut.edges):
            continue
        if per_run == 1 or looks_independent(cut.means(runs)):
            return cut
    return None


def looks_independent(means: FloatArray) -> bool:
    """Return whether neighbours differ as much as independent ones do: ``means[runs, batches]``.

    Von Neumann's ratio (Annals of Mathematical Statistics 1941), with its variance under
    independence, (n - 2) / (n² - 1); pairs are taken within runs only.
    """
    around = means - means.mean()
    spread = float((around**2).sum()) / (means.size - 1)
    steps = np.diff(means, axis=1)
    if spread == 0 or not steps.size:
        return True
    pairs = steps.size
    likeness = 1 - float((steps**2).sum()) / pairs / spread / 2
    size = pairs + 1
    deviation = likeness / math.sqrt((size - 2) / (size**2 - 1))
    return deviation < NormalDist().inv_cdf(1 - INDEPENDENCE_LEVEL)


def correlation_factor(means: FloatArray) -> float:
    """Return by how much correlation left between batches multiplies the variance of the mean.

    That of an autoregressive process of first order; 1 where neighbours are independent or
    unlike (Tafazzoli, Steiger and Wilson, "N-Skart", IEEE Trans. Automatic Control 2011).
    """
    around = means - means.mean()
    squares = float((around**2).sum())
    if squares == 0 or means.shape[1] < 2:
        return 1.0
    lag_one = float((around[:, 1:] * around[:, :-1]).sum()) / squares
    return (1 + lag_one) / (1 - lag_one) if lag_one > 0 else 1.0
