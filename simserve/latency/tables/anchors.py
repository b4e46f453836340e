"""Whole steps that were measured, against the sum of their kernels: one factor per regime.

A factor takes up what single kernels miss: gaps, clocks, caches. It is the median of measured
over composed GPU time, and is not applied beyond 15 %: then the tables are wrong, not the sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from simserve.errors import InputError
from simserve.latency.tables.csv_file import Row
from simserve.latency.tables.schema import STEP_REGIMES
from simserve.latency.tables.selection import Setting, is_model
from simserve.records.step import PrefillChunk, StepShape

MOST_DEVIATION = 0.15
"""A factor farther from 1 than this is refused."""
_MIDDLE, _HIGH = 50, 90


@dataclass(frozen=True, slots=True)
class Anchor:
    """The factor of one regime, and what it leaves: ``|measured / predicted - 1|``.

    ``factor`` is what the rows say, ``applied`` what steps are multiplied by: 1 if refused.
    """

    regime: str
    factor: float
    applied: float
    rows: int
    residual_p50: float
    residual_p90: float

    @property
    def warning(self) -> str | None:
        """Why the factor was refused, None if it was not."""
        if self.applied == self.factor:
            return None
        return (
            f"whole {self.regime} steps take {self.factor:.3f} of the sum of their kernels "
            f"({self.rows} rows); beyond 1 ± {MOST_DEVIATION:g} this is not corrected for"
        )


def fit_anchors(setting: Setting, composed_s: Callable[[StepShape], float]) -> dict[str, Anchor]:
    """Return the anchors of the regimes that ``step.csv`` has rows of for this deployment."""
    table = setting.profile.tables.get("step")
    if table is None:
        return {}
    found = {}
    for regime in STEP_REGIMES:
        rows = [
            row
            for row in table.rows
            if row.keys["regime"] == regime
            and row.keys["tp"] == setting.tp
            and is_model(row.text("model"), setting.model)
        ]
        for row in rows:
            if not (row.keys["n_dec"] or row.keys["q_tokens"]):
                allowed = "decodes (n_dec) or new tokens (q_tokens) above 0"
                raise InputError(table.where, f"row {row.line}", "an empty step", allowed)
        if rows:
            found[regime] = _fit(regime, rows, composed_s)
    return found


def _fit(regime: str, rows: list[Row], composed_s: Callable[[StepShape], float]) -> Anchor:
    ratios = np.array([row.seconds / composed_s(_shape(row)) for row in rows])
    factor = float(np.median(ratios))
    applied = factor if abs(factor - 1) <= MOST_DEVIATION else 1.0
    residuals = np.abs(ratios / applied - 1)
    middle, high = (float(np.percentile(residuals, one)) for one in (_MIDDLE, _HIGH))
    return Anchor(regime, factor, applied, len(rows), middle, high)


def _shape(row: Row) -> StepShape:
    new, decodes = row.number("q_tokens"), row.number("n_dec")
    chunks = (PrefillChunk(new, row.number("past")),) if new else ()
    return StepShape(decodes, row.number("sum_ctx"), chunks)
