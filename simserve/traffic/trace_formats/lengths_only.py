"""Files of lengths without times: CSV, JSONL or a JSON list, with names that tools commonly use.

The workload says when the requests arrive; the rows keep the order of the file. Files of
conversations in words (ShareGPT's own) are refused: how many tokens a text has is for a
tokenizer to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from simserve.errors import InputError
from simserve.traffic.trace_formats import json_rows
from simserve.traffic.trace_formats.column_kinds import TOKENS
from simserve.traffic.trace_formats.columns import (
    EVERYTHING,
    Part,
    TraceFile,
    missing_column,
    no_rows,
    plain_requests,
)
from simserve.traffic.trace_formats.csv_columns import checked, header_of, read_csv_columns
from simserve.traffic.trace_formats.text_lines import numbered_lines, whole_content

NAMES = (
    ("num_prefill_tokens", "num_decode_tokens"),  # Vidur's traces, arXiv among them
    ("prompt_tokens", "output_tokens"),
    ("prompt_tokens", "completion_tokens"),  # OpenAI's usage objects
    ("prompt_len", "output_len"),  # vLLM's SampleRequest
    ("input_len", "output_len"),
    ("input_length", "output_length"),  # Mooncake, timed_trace
    ("input_tokens", "output_tokens"),
    ("ContextTokens", "GeneratedTokens"),  # Azure
    ("Request tokens", "Response tokens"),  # BurstGPT
)
"""Pairs of names for the tokens of a prompt and of its output."""

WORDS = ("conversations", "messages", "prompt", "text")
"""Names under which files hold words rather than lengths."""

_TIMES = ("arrival_s", "arrival_ms", "arrival_time", "arrived_at", "timestamp", "time")


def read_lengths(path: Path, part: Part = EVERYTHING, *, without_times: bool = True) -> TraceFile:
    """Return requests of the lengths in a file, all of them at time 0.

    Times beside the lengths are left out only if it is known that they should be.

    Raises:
        InputError: naming the row and the column that cannot be used, or a part by time.
    """
    if not part.whole_span:
        raise InputError(str(path), "from_s or to_s", "a time", "none: the file has no times")
    first = next(numbered_lines(path), None)
    if first is None:
        raise no_rows(path)
    if first[1].startswith((b"{", b"[")):
        a_list = first[1].startswith(b"[")
        names, prompts, outputs = _json_lengths(path, part, a_list=a_list)
    else:
        names, a_list = header_of(path), False
        pair = pair_in(names) or _refuse(path, first[0], names)
        found = read_csv_columns(path, dict.fromkeys(pair, TOKENS), part.rows)
        prompts, outputs = (found[name].tolist() for name in pair)
    time = next((name for name in names if name.lower() in _TIMES), None)
    if time is not None and not without_times:
        raise _timed(path, time, pair_in(names) or NAMES[1], a_list=a_list)
    return TraceFile(requests=plain_requests(prompts, outputs), format="lengths", timed=False)


def pair_in(names: Any) -> tuple[str, str] | None:
    """Return the first known pair of names that is among ``names``."""
    return next((pair for pair in NAMES if all(name in names for name in pair)), None)


def _json_lengths(
    path: Path, part: Part, *, a_list: bool
) -> tuple[list[str], list[int], list[int]]:
    """Return the names in the first row, and the lengths."""
    rows = _list_rows(path) if a_list else _line_rows(path)
    pair: tuple[str, str] | None = None
    names: list[str] = []
    prompts: list[int] = []
    outputs: list[int] = []
    for row, value in islice(rows, part.rows):
        names = names or list(value)
        pair = pair or pair_in(value) or _refuse(path, row, list(value))
        for column, lengths in zip(pair, (prompts, outputs), strict=True):
            if column not in value:
                raise missing_column(path, row, column, list(value))
            lengths.append(checked(path, row, column, value[column], TOKENS))
    if pair is None:
        raise no_rows(path)
    return names, prompts, outputs


def _line_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for row, line in numbered_lines(path):
        yield row, json_rows.as_object(path, row, line)


def _list_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import msgspec

    try:
        rows = msgspec.json.decode(whole_content(path) or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        got = f"JSON that does not parse ({error})"
        raise InputError(str(path), None, got, "a JSON list, or one object per line") from None
    for row, value in enumerate(rows, start=1):
        if not isinstance(value, dict):
            raise InputError(str(path), f"row {row}", repr(value), "an object with two lengths")
        yield row, value


def _timed(path: Path, time: str, pair: tuple[str, str], *, a_list: bool) -> InputError:
    named = f"arrival_s={time},prompt_tokens={pair[0]},output_tokens={pair[1]}"
    reads = "one object per line" if a_list else f"--trace-columns {named}, if it is in seconds"
    allowed = f"{reads}; --trace-format lengths leaves it out"
    return InputError(str(path), None, f"column {time} beside the lengths", allowed)


def _refuse(path: Path, row: int, names: list[str]) -> tuple[str, str]:
    if any(name in names for name in WORDS):
        got = f"text ({', '.join(names)})"
        allowed = "lengths, e.g. prompt_tokens and output_tokens: count the tokens first"
        raise InputError(str(path), f"row {row}", got, allowed)
    pair = " and ".join(NAMES[1])
    got = f"columns {', '.join(names)}" if names else "no columns"
    allowed = f"lengths such as {pair} (see 'simserve trace --help')"
    raise InputError(str(path), f"row {row}", got, allowed)
