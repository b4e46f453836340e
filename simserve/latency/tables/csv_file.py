"""Reads one table of a profile, strictly: what is wrong is told by file, row and column."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from simserve.errors import InputError, nearest_name
from simserve.latency.tables.schema import KEYS, MEASURES, TIMES, Cell, Column, dtype_name

# Some 7,000 rows are a megabyte; a file far beyond that is no table of kernels.
MAX_FILE_BYTES = 64 * 1024 * 1024
_US_PER_S = 1_000_000
_DTYPES = ("dtype", "q_dtype", "kv_dtype")


@dataclass(frozen=True, slots=True)
class Row:
    """One measured point: its keys, and its median in seconds."""

    keys: Mapping[str, Cell]
    seconds: float
    line: int

    def number(self, key: str) -> int:
        """Return an integer key."""
        return int(self.keys[key])

    def text(self, key: str) -> str:
        """Return a key that is text."""
        return str(self.keys[key])


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one file, in its order."""

    name: str
    where: str
    rows: tuple[Row, ...]


def read_table(path: Path) -> Table:
    """Return the table that ``path`` holds; its stem is the table's name.

    Raises:
        InputError: for the first cell that cannot be used, and for a key that stands twice.
    """
    name, where = path.stem, str(path)
    lines = _lines(path, where)
    header = next(lines, None)
    if header is None:
        raise InputError(where, None, "an empty file", "a header and rows")
    columns = [one.strip() for one in header]
    _check_header(name, columns, where)
    known = {**MEASURES, **KEYS[name]}
    time = columns.index(TIMES[name])
    rows: list[Row] = []
    seen: dict[tuple[Cell, ...], int] = {}
    for line, cells in enumerate(lines, start=2):
        if not any(cells):
            continue
        if len(cells) != len(columns):
            raise InputError(where, f"row {line}", f"{len(cells)} cells", f"{len(columns)}")
        values = {
            column: _cell(cell.strip(), known[column], where, line, column)
            for column, cell in zip(columns, cells, strict=True)
        }
        if not cells[time].strip() or not values[TIMES[name]]:
            got = cells[time].strip() or "nothing"
            raise InputError(where, f"row {line}, {TIMES[name]}", got, "microseconds above 0")
        keys = {key: _key(key, values.get(key), column) for key, column in KEYS[name].items()}
        first = seen.setdefault(tuple(keys.values()), line)
        if first != line and name != "step":  # a step may be measured more than once
            raise InputError(where, f"row {line}", f"the keys of row {first}", "every key once")
        rows.append(Row(keys, float(values[TIMES[name]]) / _US_PER_S, line))
    if not rows:
        raise InputError(where, None, "a header alone", "at least one row")
    return Table(name, where, tuple(rows))


def _lines(path: Path, where: str) -> Iterator[list[str]]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(where, None, "a huge file", f"at most {MAX_FILE_BYTES} bytes")
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.reader(file, strict=True)
    except UnicodeDecodeError as error:
        raise InputError(where, None, f"bytes that are not UTF-8 ({error.reason})", "UTF-8") from (
            None
        )
    except csv.Error as error:
        raise InputError(where, None, str(error), "comma-separated values") from None
    except OSError as error:
        raise InputError(where, None, error.strerror, "a readable CSV file") from None


def _check_header(name: str, columns: list[str], where: str) -> None:
    known = {**MEASURES, **KEYS[name]}
    for column in columns:
        if column not in known:
            near = nearest_name(column, known)
            hint = f"; did you mean {near}?" if near else ""
            raise InputError(where, f"column {column}", "unknown", ", ".join(KEYS[name]) + hint)
        if columns.count(column) > 1:
            raise InputError(where, f"column {column}", "twice", "every column once")
    required = [key for key, column in KEYS[name].items() if column.default is None]
    for column in (*required, TIMES[name]):
        if column not in columns:
            raise InputError(where, f"column {column}", "nothing", "this column in the header")


def _cell(text: str, column: Column, where: str, line: int, name: str) -> Cell:
    if not text:
        if column.default is None:
            raise InputError(where, f"row {line}, {name}", "nothing", column.allowed)
        return column.default
    if column.least is None:
        if column.one_of and text not in column.one_of:
            raise InputError(where, f"row {line}, {name}", text, column.allowed)
        return text
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= column.least) or (
        column.whole and not number.is_integer()
    ):
        raise InputError(where, f"row {line}, {name}", text, column.allowed)
    return int(number) if column.whole else number


def _key(key: str, value: Cell | None, column: Column) -> Cell:
    found = value if value is not None else column.default
    if key in _DTYPES and isinstance(found, str) and found:
        return dtype_name(found)
    return found if found is not None else ""
