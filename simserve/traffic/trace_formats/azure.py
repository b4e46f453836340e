"""The Azure LLM inference traces (2023 and 2024): CSV with a calendar time and two lengths.

``TIMESTAMP`` has up to seven fractional digits (any number up to twelve is read exactly) and
no time zone, or ``+00:00`` as in the files of 2024; lines end in CRLF. The traces name no
prefixes, so no two prompts share anything.
Source: https://github.com/Azure/AzurePublicDataset (Patel et al., "Splitwise", ISCA 2024).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from simserve.errors import InputError
from simserve.records.clock import PS_PER_S, PsArray
from simserve.records.requests import RequestTable
from simserve.traffic.limits import LONGEST_SPAN_PS, MOST_TOKENS
from simserve.traffic.trace_formats.columns import (
    TOKENS_ALLOWED,
    missing_column,
    no_rows,
    request_table,
    too_long,
)
from simserve.traffic.trace_formats.text_lines import decoded, numbered_lines

TIME, PROMPT, OUTPUT = "TIMESTAMP", "ContextTokens", "GeneratedTokens"
COLUMNS = (TIME, PROMPT, OUTPUT)

_TIME_ALLOWED = "a time like 2023-11-16 18:15:46.6805900"
_TIME_TEXT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2})"
    r"(?:\.([0-9]{1,12}))?(?:Z|\+00:00)?"
)
_PS_DIGITS = 12  # decimals of a second in a picosecond


def load_azure(path: Path, head: int | None = None) -> RequestTable:
    """Return the requests of an Azure trace, or of its first ``head`` rows.

    A row without an output token is refused, not repaired: vLLM generates at least one token
    for every request that it finishes, and the files of 2023 hold no such row.

    Raises:
        InputError: naming the row and the column that cannot be used.
    """
    seconds: list[str] = []
    fractions_ps: list[int] = []
    prompts: list[int] = []
    outputs: list[int] = []
    rows: list[int] = []
    for row, (time_text, prompt_text, output_text) in islice(_rows(path), head):
        time = _TIME_TEXT.fullmatch(time_text)
        if time is None:
            raise InputError(str(path), f"row {row}: {TIME}", time_text or "nothing", _TIME_ALLOWED)
        seconds.append(time[1])
        fractions_ps.append(int(time[2].ljust(_PS_DIGITS, "0")) if time[2] else 0)
        prompts.append(_tokens(path, row, PROMPT, prompt_text))
        outputs.append(_tokens(path, row, OUTPUT, output_text))
        rows.append(row)
    if not rows:
        raise no_rows(path)
    arrival_ps = _whole_seconds_ps(path, seconds, rows) + np.array(fractions_ps, dtype=np.int64)
    return request_table(arrival_ps, prompts, outputs)


def _rows(path: Path) -> Iterator[tuple[int, tuple[str, str, str]]]:
    """Yield the row number and the three wanted fields of every row below the header."""
    lines = numbered_lines(path)
    header_row, header = next(lines, (1, b""))
    names = _fields(path, header_row, header)
    for column in COLUMNS:
        if column not in names:
            raise missing_column(path, header_row, column, names)
    time_at, prompt_at, output_at = (names.index(column) for column in COLUMNS)
    for row, line in lines:
        fields = _fields(path, row, line)
        if len(fields) != len(names):
            got = f"{len(fields)} fields"
            raise InputError(str(path), f"row {row}", got, f"{len(names)}, as in the header")
        yield row, (fields[time_at], fields[prompt_at], fields[output_at])


def _fields(path: Path, row: int, line: bytes) -> list[str]:
    text = decoded(path, row, line)
    if '"' not in text:
        return [field.strip() for field in text.split(",")] if text else []
    try:
        return [field.strip() for field in next(csv.reader((text,), strict=True))]
    except csv.Error as error:
        raise InputError(str(path), f"row {row}", text, f"a line of CSV ({error})") from None


def _tokens(path: Path, row: int, column: str, text: str) -> int:
    # isdecimal alone takes other scripts' digits; int() alone takes "1_000" and "+5". The
    # length is looked at first because int() refuses very long numbers with an error of its own.
    if text.isascii() and text.isdecimal() and len(text.lstrip("0")) <= len(str(MOST_TOKENS)):
        tokens = int(text.lstrip("0") or 0)
        if 1 <= tokens <= MOST_TOKENS:
            return tokens
    raise InputError(str(path), f"row {row}: {column}", text or "nothing", TOKENS_ALLOWED)


def _whole_seconds_ps(path: Path, texts: list[str], rows: list[int]) -> PsArray:
    """Return calendar times in picoseconds after the first of them."""
    try:
        seconds = np.array(texts, dtype="datetime64[s]").astype(np.int64)
    except ValueError:  # a well-formed time that no calendar has
        row, text = next((r, t) for r, t in zip(rows, texts, strict=True) if not _is_time(t))
        raise InputError(str(path), f"row {row}: {TIME}", text, _TIME_ALLOWED) from None
    seconds -= seconds.min()
    if seconds.max() > LONGEST_SPAN_PS // PS_PER_S:
        raise too_long(path, TIME, float(seconds.max()) * PS_PER_S)
    return np.asarray(seconds * PS_PER_S)


def _is_time(text: str) -> bool:
    try:
        np.datetime64(text, "s")
    except ValueError:
        return False
    return True
