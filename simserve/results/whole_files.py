"""Files that appear whole or not at all: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
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
    target = path.resolve()  # a link stays a link
    temporary = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        write(temporary)
        temporary.replace(target)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` to ``path``, whole or not at all."""
    text = json_text(content)
    write_whole(path, lambda temporary: _write_text(temporary, text))


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
    return InputError(str(path), None, error.strerror, "a place that can be written")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
