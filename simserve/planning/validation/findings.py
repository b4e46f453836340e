"""What a comparison with a measurement says: a figure, its bar, and whether it is met."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from simserve.errors import InputError

FloatArray = npt.NDArray[np.float64]
Numbers = Sequence[float] | FloatArray

PERCENT = 100.0
_P90, _NEAR_PCT = 90, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One comparison. Errors are in percent, a bar bounds the size of ``error_pct``.

    ``within_5_pct`` is the share, in percent, of the points whose own error is at most 5 %.
    """

    what: str
    measure: str
    error_pct: float
    p90_pct: float | None = None
    within_5_pct: float | None = None
    points: int
    bar_pct: float | None = None
    bar_source: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the bar is met; None if there is none."""
        return None if self.bar_pct is None else abs(self.error_pct) <= self.bar_pct


@dataclass(frozen=True, slots=True)
class Listing:
    """Rows behind a finding, or beside it, as they are printed."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(slots=True)
class Section:
    """The findings of one level, and what could not be compared, with the reason.

    ``fitted`` names every number that was fitted, its value, and what it was fitted on.
    """

    title: str
    findings: list[Finding] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fitted: list[str] = field(default_factory=list)
    listings: list[Listing] = field(default_factory=list)


@contextmanager
def skipping(section: Section, name: str) -> Iterator[None]:
    """Skip by name what a folder lacks, or has in another layout, instead of failing."""
    try:
        yield
    except InputError as error:
        section.skipped.append(f"{name}: {error}")
    except KeyError as error:
        section.skipped.append(f"{name}: nothing is known of {error}")
    except ValueError as error:
        section.skipped.append(f"{name}: {error}")


def signed_pct(predicted: Numbers, measured: Numbers) -> FloatArray:
    """Return the errors of ``predicted`` in percent of ``measured``: ``float64[points]``."""
    truth = np.asarray(measured, dtype=np.float64)
    return np.asarray((np.asarray(predicted, dtype=np.float64) / truth - 1.0) * PERCENT)


def high_percentile(errors_pct: Numbers) -> float:
    """Return the 90th percentile of the errors' sizes."""
    return float(np.percentile(np.abs(errors_pct), _P90))


def within_pct(errors_pct: Numbers) -> float:
    """Return the share of errors of at most 5 %, in percent."""
    return float(np.mean(np.abs(errors_pct) <= _NEAR_PCT) * PERCENT)


def median_finding(
    what: str, errors_pct: Numbers, bar_pct: float | None = None, bar_source: str = ""
) -> Finding:
    """Return the median and the 90th percentile of the errors' sizes as a finding."""
    sizes = np.abs(np.asarray(errors_pct, dtype=np.float64))
    return Finding(
        what=what,
        measure="median size",
        error_pct=float(np.median(sizes)),
        p90_pct=high_percentile(sizes),
        within_5_pct=within_pct(sizes),
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
