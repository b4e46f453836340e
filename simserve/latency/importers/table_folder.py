"""Writes a profile: a folder of small tables, one CSV per kind of kernel, and its head.

The layout is that of ``latency.tables.schema``. Rows are sorted, times microseconds with three
decimals: a folder can be read, compared and patched with a text editor. Of the columns that
tell how a point was measured only those stand there that the source knows.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from simserve.errors import InputError
from simserve.latency.tables.schema import KEYS, MEASURES, SCHEMA, TIMES

HEAD, HOST = "profile.yaml", "host.yaml"
Row = Mapping[str, str | int | float]
Tables = Mapping[str, Iterable[Row]]
_Keys = tuple[tuple[float, str], ...]


def write_folder(
    folder: Path,
    head: Mapping[str, Any],
    tables: Tables,
    host: Mapping[str, Any] | None = None,
) -> dict[str, int]:
    """Write every table that has rows, host time, then the head; return the rows of each.

    A point that was measured more than once is written once, with the median of its times.

    Raises:
        InputError: if ``folder`` exists and is neither empty nor a profile.
    """
    if folder.exists() and (not folder.is_dir() or _is_foreign(folder)):
        raise InputError(str(folder), None, "something else", "a new folder, or a profile's")
    folder.mkdir(parents=True, exist_ok=True)
    rows_written = {}
    for name in KEYS:
        path = folder / f"{name}.csv"
        rows = _once(name, tables.get(name, ()))
        if rows:
            path.write_text(_table_text(name, rows), encoding="utf-8", newline="")
            rows_written[name] = len(rows)
        else:
            path.unlink(missing_ok=True)
    if host is None:
        (folder / HOST).unlink(missing_ok=True)
    else:
        (folder / HOST).write_text(yaml_text(host), encoding="utf-8")
    document = {"schema": SCHEMA, **head, "tables": rows_written}
    (folder / HEAD).write_text(yaml_text(document), encoding="utf-8")
    return rows_written


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def yaml_text(value: Mapping[str, Any], indent: int = 0) -> str:
    """Return a mapping of scalars, mappings and lists as YAML in block style."""
    lines = []
    for key, inner in value.items():
        start = f"{' ' * indent}{key}:"
        if isinstance(inner, Mapping) and inner:
            lines.append(f"{start}\n{yaml_text(inner, indent + 2)}")
        elif isinstance(inner, list) and not all(isinstance(one, int | float) for one in inner):
            lines.append(start + "\n")
            lines += [_list_item(one, indent + 2) for one in inner]
        else:
            lines.append(f"{start} {_scalar(inner)}\n")
    return "".join(lines)


def _list_item(value: object, indent: int) -> str:
    dash = f"{' ' * indent}- "
    if not isinstance(value, Mapping):
        return f"{dash}{_scalar(value)}\n"
    return dash + yaml_text(value, indent + 2).lstrip(" ")


def _scalar(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _is_foreign(folder: Path) -> bool:
    return any(folder.iterdir()) and not (folder / HEAD).is_file()


def _once(name: str, rows: Iterable[Row]) -> list[Row]:
    """Return the rows sorted by their keys, rows of equal keys as one."""
    alike: dict[_Keys, list[Row]] = {}
    for row in rows:
        alike.setdefault(tuple(_sortable(row.get(key)) for key in KEYS[name]), []).append(row)
    time = TIMES[name]
    merged: list[Row] = []
    for keys in sorted(alike):
        same = alike[keys]
        middle = median(float(row[time]) for row in same)
        merged.append({**same[0], time: middle} if len(same) > 1 else same[0])
    return merged


def _table_text(name: str, rows: list[Row]) -> str:
    known = {column for row in rows for column in row}
    measures = [one for one in MEASURES if one in known and one not in KEYS[name]]
    columns = (*KEYS[name], *measures)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(key, row.get(key)) for key in columns] for row in rows)
    return text.getvalue()


def _sortable(value: str | float | None) -> tuple[float, str]:
    if value is None or isinstance(value, str):
        return 0.0, value or ""
    return float(value), ""


def _cell(key: str, value: str | float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if key.startswith("us_") else str(value)
