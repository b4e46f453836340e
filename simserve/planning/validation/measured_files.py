"""Reads measured runs: CSV tables and JSON lines, gzipped or not, in a ground truth folder."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simserve.errors import InputError

Row = dict[str, str]


def rows_of(path: Path) -> list[Row]:
    """Return the rows of a CSV file.

    Raises:
        InputError: if it is missing or cannot be read.
    """
    return list(csv.DictReader(_text(path).splitlines()))


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of JSON lines."""
    for line in _text(path).splitlines():
        if line.strip():
            yield json.loads(line)


def json_file(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file."""
    found: dict[str, Any] = json.loads(_text(path))
    return found


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        return content.decode("utf-8")
    except FileNotFoundError:
        raise InputError(str(path), None, "no such file", "the file of the ground truth") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(str(path), None, str(error), "a readable file") from None
