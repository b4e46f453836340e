"""Any table of requests, CSV, JSONL or Parquet, whose columns the user or their names explain.

The roles of columns are listed in ``inputs.workload_trace.TABLE_ROLES``. This is also the form
in which ``simserve trace convert`` writes CSV and Parquet: ``segments`` then says exactly what
prompts share, as ``id:tokens`` with blanks between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from simserve.errors import InputError
from simserve.inputs.workload import TABLE_ROLES
from simserve.records.clock import PS_PER_MS, PS_PER_S
from simserve.records.requests import SegmentTable
from simserve.traffic.limits import MOST_TOKENS
from simserve.traffic.segments import offsets_of
from simserve.traffic.trace_formats import json_rows
from simserve.traffic.trace_formats.column_kinds import (
    CALENDAR,
    INTEGERS,
    MILLISECONDS,
    SECONDS,
    TEXT,
    TOKENS,
    Kind,
)
from simserve.traffic.trace_formats.columns import (
    EVERYTHING,
    Part,
    Times,
    TraceFile,
    missing_column,
    no_rows,
    no_times,
    plain_requests,
    request_table,
    times_of,
)
from simserve.traffic.trace_formats.csv_columns import (
    Columns,
    checked,
    header_of,
    read_csv_columns,
)
from simserve.traffic.trace_formats.text_lines import numbered_lines

PARQUET_MAGIC = b"PAR1"

KINDS: dict[str, Kind] = {
    "arrival_s": SECONDS,
    "arrival_ms": MILLISECONDS,
    "arrival_time": CALENDAR,
    "prompt_tokens": TOKENS,
    "output_tokens": TOKENS,
    "priority": INTEGERS,
    "request_id": TEXT,
    "segments": TEXT,
    "output_segment": INTEGERS,
}
_TIME_ROLES = ("arrival_s", "arrival_ms", "arrival_time")
_LENGTH_ROLES = ("prompt_tokens", "output_tokens")
_SEGMENTS_ALLOWED = "id:tokens with blanks between, whole numbers, adding up to prompt_tokens"
_LARGEST_ID = 2**62


def read_table(
    path: Path, part: Part = EVERYTHING, columns: Mapping[str, str] | None = None
) -> TraceFile:
    """Return the requests of a table; without a column of times, all at 0.

    ``columns`` maps roles to names of columns; a role that it leaves out is played by the
    column of that name, if there is one.

    Raises:
        InputError: naming the row and the column that cannot be used.
    """
    names = _names(path)
    wanted = _wanted(path, names, columns or {})
    found = _read(path, wanted, part.rows)
    count = len(found["prompt_tokens"])
    role = next((role for role in _TIME_ROLES if role in wanted), None)
    if role is None and not part.whole_span:
        raise InputError(str(path), "from_s or to_s", "a time", "none: the file has no times")
    segments = _segments(path, wanted, found)
    # Columns are let go as soon as they are read: of a large file, each weighs.
    times = no_times(count) if role is None else _times(path, role, wanted[role], found.pop(role))
    requests = replace(
        plain_requests(found.pop("prompt_tokens"), found.pop("output_tokens")),
        segments=segments,
        output_segment=found.get("output_segment"),
        priority=found.get("priority"),
        request_id=tuple(found["request_id"].tolist()) if "request_id" in found else None,
    )
    table = request_table(path, wanted.get(role or "", "time"), times, requests, part)
    return TraceFile(requests=table, format="table", timed=role is not None)


def has_roles(names: Any) -> bool:
    """Return whether the columns of these names explain themselves, times included."""
    return all(name in names for name in _LENGTH_ROLES) and any(
        name in names for name in _TIME_ROLES
    )


def is_parquet(path: Path) -> bool:
    """Return whether a file begins as a Parquet file does."""
    try:
        with path.open("rb") as file:
            return file.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC
    except (OSError, ValueError):
        return False


def _wanted(path: Path, names: list[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Return the column of every role that is played."""
    for role in columns:
        if role not in KINDS:
            raise InputError(str(path), "columns", role, ", ".join(TABLE_ROLES))
    wanted = {role: role for role in KINDS if role in names} | dict(columns)
    given = [role for role in _TIME_ROLES if role in columns]
    for role in _TIME_ROLES:  # the user's word counts more than a name
        if given and role not in columns:
            wanted.pop(role, None)
    times = [role for role in _TIME_ROLES if role in wanted]
    if len(times) > 1:
        raise InputError(str(path), "columns", " and ".join(times), "one column of times")
    for role in _LENGTH_ROLES:
        wanted.setdefault(role, role)
    if "output_segment" in wanted and "segments" not in wanted:
        raise InputError(str(path), "columns", "output_segment alone", "segments with it")
    for name in wanted.values():
        if name not in names:
            raise missing_column(path, 1, name, names)
    return wanted


def _names(path: Path) -> list[str]:
    if is_parquet(path):
        return [str(name) for name in _parquet_file(path).schema_arrow.names]
    first = next(numbered_lines(path), None)
    if first is None:
        raise no_rows(path)
    if first[1].startswith(b"{"):
        return list(json_rows.as_object(path, *first))
    return header_of(path)


def _read(path: Path, wanted: dict[str, str], head: int | None) -> Columns:
    """Return the values of every role, in the order of the file."""
    by_name = {wanted[role]: KINDS[role] for role in wanted}
    if len(by_name) < len(wanted):
        raise InputError(str(path), "columns", "one column in two roles", "one role a column")
    if is_parquet(path):
        found = _parquet_columns(path, by_name, head)
    elif next(numbered_lines(path), (1, b""))[1].startswith(b"{"):
        found = _json_columns(path, by_name, head)
    else:
        found = read_csv_columns(path, by_name, head)
    return {role: found[name] for role, name in wanted.items()}


def _json_columns(path: Path, kinds: dict[str, Kind], head: int | None) -> Columns:
    decode = msgspec.json.Decoder().decode
    values: dict[str, list[Any]] = {name: [] for name in kinds}
    readers = [(name, kind.one) for name, kind in kinds.items()]
    adders = [column.append for column in values.values()]
    for row, line in islice(numbered_lines(path), head):
        try:
            entry = decode(line)
            found = [read(entry[name]) for name, read in readers]
        except (msgspec.MsgspecError, ValueError, LookupError, TypeError, RecursionError):
            found = _checked_row(path, row, line, kinds)
        for add, value in zip(adders, found, strict=True):
            add(value)
    return {name: kind.array(values[name]) for name, kind in kinds.items()}


def _checked_row(path: Path, row: int, line: bytes, kinds: dict[str, Kind]) -> list[Any]:
    """Return the values of a row that is odd, or say what is wrong with it."""
    entry = json_rows.as_object(path, row, line)
    for name in kinds:
        if name not in entry:
            raise missing_column(path, row, name, list(entry))
    return [checked(path, row, name, entry[name], kind) for name, kind in kinds.items()]


def _parquet_columns(path: Path, kinds: dict[str, Kind], head: int | None) -> Columns:
    import pyarrow as pa

    try:
        table = _parquet_file(path).read(columns=list(kinds))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, error) from None
    if head is not None:
        table = table.slice(0, head)
    if not len(table):
        raise no_rows(path)
    found: Columns = {}
    for name, kind in kinds.items():
        column = table[name].combine_chunks()
        many = kind.many(column)
        found[name] = many if many is not None else kind.array(_each(path, name, column, kind))
    return found


def _each(path: Path, name: str, column: Any, kind: Kind) -> list[Any]:
    try:
        values = column.to_pylist()
    except (ValueError, OverflowError) as error:  # a time that Python has no date for
        raise InputError(str(path), name, str(error), kind.allowed) from None
    return [checked(path, row, name, value, kind) for row, value in enumerate(values, start=1)]


def _parquet_file(path: Path) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> InputError:
    got = f"Parquet that cannot be read ({error})"
    return InputError(str(path), None, got, "an undamaged Parquet file")


def _times(path: Path, role: str, column: str, values: npt.NDArray[Any]) -> Times:
    if role == "arrival_time":
        return Times(whole_s=values[:, 0], rest_ps=values[:, 1])
    return times_of(path, column, values, PS_PER_S if role == "arrival_s" else PS_PER_MS)


def _segments(path: Path, wanted: dict[str, str], found: Columns) -> SegmentTable | None:
    if "segments" not in found:
        return None
    lists = [_parsed(text) for text in found["segments"].tolist()]
    counts = np.array([0 if entries is None else len(entries) for entries in lists])
    sums = [0 if entries is None else sum(tokens for _, tokens in entries) for entries in lists]
    wrong = np.flatnonzero(np.array(sums) != found["prompt_tokens"])
    if len(wrong):
        which = f"request {int(wrong[0]) + 1}: {wanted['segments']}"
        got = found["segments"][wrong[0]]
        raise InputError(str(path), which, got or "nothing", _SEGMENTS_ALLOWED)
    flat = [entry for entries in lists if entries is not None for entry in entries]
    return SegmentTable(
        offsets=offsets_of(counts),
        segment=np.array([segment for segment, _ in flat], dtype=np.int64),
        tokens=np.array([tokens for _, tokens in flat], dtype=np.int64),
    )


def _parsed(text: str) -> list[tuple[int, int]] | None:
    """Return (segment, tokens) of every entry, or None if the text does not say that."""
    entries: list[tuple[int, int]] = []
    for entry in text.split(" "):
        segment, _, tokens = entry.partition(":")
        if not (entry.isascii() and segment.isdecimal() and tokens.isdecimal()):
            return None
        if len(entry) > 2 * len(str(_LARGEST_ID)) or int(segment) > _LARGEST_ID:
            return None
        if not 1 <= int(tokens) <= MOST_TOKENS:
            return None
        entries.append((int(segment), int(tokens)))
    return entries
