"""The last step that all trace formats share: checked columns become a RequestTable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from simserve.errors import InputError
from simserve.records.clock import PS_PER_S, PsArray
from simserve.records.requests import IntArray, RequestTable
from simserve.traffic.limits import LONGEST_SPAN_DAYS, LONGEST_SPAN_PS, MOST_TOKENS
from simserve.traffic.segments import reordered

TOKENS_ALLOWED = f"a whole number of tokens, from 1 to {MOST_TOKENS}"

_LONGEST_SPAN_S = LONGEST_SPAN_PS // PS_PER_S
# No later second is meant: milliseconds since 1970 have been larger since 1973.
_YEAR_5138_S = 1e11
_ROWS_AT_A_TIME = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Which requests of a trace are wanted; times count from its first request."""

    head: int | None = None  # the first so many of those in the window
    from_s: float = 0.0
    to_s: float | None = None  # not included

    @property
    def whole_span(self) -> bool:
        """Whether the window is the whole trace."""
        return self.from_s == 0 and self.to_s is None

    @property
    def rows(self) -> int | None:
        """How many rows of the file are read, None for all of them."""
        return self.head if self.whole_span else None


EVERYTHING = Part()


class NotInOrderError(Exception):
    """The first rows of a file are not in order of arrival, and may not be its first requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Instants as whole seconds and picoseconds after them, exact over any span.

    The picoseconds may be more than a second.
    """

    whole_s: IntArray
    rest_ps: IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceFile:
    """A trace as it was read: the requests, and what has to be said about them."""

    requests: RequestTable
    format: str
    timed: bool = True  # False: lengths only, all arrivals are 0
    block_tokens: int | None = None  # tokens that one id of the file stands for
    notes: tuple[str, ...] = ()  # what was left out, in words
    rescaled: bool = False  # the rate that was asked for is in the arrivals already
    measured: Mapping[str, npt.NDArray[np.float64]] | None = None  # [requests], NaN: not said


def no_times(count: int) -> Times:
    """Return ``count`` instants that are all the same."""
    return Times(whole_s=np.zeros(count, np.int64), rest_ps=np.zeros(count, np.int64))


def times_of(path: Path, column: str, values: npt.NDArray[np.float64], ps_per_unit: int) -> Times:
    """Return float times as instants, exact to the picosecond where the floats are.

    ``values`` is used up: tens of millions of rows fit into memory, but not many times.

    Raises:
        InputError: if one is beyond any calendar: its unit must be another.
    """
    units_per_s = PS_PER_S // ps_per_unit
    latest_s = float(values.max(initial=0)) // units_per_s
    if latest_s >= _YEAR_5138_S:
        allowed = "seconds since 1970 or since the start; are these milliseconds, or smaller?"
        if units_per_s > 1:
            allowed = "milliseconds since 1970 or since the start; are these smaller?"
        raise InputError(str(path), column, f"{latest_s * units_per_s:.16g}", allowed)
    values = np.require(values, np.float64, ["C", "W"])
    times = Times(whole_s=np.zeros(len(values), np.int64), rest_ps=values.view(np.int64))
    # Zeros that nobody writes to take no memory; only times beyond the clock need whole seconds.
    fits = latest_s < _LONGEST_SPAN_S
    for begin in range(0, len(values), _ROWS_AT_A_TIME):
        rows = slice(begin, begin + _ROWS_AT_A_TIME)
        whole = np.floor(values[rows] / units_per_s)
        rest = np.rint((values[rows] - whole * units_per_s) * ps_per_unit)
        if fits:
            times.rest_ps[rows] = whole.astype(np.int64) * PS_PER_S + rest.astype(np.int64)
        else:
            times.whole_s[rows], times.rest_ps[rows] = whole, rest
    return times


def request_table(
    path: Path,
    column: str,
    times: Times,
    requests: RequestTable,
    part: Part = EVERYTHING,
) -> RequestTable:
    """Return ``requests`` with these times, in arrival order, the first one at 0.

    Equal arrivals keep the order of the file. ``column`` is the one that times come from.
    The arrays of ``times`` are used up.

    Raises:
        InputError: if the part holds no request, or spans more than the clock can hold.
    """
    arrival_ps, kept = arrivals_of(path, column, times, part)
    table = requests if kept is None else selected(requests, kept)
    table = replace(table, arrival_ps=arrival_ps)
    if part.head is not None and len(table) > part.head:
        table = selected(table, np.arange(part.head))
    return table


def arrivals_of(
    path: Path, column: str, times: Times, part: Part
) -> tuple[PsArray, npt.NDArray[np.intp] | None]:
    """Return the arrivals within a part, from 0, and whose they are: None for all as they stand.

    See ``request_table``; ``part.head`` is left to the caller.

    Raises:
        NotInOrderError: if only the first rows were read, and are not in order.
    """
    whole_s, rest_ps = times.whole_s, times.rest_ps
    start_s = whole_s.min()
    rest_ps -= rest_ps.min(where=whole_s == start_s, initial=np.iinfo(np.int64).max)
    if start_s:
        whole_s -= start_s
    kept = _within(path, times, part)
    if kept is not None:
        whole_s, rest_ps = whole_s[kept], rest_ps[kept]
        whole_s -= whole_s.min()
    if whole_s.max() > _LONGEST_SPAN_S:
        raise too_long(path, column, float(whole_s.max()))
    arrival_ps = np.ascontiguousarray(rest_ps)
    for begin in range(0, len(arrival_ps), _ROWS_AT_A_TIME):
        rows = slice(begin, begin + _ROWS_AT_A_TIME)
        arrival_ps[rows] += whole_s[rows] * PS_PER_S
    arrival_ps -= arrival_ps.min()
    if (arrival_ps[1:] < arrival_ps[:-1]).any():
        if part.rows is not None:
            raise NotInOrderError
        order = np.argsort(arrival_ps, kind="stable")
        arrival_ps = arrival_ps[order]
        kept = order if kept is None else kept[order]
    return arrival_ps, kept


def selected(requests: RequestTable, which: npt.NDArray[np.intp]) -> RequestTable:
    """Return the requests at these places, in this order."""

    def of(column: IntArray | None) -> IntArray | None:
        return None if column is None else column[which]

    names = requests.request_id
    return RequestTable(
        arrival_ps=requests.arrival_ps[which],
        prompt_tokens=requests.prompt_tokens[which],
        output_tokens=requests.output_tokens[which],
        segments=None if requests.segments is None else reordered(requests.segments, which),
        output_segment=of(requests.output_segment),
        priority=of(requests.priority),
        request_id=None if names is None else tuple(names[i] for i in which.tolist()),
    )


def _within(path: Path, since_start: Times, part: Part) -> npt.NDArray[np.intp] | None:
    """Return the places of the requests in the window, None if that is all of them."""
    if part.whole_span:
        return None
    since_s = since_start.rest_ps / PS_PER_S
    since_s += since_start.whole_s
    stop_s = np.inf if part.to_s is None else part.to_s
    kept = np.flatnonzero((since_s >= part.from_s) & (since_s < stop_s))
    if not len(kept):
        got = f"no request from {part.from_s:g} s to {stop_s:g} s"
        raise InputError(str(path), None, got, f"a part of its {since_s.max():g} s")
    return kept


def plain_requests(prompt_tokens: npt.ArrayLike, output_tokens: npt.ArrayLike) -> RequestTable:
    """Return requests of these lengths that all arrive at 0 and share nothing."""
    prompts = np.asarray(prompt_tokens, dtype=np.int64)
    return RequestTable(
        arrival_ps=np.zeros(len(prompts), dtype=np.int64),
        prompt_tokens=prompts,
        output_tokens=np.asarray(output_tokens, dtype=np.int64),
    )


def too_long(path: Path, column: str, span_s: float) -> InputError:
    """Return the refusal of a trace that the clock cannot hold."""
    got = f"times over {span_s / 86_400:.0f} days"
    allowed = f"at most {LONGEST_SPAN_DAYS} days; from_s and to_s choose a part"
    return InputError(str(path), column, got, allowed)


def no_rows(path: Path) -> InputError:
    """Return the refusal of a trace without a request."""
    return InputError(str(path), None, "no request", "a trace with at least one row")


def missing_column(path: Path, row: int, column: str, columns: Sequence[str]) -> InputError:
    """Return the refusal of a row that lacks a column, with the columns it does have."""
    got = f"columns {', '.join(columns)}" if columns else "no columns"
    return InputError(str(path), f"row {row}", got, f"a row with column {column}")
