"""Turns the text behind a flag into its value, by the rules of vLLM 0.33's ``arg_utils.py``."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from simserve.inputs.launch_line.flag_table import Flag

_HUMAN = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT])", re.ASCII)
_DECIMAL = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_INTEGER = re.compile(r"[-+]?\d{1,30}", re.ASCII)
_STRING_IN_JSON = re.compile(r'("(?:[^"\\]|\\.)*")')
_HUMAN_IN_JSON = re.compile(r"\b\d+(?:\.\d+)?[kKmMgGtT]\b", re.ASCII)
_MOST_DIGITS = 30
AUTO_LENGTH = -1


def parse_value(flag: Flag, raw: Any) -> Any:
    """Return the value of ``flag`` that the text, texts, bool or dict ``raw`` stands for.

    Raises:
        ValueError: if the flag's parser would refuse it.
    """
    if not isinstance(raw, str):
        return raw
    if flag.optional and raw in ("", "None"):
        return None
    value = _PARSERS.get(flag.kind, str)(raw)
    if flag.choices and value not in flag.choices:
        raise ValueError(raw)
    return value


def human_int(text: str) -> int:
    """Return an integer such as 8192, 8k (8000), 8K (8192) or 25.6k (25600)."""
    found = _HUMAN.fullmatch(text.strip())
    if found is None:
        return _plain_int(text)
    number, suffix = found.groups()
    if len(number) > _MOST_DIGITS:
        raise ValueError(text)
    if suffix in _DECIMAL:
        return int(float(number) * _DECIMAL[suffix])
    return int(number) * _BINARY[suffix]  # vLLM refuses decimals here, and so does int()


def _human_int_or_auto(text: str) -> int:
    return AUTO_LENGTH if text.strip().lower() in ("-1", "auto") else human_int(text)


def _plain_int(text: str) -> int:
    if _INTEGER.fullmatch(text.strip()) is None:
        raise ValueError(text)
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def as_json(text: str) -> Any:
    """Return what the JSON ``text`` says; bare numbers may have suffixes such as 80m."""
    parts = _STRING_IN_JSON.split(text)
    for at in range(0, len(parts), 2):  # outside strings
        parts[at] = _HUMAN_IN_JSON.sub(lambda found: str(human_int(found[0])), parts[at])
    try:
        return json.loads("".join(parts))
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None


def _json_or_text(text: str) -> Any:
    return as_json(text) if re.fullmatch(r"\s*{.*}\s*", text, re.DOTALL) else text


_PARSERS: dict[str, Any] = {
    "int": _plain_int,
    "human-int": human_int,
    "human-int-or-auto": _human_int_or_auto,
    "float": _finite,
    "json": as_json,
    "json-or-text": _json_or_text,
}
