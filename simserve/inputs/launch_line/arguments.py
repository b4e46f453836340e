"""Takes the words behind a server's name apart into flags and values, as its parser would.

The rules are those of ``FlexibleArgumentParser`` in vLLM 0.33's ``utils/argparse_utils.py``, with
abbreviations off: ``_`` and ``-`` in names, ``--flag=value``, ``-O3``, dotted JSON keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simserve.errors import InputError
from simserve.inputs.launch_line.flag_table import EXPANDED, Flag, FlagTable
from simserve.inputs.launch_line.flag_values import as_json, human_int

_NEGATIVE_NUMBER = re.compile(r"-\d+|-\d*\.\d+")
_LEVEL = "--optimization-level"
_TRUTH = re.compile(r"(?i)true|false|yes|no|on|off|0|1")
_MOST_WORDS = 10_000


@dataclass(frozen=True, slots=True)
class Given:
    """A flag with its raw value (text, list of texts, bool, or the dict of dotted keys)."""

    flag: Flag
    value: Any
    spelled: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """The flags in the order they were given, and the words that belong to none."""

    given: tuple[Given, ...]
    positional: tuple[str, ...]


def read_arguments(words: Sequence[str], table: FlagTable, where: str) -> Arguments:
    """Return what ``words`` say.

    Raises:
        InputError: for an unknown flag or one without its value.
    """
    if len(words) > _MOST_WORDS:
        raise InputError(where, None, f"{len(words)} words", f"at most {_MOST_WORDS}")
    return _Reader(words, table, where).read()


class _Reader:
    def __init__(self, words: Sequence[str], table: FlagTable, where: str) -> None:
        self.words, self.table, self.where = words, table, where
        self.at = 0
        self.given: list[Given] = []
        self.positional: list[str] = []
        self.dotted: dict[str, tuple[Flag, str, dict[str, Any]]] = {}

    def read(self) -> Arguments:
        while self.at < len(self.words):
            word = self.words[self.at]
            self.at += 1
            if _is_flag(word):
                self._flag(word)
            else:
                self._positional(word)
        for flag, spelled, value in self.dotted.values():
            self.given.append(Given(flag, value, spelled))
        return Arguments(tuple(self.given), tuple(self.positional))

    def _flag(self, word: str) -> None:
        name, equals, value = word.partition("=")
        spelling = _dashed(name)
        if spelling.startswith("-O") and self.table.find(_LEVEL):
            self._level(word)
            return
        found = self.table.find(spelling)
        if found is None and not equals:
            found, spelling, glued = self._glued(spelling)
            value = glued if glued is not None else value
            equals = "=" if glued is not None else ""
        if found is None and "." in spelling:
            self._dotted_key(name, value if equals else None)
            return
        if found is None:
            raise self.table.unknown(self.where, spelling.partition(".")[0])
        flag, affirmed = found
        if flag.takes_no_value:
            if equals:
                raise self._valueless(flag, spelling, value)
            self.given.append(Given(flag, affirmed, spelling))
        elif equals and flag.meaning == EXPANDED and self.table.engine == "vllm":
            # FlexibleArgumentParser looks for the bare word, and ignores this in silence.
            raise InputError(self.where, spelling, word, f"{spelling} FILE: vLLM skips it with =")
        elif equals and flag.kind == "list":
            self.given.append(Given(flag, [value], spelling))
        elif equals:
            self.given.append(Given(flag, value, spelling))
        else:
            self.given.append(Given(flag, self._values(flag, spelling), spelling))

    def _glued(self, spelling: str) -> tuple[tuple[Flag, bool] | None, str, str | None]:
        """Return the short flag that ``-tp2`` begins with, and what is glued to it."""
        found = re.fullmatch(r"(-[a-z]+)(\d+)|(-[a-z])(.+)", spelling)
        if found is None:
            return None, spelling, None
        name, value = (found[1], found[2]) if found[1] else (found[3], found[4])
        flag = self.table.find(name)
        return (
            (flag, name, value) if flag and not flag[0].takes_no_value else (None, spelling, None)
        )

    def _level(self, word: str) -> None:
        """Read -O3, -O=3 and -O 3."""
        value = word[2:].removeprefix("=")
        if not value:
            following = self.words[self.at : self.at + 1]
            if not following or _is_flag(following[0]):
                raise InputError(self.where, "-O", "no level", "0, 1, 2 or 3")
            value = following[0]
            self.at += 1
        found = self.table.find(_LEVEL)
        if found is not None:
            self.given.append(Given(found[0], value, "-O"))

    def _values(self, flag: Flag, spelling: str) -> Any:
        following = self.words[self.at : self.at + 1]
        missing = not following or _is_flag(following[0])
        if missing and flag.kind == "text-or-bare":
            return True
        if missing:
            got = f"{following[0]} instead of a value" if following else "no value"
            raise InputError(self.where, spelling, got, f"a value: {expected(flag)}")
        if flag.kind != "list":
            self.at += 1
            return following[0]
        values = []
        while self.at < len(self.words) and not _is_flag(self.words[self.at]):
            values.append(self.words[self.at])
            self.at += 1
        return values

    def _dotted_key(self, name: str, value: str | None) -> None:
        """Read ``--speculative-config.method eagle`` into the JSON of --speculative-config."""
        base, *keys = name.split(".")
        found = self.table.find(_dashed(base))
        if found is None or found[0].kind not in ("json", "json-or-text"):
            if found is None:
                raise self.table.unknown(self.where, _dashed(base))
            raise InputError(self.where, name, "a key of a flag", f"{base} {expected(found[0])}")
        if value is None:
            if self.at >= len(self.words):
                raise InputError(self.where, name, "no value", "a value")
            value = self.words[self.at]
            self.at += 1
        listed = keys[-1].endswith("+")
        keys[-1] = keys[-1].removesuffix("+")
        content: Any = value.split(",") if listed else _dotted_value(value)
        inside = self.dotted.setdefault(found[0].name, (found[0], name, {}))[2]
        for key in keys[:-1]:
            inside = inside.setdefault(key, {})
            if not isinstance(inside, dict):
                raise InputError(self.where, name, f"a key below {key}, a value", "one of the two")
        before = inside.get(keys[-1])
        inside[keys[-1]] = before + content if listed and isinstance(before, list) else content

    def _positional(self, word: str) -> None:
        before = self.given[-1] if self.given else None
        if before and before.flag.takes_no_value and _TRUTH.fullmatch(word):
            raise self._valueless(before.flag, before.spelled, word)
        self.positional.append(word)

    def _valueless(self, flag: Flag, spelling: str, value: str) -> InputError:
        no = next(flag.negations, None)
        allowed = f"{flag.name} alone" + (f", or {no}" if no else "")
        return InputError(self.where, spelling, f"the value {value}", allowed)


def _is_flag(word: str) -> bool:
    """Return whether argparse would take ``word`` for a flag."""
    if not word.startswith("-") or word == "-" or _NEGATIVE_NUMBER.fullmatch(word):
        return False
    return " " not in word.partition("=")[0]


def _dashed(name: str) -> str:
    """Return a long flag's name with hyphens, up to its first dot."""
    if not name.startswith("--"):
        return name
    first, dot, rest = name.partition(".")
    return first.replace("_", "-") + dot + rest


def _dotted_value(text: str) -> Any:
    try:
        return as_json(text)
    except ValueError:
        pass
    try:
        return human_int(text)
    except ValueError:
        return text


def expected(flag: Flag) -> str:
    """Return in words what values ``flag`` takes."""
    if flag.choices:
        return ", ".join(map(str, flag.choices))
    return {
        "int": "an integer",
        "human-int": "an integer, or such as 8k (8000) or 8K (8192)",
        "human-int-or-auto": "an integer, or such as 32k (32000) or 32K (32768), or auto",
        "float": "a number",
        "json": "JSON, such as " + json.dumps({"key": "value"}),
    }.get(flag.kind, "text")
