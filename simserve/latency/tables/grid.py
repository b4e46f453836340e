"""A rectangle of times over two sizes, made whole from a measured part with ragged edges.

Measured cells are made monotone along both axes and no shorter than the limit. A cell that
was not measured lies between its measured neighbours; one beyond them (a large batch of long
contexts does not fit into memory) holds the utilisation of its smaller neighbour.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simserve.latency.tables.answers import EXACT, EXTRAP, INTERP
from simserve.latency.tables.curve import is_raised
from simserve.latency.tables.holes import fill_between, fill_beyond
from simserve.latency.tables.isotonic import isotonic_grid

Cell = tuple[float, float]
Limit2 = Callable[[float, float], float]


@dataclass(frozen=True, slots=True)
class Grid:
    """``times[row][column]`` in seconds; ``sources`` says which cells were measured.

    Measured cells are ``exact``, those between them ``interp``, those beyond ``extrap``.
    ``raised`` counts the measured cells that were quicker than the limit.
    """

    rows: tuple[float, ...]
    columns: tuple[float, ...]
    times: tuple[tuple[float, ...], ...]
    sources: tuple[tuple[str, ...], ...]
    raised: int


def build_grid(
    points: Mapping[Cell, float] | Mapping[tuple[int, int], float],
    limit: Limit2,
    more_rows: Sequence[float] = (),
    more_columns: Sequence[float] = (),
    root_rows: bool = False,
) -> Grid:
    """Return the grid of ``points`` (row, column) → seconds, with ``more`` knots to fill.

    ``root_rows``: from row to row not the time is linear but its square root.
    """
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
    inner = fill_between(clean, limits, (rows, columns), 0 if root_rows else None)
    whole = fill_beyond(inner, limits)
    pairs = zip(fitted[~np.isnan(raw)], clean[~np.isnan(raw)], strict=True)
    sources = np.where(np.isnan(inner), EXTRAP, np.where(np.isnan(raw), INTERP, EXACT))
    return Grid(
        tuple(rows),
        tuple(columns),
        tuple(map(tuple, whole.tolist())),
        tuple(map(tuple, sources.tolist())),
        sum(is_raised(before, after) for before, after in pairs),
    )
