"""Files that appear whole or not at all: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from simserve.errors import InputError


def json_text(content: dict[str, Any]) -> str:
    """Return JSON on one line, as vLLM writes it; NaN and infinity are refused."""
    return json.dumps(content, allow_nan=False, ensure_ascii=False) + "\n"


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file in the same folder and rename it to ``path``.

    Raises:
        InputError: if it cannot be written there.
    """
    write_together({path: write})


def write_together(files: Mapping[Path, Callable[[Path], None]]) -> None:
    """Write files, none of which appears before all are complete; the last one appears last.

    Raises:
        InputError: naming the one that cannot be written.
    """
    # A link stays a link; one that leads to itself, which resolve() raises for, is replaced.
    targets = {path: Path(os.path.realpath(path)) for path in files}
    temporaries = {
        path: target.with_name(f".{target.name}.{os.getpid()}.partial")
        for path, target in targets.items()
    }
    try:
        for path, write in files.items():
            write(temporaries[path])
        for path, target in targets.items():
            temporaries[path].replace(target)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        for temporary in temporaries.values():
            with contextlib.suppress(OSError):
                temporary.unlink()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` to ``path``, whole or not at all."""
    write_whole(path, text_writer(json_text(content)))


def text_writer(text: str) -> Callable[[Path], None]:
    """Return what writes ``text`` to a file."""

    def write(path: Path) -> None:
        path.write_text(text, encoding="utf-8")

    return write


@contextlib.contextmanager
def directory_for(path: Path) -> Iterator[None]:
    """Make a directory and its parents, if need be; one that stays empty is taken away again.

    Raises:
        InputError: if it cannot be made.
    """
    made = not path.exists()
    make_directory(path)
    try:
        yield
    finally:
        if made:
            with contextlib.suppress(OSError):  # it is not empty
                path.rmdir()


def make_directory(path: Path) -> None:
    """Make a directory and its parents, if need be.

    Raises:
        InputError: if it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> InputError:
    """Return the error for a place that cannot be written."""
    got = os.strerror(error.errno) if error.errno else str(error)  # Arrow has words of its own
    return InputError(str(path), None, got, "a place that can be written")
