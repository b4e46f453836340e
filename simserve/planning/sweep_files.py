"""Where a sweep keeps its rows: a journal while it runs, one CSV or Parquet file at the end.

The journal (``FILE.partial``, one JSON object a line) gets every row as soon as its point is
finished, so a sweep that is killed loses nothing but the points it was working on. The table
itself is written once, whole, and the journal is then removed.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from simserve.errors import InputError
from simserve.planning.destinations import check_directory_destination, check_file_destination
from simserve.planning.sweep_grid import typed
from simserve.results.whole_files import (
    make_directory,
    unwritable,
    write_json,
    write_whole,
)

Row = dict[str, Any]

TEXT_COLUMNS = ("verdict", "reason", "scenario_digest", "simserve_version")
"""Columns whose cells are never read as numbers."""

_TABLE_NAME = "summary.csv"  # `vllm bench sweep` calls its table the same
_SUFFIXES = (".csv", ".parquet")
_WORDS = {"": None, "true": True, "false": False}


class SweepFiles:
    """The table at ``out`` (a ``.csv`` or ``.parquet`` file, or a directory) and its journal."""

    def __init__(self, out: Path, inputs: Sequence[str | Path | None] = ()) -> None:
        self.inputs = tuple(inputs)
        self.directory = None if out.suffix in _SUFFIXES and not out.is_dir() else out
        self.table = out if self.directory is None else out / _TABLE_NAME
        self.journal = self.table.with_name(self.table.name + ".partial")
        self._stream: IO[str] | None = None

    def check(self, *, resume: bool) -> None:
        """Refuse destinations that cannot be written, and a journal that would be lost."""
        if self.directory is None:
            check_file_destination("--out", self.table, self.inputs)
        elif self.directory.suffix and not self.directory.is_dir():
            raise InputError(
                "--out", None, str(self.directory), "a .csv or .parquet file, or a directory"
            )
        else:
            check_directory_destination("--out", self.directory)
        if not resume and self.journal.exists() and _journal_rows(self.journal):
            raise InputError(
                str(self.journal),
                None,
                f"{len(_journal_rows(self.journal))} finished points of an interrupted sweep",
                "--resume to keep them, or remove the file",
            )

    def finished_rows(self) -> list[Row]:
        """Return the rows of the table and of the journal, if there are any."""
        rows = read_table(self.table) if self.table.exists() else []
        return rows + (_journal_rows(self.journal) if self.journal.exists() else [])

    def open_journal(self, rows: Iterable[Row]) -> None:
        """Start the journal with the ``rows`` that are finished already."""
        if self.directory is not None:
            make_directory(self.directory)
        _write_bytes(self.journal, "".join(map(_journal_line, rows)).encode())
        self._stream = self.journal.open("a", encoding="utf-8")

    def append(self, row: Row) -> None:
        """Put a finished row into the journal, at once."""
        if self._stream is None:
            raise RuntimeError("append before open_journal")
        try:
            self._stream.write(_journal_line(row))
            self._stream.flush()
        except OSError as error:
            raise unwritable(self.journal, error) from error

    def save_run(self, row: Row, bench: dict[str, Any]) -> None:
        """Write one point's result file beside the table, if ``out`` is a directory."""
        if self.directory is None:
            return
        runs = self.directory / "runs"
        make_directory(runs)
        write_json(runs / f"{row['scenario_digest'][:16]}.json", bench)

    def close(self) -> None:
        """Let go of the journal; its rows, if there are any, stay for ``--resume``."""
        if self._stream is not None:
            with suppress(OSError):  # the row that could not be written is tried once more
                self._stream.close()
            self._stream = None
            if not _journal_rows(self.journal):
                self.journal.unlink()

    def finish(self, rows: Sequence[Row]) -> None:
        """Write the table and remove the journal."""
        self.close()
        _write_bytes(self.table, table_bytes(rows, self.table.suffix))
        self.journal.unlink(missing_ok=True)


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Return the columns of the table: varied keys, verdict, metrics, provenance."""
    seen: dict[str, None] = {}
    for row in rows:
        seen |= dict.fromkeys(row)
    last = ("scenario_digest", "simserve_version")
    return [name for name in seen if name not in last] + [name for name in last if name in seen]


def table_bytes(rows: Sequence[Row], suffix: str) -> bytes:
    """Return the rows as the content of a ``.csv`` or ``.parquet`` file."""
    return _parquet(rows) if suffix == ".parquet" else _csv(rows)


def read_table(path: Path) -> list[Row]:
    """Return the rows of a table that a sweep has written; an empty cell is left out."""
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            rows = pq.read_table(path).to_pylist()
            return [{key: v for key, v in row.items() if v is not None} for row in rows]
        with path.open(newline="", encoding="utf-8") as stream:
            return [
                {key: _cell(key, text) for key, text in row.items() if text}
                for row in csv.DictReader(stream, strict=True)
            ]
    except (OSError, ValueError, csv.Error, AttributeError, TypeError, MemoryError) as error:
        raise InputError(str(path), None, None, f"a table of a sweep ({error})") from error


def _write_bytes(path: Path, content: bytes) -> None:
    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_whole(path, write)


def _csv(rows: Sequence[Row]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns_of(rows), restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _text(value) for key, value in row.items()})
    return text.getvalue().encode()


def _parquet(rows: Sequence[Row]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {}
    for name in columns_of(rows):
        cells = [row.get(name) for row in rows]
        if any(isinstance(cell, str) for cell in cells):
            cells = [None if cell is None else _text(cell) for cell in cells]
        columns[name] = pa.array(cells)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


def _cell(column: str, text: str) -> Any:
    return text if column in TEXT_COLUMNS else _WORDS.get(text, typed(text))


def _text(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _journal_line(row: Row) -> str:
    return json.dumps(row) + "\n"


def _journal_rows(path: Path) -> list[Row]:
    """Return the whole lines of a journal; the last one may have been cut off."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
