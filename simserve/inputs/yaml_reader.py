"""Strict YAML: a file becomes plain dicts, lists and scalars, or one clear complaint.

Built straight from libyaml's events, so nothing is ever composed recursively: depth is
bounded, aliases (and with them "billion laughs") and tags are refused, a key may stand only
once. Plain scalars follow YAML 1.2: ``yes`` and ``on`` are text, ``2.9e12`` is a number.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from simserve.errors import InputError, nearest_name

MAX_FILE_BYTES = 2 * 1024 * 1024
MAX_DEPTH = 32
_SUFFIXES = (".yaml", ".yml")
# Longer integers than this are never meant, and int() on a huge text is slow.
MAX_INTEGER_DIGITS = 30

_INT = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping that the YAML file ``path`` holds.

    Raises:
        InputError: if the file is missing, no regular file, larger than ``MAX_FILE_BYTES``, not
            UTF-8, empty, not one YAML mapping, or uses aliases, tags or a key twice.
    """
    where = str(path)
    found = parse_yaml(_read_text(Path(path), where), where)
    if found is None:
        raise InputError(where, None, "an empty file", "a YAML mapping (key: value)")
    if not isinstance(found, dict):
        raise InputError(where, None, found, "a YAML mapping (key: value) at the top")
    return found


def parse_yaml(text: str, where: str) -> Any:
    """Return what the YAML ``text`` says; None if it holds no document."""
    try:
        return _build(yaml.parse(text, Loader=yaml.CSafeLoader), where)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        got = f"bad YAML ({error.problem or 'no reason given'})"
        raise InputError(where, f"line {line}", got, "YAML") from None
    except yaml.reader.ReaderError as error:
        raise InputError(
            where, None, f"character #x{error.character:02x}", "printable text"
        ) from None
    except yaml.YAMLError as error:
        raise InputError(where, None, str(error), "YAML") from None


def _read_text(path: Path, where: str) -> str:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError(where, None, "a folder", "a YAML file")
        if not stat.S_ISREG(status.st_mode):
            raise InputError(where, None, "not a regular file", "a YAML file")
        if status.st_size > MAX_FILE_BYTES:
            raise _too_large(where, status.st_size)
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise InputError(where, None, "no such file", _allowed_path(path)) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(where, None, reason, "a readable YAML file") from None
    if len(content) > MAX_FILE_BYTES:
        raise _too_large(where, len(content))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        got = f"byte 0x{content[error.start]:02x} at offset {error.start}"
        raise InputError(where, None, got, "UTF-8 text") from None


def _too_large(where: str, size_bytes: int) -> InputError:
    return InputError(
        where,
        None,
        f"{size_bytes} bytes",
        f"at most {MAX_FILE_BYTES} bytes; put requests into a JSONL or CSV trace and name it "
        "under workload.trace.file",
    )


def _allowed_path(path: Path) -> str:
    try:
        beside = {one.stem: one.name for one in path.parent.iterdir() if one.suffix in _SUFFIXES}
    except OSError:
        beside = {}
    near = beside.get(nearest_name(path.stem, beside) or "")
    hint = f"; did you mean {path.parent / near}?" if near else ""
    return f"an existing YAML file{hint}"


def _build(events: Iterator[Any], where: str) -> Any:
    """Return the document that ``events`` describe, kept on a stack of our own."""
    stack: list[_Open] = []
    root: Any = None
    documents = 0
    for event in events:
        if isinstance(event, yaml.ScalarEvent):
            done = _scalar_of(event, stack, where)
        elif isinstance(event, yaml.CollectionStartEvent):
            _refuse_tag(event, where)
            if len(stack) >= MAX_DEPTH:
                raise InputError(
                    where, _line(event), "deeper nesting", f"{MAX_DEPTH} levels at most"
                )
            stack.append(_Open({} if isinstance(event, yaml.MappingStartEvent) else []))
            continue
        elif isinstance(event, yaml.CollectionEndEvent):
            done = stack.pop().content
        elif isinstance(event, yaml.AliasEvent):
            raise InputError(
                where, _line(event), f"*{event.anchor}", "no aliases: write the value out"
            )
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise InputError(where, _line(event), "a second document (---)", "one document")
            continue
        else:
            continue
        if stack:
            stack[-1].add(done, event, where)
        else:
            root = done
    return root


class _Open:
    """A mapping or sequence whose end has not been read yet."""

    __slots__ = ("content", "key")

    def __init__(self, content: dict[str, Any] | list[Any]) -> None:
        self.content = content
        self.key: str | None = None

    def add(self, value: Any, event: Any, where: str) -> None:
        """Take ``value`` as the next item, key or value."""
        if isinstance(self.content, list):
            self.content.append(value)
        elif self.key is not None:
            self.content[self.key] = value
            self.key = None
        elif not isinstance(value, str):
            raise InputError(where, _line(event), repr(value), "text as a key")
        elif value in self.content:
            raise InputError(where, _line(event), f"the key {value} twice", "every key once")
        else:
            self.key = value


def _scalar_of(event: Any, stack: list[_Open], where: str) -> Any:
    _refuse_tag(event, where)
    if not event.implicit[0]:
        return event.value
    which = stack[-1].key if stack and stack[-1].key else _line(event)
    return parse_scalar(event.value, where, which)


def parse_scalar(text: str, where: str, which: str | None) -> Any:
    """Return the null, bool, int, float or text that the plain scalar ``text`` is in YAML 1.2."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        if len(text) > MAX_INTEGER_DIGITS:
            raise InputError(where, which, text, f"at most {MAX_INTEGER_DIGITS} digits")
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    number = float(text) if _FLOAT.fullmatch(text) else None
    if _NOT_FINITE.fullmatch(text) or (number is not None and not math.isfinite(number)):
        raise InputError(where, which, text, "a finite number")
    return text if number is None else number


def _refuse_tag(event: Any, where: str) -> None:
    if event.tag not in (None, "!"):
        raise InputError(where, _line(event), f"the tag {event.tag}", "no tags")


def _line(event: Any) -> str:
    return f"line {event.start_mark.line + 1}"
