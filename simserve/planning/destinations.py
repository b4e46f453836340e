"""Destinations are refused before a simulation starts, not when it has ended.

A simulation can take minutes. How a file is written (whole, or not at all) is told in
``results.whole_files``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from simserve.errors import InputError


def check_file_destination(where: str, path: Path, inputs: Iterable[str | Path | None]) -> None:
    """Refuse ``path`` if no file can be written there, or if it is one of ``inputs``.

    ``where`` names the option that gave it.
    """
    if path.is_dir():
        raise InputError(where, None, str(path), "the name of a file; this is a directory")
    if path.exists() and not path.is_file():  # renaming over /dev/null would replace it
        raise InputError(where, None, str(path), "an ordinary file; this is a device or a pipe")
    if not path.parent.is_dir():
        raise InputError(where, None, str(path), "a file in a directory that exists")
    for source in inputs:
        if source is not None and _is_same(path, Path(source)):
            raise InputError(where, None, str(path), "a file that is not one of the inputs")
    _probe(where, path, path.parent)


def check_directory_destination(where: str, path: Path) -> None:
    """Refuse ``path`` unless it is a writable directory or could become one."""
    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise InputError(where, None, str(path), f"a directory; {existing} is a file")
    _probe(where, path, existing)


def _is_same(path: Path, source: Path) -> bool:
    return path.exists() and source.exists() and path.samefile(source)


def _probe(where: str, path: Path, directory: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise InputError(
            where, None, str(path), f"a place that can be written ({error.strerror})"
        ) from error
