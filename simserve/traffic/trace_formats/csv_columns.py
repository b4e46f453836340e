"""A CSV file as columns: all at once if nothing is odd about it, else row by row.

The quick way reads nothing that the slow one would refuse, or read otherwise: whatever it is
not certain of (quotes, blanks, a strange number, a damaged file) is left to the slow one, which
names the row and the column of a fault.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy.typing as npt

from simserve.errors import InputError
from simserve.traffic.trace_formats.column_kinds import Kind
from simserve.traffic.trace_formats.columns import missing_column, no_rows
from simserve.traffic.trace_formats.text_lines import decoded, numbered_lines, whole_content

Columns = dict[str, npt.NDArray[Any]]

# Below so many rows, reading the whole file would cost more than it saves.
_FEW_ROWS = 100_000
_PARSE_BLOCK_BYTES = 16 * 1024 * 1024


def read_csv_columns(path: Path, kinds: Mapping[str, Kind], head: int | None = None) -> Columns:
    """Return the named columns of a CSV file, or of its first ``head`` rows.

    Columns may stand in any order among others.

    Raises:
        InputError: naming the row and the column that cannot be used.
    """
    if head is None or head >= _FEW_ROWS:
        found = _all_at_once(path, kinds)
        if found is not None:
            return {name: values[:head] for name, values in found.items()}
    return _row_by_row(path, kinds, head)


def header_of(path: Path) -> list[str]:
    """Return the names in the first row of a CSV file; none if the file is empty."""
    row, header = next(numbered_lines(path), (1, b""))
    return _fields(path, row, header)


def _all_at_once(path: Path, kinds: Mapping[str, Kind]) -> Columns | None:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    content = whole_content(path)
    if content is None or b'"' in content or content.count(b"\r") != content.count(b"\r\n"):
        return None
    names = content.lstrip(b"\xef\xbb\xbf")[: content.find(b"\n")].strip().split(b",")
    if len(set(names)) != len(names):
        return None
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(content),
            read_options=arrow_csv.ReadOptions(block_size=_PARSE_BLOCK_BYTES),
            parse_options=arrow_csv.ParseOptions(quote_char=False),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=list(kinds),
                column_types=dict.fromkeys(kinds, pa.string()),
                strings_can_be_null=False,
            ),
        )
    except (pa.ArrowException, KeyError, OSError):
        return None
    found: Columns = {}
    for name, kind in kinds.items():
        values = kind.many(table[name])
        if values is None or not len(values):
            return None
        found[name] = values
    return found


def _row_by_row(path: Path, kinds: Mapping[str, Kind], head: int | None) -> Columns:
    values: dict[str, list[Any]] = {name: [] for name in kinds}
    for row, fields in islice(_rows(path, list(kinds)), head):
        for (name, kind), text in zip(kinds.items(), fields, strict=True):
            values[name].append(checked(path, row, name, text, kind))
    if not all(values.values()):
        raise no_rows(path)
    return {name: kind.array(values[name]) for name, kind in kinds.items()}


def checked(path: Path, row: int, column: str, value: object, kind: Kind) -> Any:
    """Return what ``kind`` makes of a value, or refuse it by file, row and column."""
    try:
        return kind.one(value)
    except ValueError:
        got = "nothing" if value is None or value == "" else value
        raise InputError(str(path), f"row {row}: {column}", got, kind.allowed) from None


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the row number and the wanted fields of every row below the header."""
    lines = numbered_lines(path)
    header_row, header = next(lines, (1, b""))
    names = _fields(path, header_row, header)
    for column in columns:
        if column not in names:
            raise missing_column(path, header_row, column, names)
    places = [names.index(column) for column in columns]
    for row, line in lines:
        fields = _fields(path, row, line)
        if len(fields) != len(names):
            got = f"{len(fields)} fields"
            raise InputError(str(path), f"row {row}", got, f"{len(names)}, as in the header")
        yield row, [fields[place] for place in places]


def _fields(path: Path, row: int, line: bytes) -> list[str]:
    text = decoded(path, row, line)
    if '"' not in text:
        return [field.strip() for field in text.split(",")] if text else []
    try:
        return [field.strip() for field in next(csv.reader((text,), strict=True))]
    except csv.Error as error:
        reason = "lines end in CR alone" if "new-line" in str(error) else str(error)
        raise InputError(str(path), f"row {row}", text, f"a line of CSV ({reason})") from None
