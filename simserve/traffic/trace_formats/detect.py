"""Which format a trace file is in, found in its first rows."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from simserve.errors import InputError
from simserve.traffic.trace_formats import (
    azure,
    bailian,
    burstgpt,
    json_rows,
    lengths_only,
    mooncake,
    otel_spans,
    servegen,
    table,
    timed_trace,
)
from simserve.traffic.trace_formats.csv_columns import header_of
from simserve.traffic.trace_formats.text_lines import numbered_lines

FORMATS = {
    "azure": "CSV with TIMESTAMP, ContextTokens, GeneratedTokens",
    "mooncake": "JSONL with timestamp in ms, input_length, output_length, hash_ids of 512 tokens",
    "timed-trace": "JSONL with timestamp in s, input_length, output_length, maybe hash_ids",
    "burstgpt": "CSV with Timestamp, Request tokens, Response tokens",
    "bailian": "JSONL with chat_id, timestamp in s, input_length, output_length, hash_ids",
    "servegen": "JSONL with client, windows, length_pdfs: requests are drawn",
    "otel": "OpenTelemetry spans of requests: OTLP JSON with resourceSpans, or a list of spans",
    "lengths": "CSV, JSONL or a JSON list with prompt_tokens, output_tokens or the like, no times",
    "table": "CSV, JSONL or Parquet with arrival_s, prompt_tokens, output_tokens, or columns named",
}
"""The formats that can be read, by name; underscores are accepted for hyphens."""

# Prompts of at most 16 tokens name one block in either JSONL format; rows after this many
# such prompts are not looked at.
_ROWS_LOOKED_AT = 1000
_NAMING = "--trace-columns arrival_s=NAME,prompt_tokens=NAME,output_tokens=NAME reads any table"


def detect_format(path: Path) -> str:
    """Return the name of the format that the first rows of a file are in.

    CSV and JSONL differ at sight, and the names of the columns tell most formats. Mooncake and
    timed-trace share theirs and differ in unit (a factor of 1000 in every time!), which
    nothing in a row says; they are told apart by the number of ``hash_ids`` per token, and a
    file without any is taken for a timed-trace, in seconds.

    Raises:
        InputError: if the file fits no format, naming them.
    """
    if table.is_parquet(path):
        return "table"
    if otel_spans.looks_like_spans(path):
        return "otel"
    rows = numbered_lines(path)
    first = next(rows, None)
    if first is None:
        raise InputError(str(path), None, "an empty file", "a trace with at least one row")
    if first[1].startswith(b"["):
        return "lengths"
    if first[1].startswith(b"{"):
        return _json_format(path, [first, *islice(rows, _ROWS_LOOKED_AT)])
    return _csv_format(path)


def _csv_format(path: Path) -> str:
    names = header_of(path)
    if table.has_roles(names):
        return "table"
    if all(column in names for column in burstgpt.COLUMNS):
        return "burstgpt"
    if any(column in names for column in azure.COLUMNS):
        return "azure"
    if lengths_only.pair_in(names):
        return "lengths"
    raise _undetected(path, f"columns {', '.join(names)}", _NAMING)


def _json_format(path: Path, rows: list[tuple[int, bytes]]) -> str:
    """Return the format of JSONL by the names in its first row."""
    first = json_rows.as_object(path, *rows[0])
    if servegen.WINDOWS in first and servegen.CLIENT in first:
        return "servegen"
    if table.has_roles(first):
        return "table"
    if json_rows.TIME in first and bailian.CHAT in first:
        return "bailian"
    if json_rows.TIME not in first:
        if lengths_only.pair_in(first) or any(name in first for name in lengths_only.WORDS):
            return "lengths"
        if not any(column in first for column in json_rows.COLUMNS):
            raise _undetected(path, f"columns {', '.join(first)}", _NAMING)
    return _block_format(path, rows)


def _block_format(path: Path, rows: list[tuple[int, bytes]]) -> str:
    """Return which of the two formats with blocks the first telling row is in."""
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


def _undetected(path: Path, got: str, hint: str = "see 'simserve trace --help'") -> InputError:
    allowed = f"{', '.join(FORMATS)}; {hint}"
    return InputError(str(path), None, got, allowed)
