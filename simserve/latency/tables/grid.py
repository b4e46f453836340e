"""A rectangle of times over two sizes, made whole from a measured part with ragged edges.

Measured cells are made monotone along both axes and no shorter than the limit. A cell that
was not measured (a large batch of long contexts does not fit into memory) holds the
utilisation of its smaller neighbour, and stays between the measured cells around it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simserve.latency.tables.curve import LEAST_UTILISATION, is_raised
from simserve.latency.tables.isotonic import (
    Floats,
    dominating_minimum,
    isotonic_grid,
)

Limit2 = Callable[[float, float], float]


@dataclass(frozen=True, slots=True)
class Grid:
    """``times[row][column]`` in seconds; ``filled`` marks the cells that were not measured.

    ``raised`` counts the measured cells that were quicker than the limit.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    times: tuple[tuple[float, ...], ...]
    filled: tuple[tuple[bool, ...], ...]
    raised: int


def build_grid(
    points: Mapping[tuple[int, int], float],
    limit: Limit2,
    more_rows: Sequence[int] = (),
    more_columns: Sequence[int] = (),
) -> Grid:
    """Return the grid of ``points`` (row, column) → seconds, with ``more`` knots to fill."""
    rows = sorted({row for row, _ in points} | set(more_rows))
    columns = sorted({column for _, column in points} | set(more_columns))
    limits = np.array([[limit(row, column) for column in columns] for row in rows])
    raw = np.full(limits.shape, np.nan)
    row_at = {row: index for index, row in enumerate(rows)}
    column_at = {column: index for index, column in enumerate(columns)}
    for (row, column), seconds in points.items():
        raw[row_at[row], column_at[column]] = seconds
    fitted = isotonic_grid(raw)
    clean = np.maximum(fitted, limits)  # NaN stays NaN
    whole = _fill(clean, limits)
    pairs = zip(fitted[~np.isnan(raw)], clean[~np.isnan(raw)], strict=True)
    return Grid(
        tuple(rows),
        tuple(columns),
        tuple(map(tuple, whole.tolist())),
        tuple(map(tuple, np.isnan(raw).tolist())),
        sum(is_raised(before, after) for before, after in pairs),
    )


def held(before_s: float, limit_before_s: float, limit_s: float) -> float:
    """Return the time where the limit is ``limit_s``, at the utilisation of a smaller size."""
    utilisation = min(1.0, max(LEAST_UTILISATION, limit_before_s / before_s))
    return max(before_s, limit_s / utilisation)


def _fill(clean: Floats, limits: Floats) -> Floats:
    """Return the grid with every cell that was not measured filled, smaller cells first.

    A cell follows the neighbour with fewer filled cells between it and a measured one; of
    two alike, the one that makes it longer.
    """
    highest = dominating_minimum(np.where(np.isnan(clean), np.inf, clean))
    whole = clean.copy()
    steps = np.zeros(clean.shape, dtype=np.int64)
    for i, j in zip(*np.nonzero(np.isnan(clean)), strict=True):
        before = [(i - di, j - dj) for di, dj in ((0, 1), (1, 0)) if i >= di and j >= dj]
        if not before:
            whole[i, j] = highest[i, j]
            continue
        fewest = min(steps[cell] for cell in before)
        steps[i, j] = fewest + 1
        time = max(
            held(whole[cell], limits[cell], limits[i, j])
            for cell in before
            if steps[cell] == fewest
        )
        lowest = max(whole[cell] for cell in before)
        whole[i, j] = min(max(time, lowest), highest[i, j])
    return whole
