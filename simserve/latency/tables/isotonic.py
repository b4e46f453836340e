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
# A pass that moves no cell by more than this share ends them: far below what a clock resolves.
_SETTLED = 1e-6


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
    """Return ``values`` (of any number of axes, NaN where not measured) made monotone.

    Along all axes: the lines of each are fitted in turn until nothing moves.
    """
    grid = values.copy()
    measured = ~np.isnan(grid)
    for _ in range(_PASSES):
        before = grid.copy()
        for axis in reversed(range(grid.ndim)):
            _fit_lines(np.moveaxis(grid, axis, -1), np.moveaxis(measured, axis, -1))
        if np.allclose(before, grid, rtol=_SETTLED, atol=0.0, equal_nan=True):
            break
    highest = dominated_maximum(np.where(measured, grid, -np.inf))
    return np.where(measured, highest, np.nan)


def _fit_lines(grid: Floats, measured: npt.NDArray[np.bool_]) -> None:
    """Fit the lines along the last axis, in place; those that never fall are left alone."""
    highest = np.maximum.accumulate(np.where(measured, grid, -np.inf), axis=-1)
    falling = (measured & (grid < highest)).any(axis=-1)
    for place in zip(*np.nonzero(falling), strict=True):
        known = measured[place]
        grid[place][known] = isotonic(grid[place][known].tolist())


def dominated_maximum(grid: Floats) -> Floats:
    """Return for every cell the maximum over all cells that are no larger on any axis."""
    for axis in range(grid.ndim):
        grid = np.maximum.accumulate(grid, axis=axis)
    return grid


def dominating_minimum(grid: Floats) -> Floats:
    """Return for every cell the minimum over all cells that are no smaller on any axis."""
    return -np.flip(dominated_maximum(-np.flip(grid)))
