"""A CSV file as columns, block by block: at once if nothing is odd about a block, else by rows.

The quick way reads nothing that the slow one would refuse, or read otherwise: whatever it is
not certain of (quotes, blanks, a strange number) is left to the slow one, which names the row
and the column of a fault. Only one block and the wanted columns are ever held.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simserve.errors import InputError
from simserve.traffic.trace_formats.column_kinds import Kind
from simserve.traffic.trace_formats.columns import missing_column, no_rows
from simserve.traffic.trace_formats.text_lines import decoded, line_blocks, numbered_lines

Columns = dict[str, npt.NDArray[Any]]

# Smaller blocks are read row by row, and Arrow is not even imported.
_WORTH_ARROW_BYTES = 1 << 18
# Fields in quotes from end to end, where two quotes are one, and fields without any.
_PLAINLY_QUOTED = re.compile(rb'(?:(?:"(?:[^"\n]++|"")*+"|[^",\r\n]*+)(?:,|\r?\n|\Z))*+')
_SPARE_PART = 64  # room for so little more whenever a column grows: it is zeroed, and so weighs


def read_csv_columns(path: Path, kinds: Mapping[str, Kind], head: int | None = None) -> Columns:
    """Return the named columns of a CSV file, or of its first ``head`` rows.

    Columns may stand in any order among others.

    Raises:
        InputError: naming the row and the column that cannot be used.
    """
    columns = {name: _Column() for name in kinds}
    header_row, header = next(numbered_lines(path), (1, b""))
    names = _fields(path, header_row, header)
    for name in kinds:
        if name not in names:
            raise missing_column(path, header_row, name, names)
    left = head
    for row, block in _below(path, header_row):
        found = _quick(block, names, kinds) if len(block) >= _WORTH_ARROW_BYTES else None
        if found is None:
            found = _row_by_row(path, row, block, names, kinds, left)
        for name, values in found.items():
            columns[name].extend(values[:left])
        if head is not None and not (left := head - columns[name].rows):
            break
    if not columns[name].rows:
        raise no_rows(path)
    return {name: column.values() for name, column in columns.items()}


class _Column:
    """Values that come block by block, in one array that grows where it stands.

    A list of arrays, joined at the end, would take twice the memory.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._held: npt.NDArray[Any] = np.empty(0)

    def extend(self, values: npt.NDArray[Any]) -> None:
        """Add the values of some more rows."""
        if not self.rows:
            self._held = np.empty_like(values, shape=(0, *values.shape[1:]))
        rows = self.rows + len(values)
        if rows > len(self._held):
            self._resize(rows + rows // _SPARE_PART)
        self._held[self.rows : rows] = values
        self.rows = rows

    def values(self) -> npt.NDArray[Any]:
        """Return all of them; nothing can be added any more."""
        self._resize(self.rows)
        return self._held

    def _resize(self, rows: int) -> None:
        self._held.resize((rows, *self._held.shape[1:]), refcheck=False)


def header_of(path: Path) -> list[str]:
    """Return the names in the first row of a CSV file; none if the file is empty."""
    row, header = next(numbered_lines(path), (1, b""))
    return _fields(path, row, header)


def _below(path: Path, header_row: int) -> Iterator[tuple[int, bytes]]:
    """Yield blocks of the lines below a row."""
    for row, block in line_blocks(path):
        above = max(header_row + 1 - row, 0)
        lines = block.split(b"\n", above)
        if len(lines) > above:
            yield row + above, lines[above]


def _quick(block: bytes, names: list[str], kinds: Mapping[str, Kind]) -> Columns | None:
    """Return the columns of a block of lines, None if that is not certain."""
    if block.count(b"\r") != block.count(b"\r\n") or not _is_text(block):
        return None
    if len(set(names)) != len(names):
        return None
    if b'"' in block and not _PLAINLY_QUOTED.fullmatch(block):
        return None
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(block),
            read_options=arrow_csv.ReadOptions(column_names=names),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=list(kinds),
                column_types=dict.fromkeys(kinds, pa.string()),
                strings_can_be_null=False,
            ),
        )
    except (pa.ArrowException, KeyError, OSError):
        return None
    if len(table) != block.count(b"\n") + (not block.endswith(b"\n")):
        return None  # blank lines
    found: Columns = {}
    for name, kind in kinds.items():
        values = kind.many(table[name])
        if values is None:
            return None
        found[name] = values
    return found


def _is_text(block: bytes) -> bool:
    if block.isascii():
        return True
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True


def _row_by_row(
    path: Path,
    first_row: int,
    block: bytes,
    names: list[str],
    kinds: Mapping[str, Kind],
    most: int | None = None,
) -> Columns:
    """Return the columns of a block of lines, the first being ``first_row``: ``most`` of them."""
    values: dict[str, list[Any]] = {name: [] for name in kinds}
    columns = [(name, kind, names.index(name), values[name]) for name, kind in kinds.items()]
    left = most
    for row, line in enumerate(block.split(b"\n"), start=first_row):
        if left == 0:
            break
        text = line.strip()
        if not text:
            continue
        fields = _fields(path, row, text)
        if len(fields) != len(names):
            got = f"{len(fields)} fields"
            raise InputError(str(path), f"row {row}", got, f"{len(names)}, as in the header")
        for name, kind, place, found in columns:
            found.append(checked(path, row, name, fields[place], kind))
        left = None if left is None else left - 1
    return {name: kind.array(values[name]) for name, kind in kinds.items()}


def checked(path: Path, row: int, column: str, value: object, kind: Kind) -> Any:
    """Return what ``kind`` makes of a value, or refuse it by file, row and column."""
    try:
        return kind.one(value)
    except ValueError:
        got = "nothing" if value is None or value == "" else value
        raise InputError(str(path), f"row {row}: {column}", got, kind.allowed) from None


def _fields(path: Path, row: int, line: bytes) -> list[str]:
    text = decoded(path, row, line)
    if '"' not in text:
        return [field.strip() for field in text.split(",")] if text else []
    try:
        return [field.strip() for field in next(csv.reader((text,), strict=True))]
    except csv.Error as error:
        reason = "lines end in CR alone" if "new-line" in str(error) else str(error)
        raise InputError(str(path), f"row {row}", text, f"a line of CSV ({reason})") from None
