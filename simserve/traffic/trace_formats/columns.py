"""The last step that all trace formats share: checked columns become a RequestTable."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from simserve.errors import InputError
from simserve.records.clock import PS_PER_S, PsArray
from simserve.records.requests import RequestTable, SegmentTable
from simserve.traffic.limits import LONGEST_SPAN_DAYS, LONGEST_SPAN_PS, MOST_TOKENS
from simserve.traffic.segments import reordered

TOKENS_ALLOWED = f"a whole number of tokens, from 1 to {MOST_TOKENS}"


def request_table(
    arrival_ps: PsArray,
    prompt_tokens: Sequence[int],
    output_tokens: Sequence[int],
    segments: SegmentTable | None = None,
) -> RequestTable:
    """Return the requests in arrival order, the first one at 0; equal arrivals keep file order."""
    prompts = np.array(prompt_tokens, dtype=np.int64)
    outputs = np.array(output_tokens, dtype=np.int64)
    arrival_ps = arrival_ps - arrival_ps.min()
    if np.any(np.diff(arrival_ps) < 0):
        order = np.argsort(arrival_ps, kind="stable")
        arrival_ps, prompts, outputs = arrival_ps[order], prompts[order], outputs[order]
        segments = None if segments is None else reordered(segments, order)
    return RequestTable(
        arrival_ps=arrival_ps, prompt_tokens=prompts, output_tokens=outputs, segments=segments
    )


def times_to_ps(
    path: Path, column: str, times: npt.NDArray[np.float64], ps_per_unit: int
) -> PsArray:
    """Return ``times`` in picoseconds, counted from some whole unit not after the first.

    Raises:
        InputError: if they span more than ``LONGEST_SPAN_PS``.
    """
    longest = LONGEST_SPAN_PS / ps_per_unit
    if times.max() > longest:  # counted from a calendar's epoch: shift while it still is exact
        times = times - np.floor(times.min())
    if times.max() > longest:
        raise too_long(path, column, float(times.max()) * ps_per_unit)
    return np.rint(times * ps_per_unit).astype(np.int64)


def too_long(path: Path, column: str, span_ps: float) -> InputError:
    """Return the refusal of a trace that the clock cannot hold."""
    got = f"times over {span_ps / PS_PER_S / 86_400:.0f} days"
    return InputError(str(path), column, got, f"at most {LONGEST_SPAN_DAYS} days")


def no_rows(path: Path) -> InputError:
    """Return the refusal of a trace without a request."""
    return InputError(str(path), None, "no request", "a trace with at least one row")


def missing_column(path: Path, row: int, column: str, columns: Sequence[str]) -> InputError:
    """Return the refusal of a row that lacks a column, with the columns it does have."""
    got = f"columns {', '.join(columns)}" if columns else "no columns"
    return InputError(str(path), f"row {row}", got, f"a row with column {column}")
