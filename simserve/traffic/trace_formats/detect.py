"""Which format a trace file is in, said by the user or found in its first rows."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from simserve.errors import InputError, unknown_name
from simserve.records.requests import RequestTable
from simserve.traffic.trace_formats import azure, json_rows, mooncake, timed_trace
from simserve.traffic.trace_formats.text_lines import decoded, numbered_lines

FORMATS = {
    "azure": "CSV with TIMESTAMP, ContextTokens, GeneratedTokens",
    "mooncake": "JSONL with timestamp in ms, input_length, output_length, hash_ids of 512 tokens",
    "timed-trace": "JSONL with timestamp in s, input_length, output_length, maybe hash_ids",
}
"""The formats that can be read, by name; underscores are accepted for hyphens."""

# Prompts of at most 16 tokens name one block in either JSONL format; rows after this many
# such prompts are not looked at.
_ROWS_LOOKED_AT = 1000


def load_trace(
    path: str | Path,
    format: str | None = None,
    head: int | None = None,
    *,
    block_tokens: int | None = None,
) -> RequestTable:
    """Return the requests of a trace file, the first at time 0, in order of arrival.

    ``format`` is a name in ``FORMATS``; None finds it in the file (``detect_format``). ``head``
    reads only that many rows from the file's start (all, if it has fewer), and checks only
    those. ``block_tokens`` says what one entry of ``hash_ids`` stands for in a timed-trace.
    Columns that the format does not name are ignored.

    Raises:
        InputError: if the file, a row of it or an argument cannot be used.
    """
    path = Path(path)
    if head is not None and head < 1:
        raise InputError("head", None, head, "a number of rows, 1 or more")
    if block_tokens is not None and block_tokens < 1:
        raise InputError("block_tokens", None, block_tokens, "a number of tokens, 1 or more")
    if format is None:
        name = "timed-trace" if block_tokens is not None else detect_format(path)
    else:
        name = format.replace("_", "-")
        if name not in FORMATS:
            raise unknown_name(str(path), "format", format, FORMATS)
    if name == "timed-trace":
        return timed_trace.load_timed_trace(path, head, block_tokens or timed_trace.BLOCK_TOKENS)
    if block_tokens is not None:
        raise InputError(str(path), "block_tokens", block_tokens, f"nothing: {name} fixes it")
    return azure.load_azure(path, head) if name == "azure" else mooncake.load_mooncake(path, head)


def detect_format(path: Path) -> str:
    """Return the name of the format that the first rows of a file are in.

    CSV and JSONL differ at sight. The two JSONL formats differ in unit (a factor of 1000 in
    every time!), which nothing in a row says; they are told apart by the number of
    ``hash_ids`` per token, and a file without any is taken for a timed-trace, in seconds.

    Raises:
        InputError: if the file fits no format, listing them.
    """
    rows = numbered_lines(path)
    first = next(rows, None)
    if first is None:
        raise InputError(str(path), None, "an empty file", "a trace with at least one row")
    if first[1].startswith(b"{"):
        return _json_format(path, [first, *islice(rows, _ROWS_LOOKED_AT)])
    names = [name.strip(' "') for name in decoded(path, *first).split(",")]
    if not any(column in names for column in azure.COLUMNS):
        raise _undetected(path, f"columns {', '.join(names)}")
    return "azure"


def _json_format(path: Path, rows: list[tuple[int, bytes]]) -> str:
    """Return which of the two JSONL formats the first telling row is in."""
    named_blocks = False
    for row, line in rows:
        value = json_rows.as_object(path, row, line)
        if not any(column in value for column in json_rows.COLUMNS):
            raise _undetected(path, f"columns {', '.join(value)}")
        ids, tokens = value.get(json_rows.BLOCKS), value.get(json_rows.PROMPT)
        if not isinstance(ids, list) or not isinstance(tokens, int) or tokens < 1:
            continue  # a faulty row is named by the loader, which knows what it wants
        named_blocks = True
        short, long = -(-tokens // timed_trace.BLOCK_TOKENS), -(-tokens // mooncake.BLOCK_TOKENS)
        if short != long and len(ids) in (short, long):
            return "mooncake" if len(ids) == long else "timed-trace"
        if len(ids) not in (short, long):
            got = f"row {row} with {len(ids)} hash_ids for {tokens} tokens"
            raise _undetected(path, f"{got} ({long} in mooncake, {short} in timed-trace)")
    if named_blocks:
        raise _undetected(path, "only prompts so short that mooncake and timed-trace look alike")
    return "timed-trace"


def _undetected(path: Path, got: str) -> InputError:
    known = "; ".join(f"{name} ({what})" for name, what in FORMATS.items())
    return InputError(str(path), None, got, f"name the format: {known}")
