"""What a comparison with a measurement says: a figure, its bar, and whether it is met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Numbers = Sequence[float] | FloatArray

PERCENT = 100.0
_P90 = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One comparison. Errors are in percent, a bar bounds the size of ``error_pct``."""

    what: str
    measure: str
    error_pct: float
    p90_pct: float | None = None
    points: int
    bar_pct: float | None = None
    bar_source: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the bar is met; None if there is none."""
        return None if self.bar_pct is None else abs(self.error_pct) <= self.bar_pct


@dataclass(slots=True)
class Section:
    """The findings of one level, and what could not be compared, with the reason."""

    title: str
    findings: list[Finding] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def signed_pct(predicted: Numbers, measured: Numbers) -> FloatArray:
    """Return the errors of ``predicted`` in percent of ``measured``: ``float64[points]``."""
    truth = np.asarray(measured, dtype=np.float64)
    return np.asarray((np.asarray(predicted, dtype=np.float64) / truth - 1.0) * PERCENT)


def median_finding(
    what: str, errors_pct: Numbers, bar_pct: float | None = None, bar_source: str = ""
) -> Finding:
    """Return the median and the 90th percentile of the errors' sizes as a finding."""
    sizes = np.abs(np.asarray(errors_pct, dtype=np.float64))
    return Finding(
        what=what,
        measure="median size",
        error_pct=float(np.median(sizes)),
        p90_pct=float(np.percentile(sizes, _P90)),
        points=len(sizes),
        bar_pct=bar_pct,
        bar_source=bar_source,
    )


def bias_finding(what: str, errors_pct: Numbers) -> Finding:
    """Return the median of the signed errors as a finding."""
    errors = np.asarray(errors_pct, dtype=np.float64)
    return Finding(
        what=what,
        measure="median, signed",
        error_pct=float(np.median(errors)),
        points=len(errors),
    )
