"""Traces with one JSON object per line: a time, two lengths and the ids of prefix blocks.

Mooncake's traces and vLLM's ``timed_trace`` are this one form; they differ in the unit of
time, in the tokens of a block and in whether the ids may be left out.
"""

from __future__ import annotations

import json
import math
from array import array
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from simserve.errors import InputError
from simserve.traffic.limits import MOST_TOKENS
from simserve.traffic.segments import segments_of_blocks
from simserve.traffic.trace_formats.columns import (
    EVERYTHING,
    TOKENS_ALLOWED,
    Part,
    TraceFile,
    missing_column,
    no_rows,
    plain_requests,
    request_table,
    times_of,
)
from simserve.traffic.trace_formats.text_lines import numbered_lines

TIME, PROMPT, OUTPUT, BLOCKS = "timestamp", "input_length", "output_length", "hash_ids"
COLUMNS = (TIME, PROMPT, OUTPUT)

# Leaves room above the ids of a file for those of prompts that name no block.
_LARGEST_ID = 2**62
_IDS_ALLOWED = f"a list of whole numbers from 0 to {_LARGEST_ID}"

_Tokens = Annotated[int, msgspec.Meta(ge=1, le=MOST_TOKENS)]
_BlockId = Annotated[int, msgspec.Meta(ge=0, le=_LARGEST_ID)]


class _Row(msgspec.Struct):
    timestamp: Annotated[float, msgspec.Meta(ge=0)]
    input_length: _Tokens
    output_length: _Tokens
    hash_ids: list[_BlockId] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonRows:
    """What one such format means by a row."""

    name: str
    ps_per_unit: int  # of the column timestamp
    unit: str  # its name, for messages
    block_tokens: int  # tokens that one id stands for
    ids_required: bool


def read_json_rows(path: Path, form: JsonRows, part: Part = EVERYTHING) -> TraceFile:
    """Return the requests of a trace.

    A prompt of ``n`` tokens names ``ceil(n / block_tokens)`` blocks; the last covers the rest.
    Two prompts share a prefix as far as their ids agree. A row without an output token is
    refused, not repaired: vLLM generates at least one for every request that it finishes.

    Raises:
        InputError: naming the row and the column that cannot be used.
    """
    decode = msgspec.json.Decoder(_Row).decode
    times, prompts, outputs = array("d"), array("q"), array("q")
    block_counts, block_ids = array("q"), array("q")
    block_tokens = form.block_tokens
    for row, line in islice(numbered_lines(path), part.rows):
        try:
            request = decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _complaint(path, row, line, form, str(error)) from None
        ids = request.hash_ids
        if ids is None:
            if form.ids_required:
                raise _complaint(path, row, line, form, "no block ids")
            ids = []
        elif len(ids) != -(-request.input_length // block_tokens):
            raise _wrong_count(path, row, request.input_length, len(ids), block_tokens)
        times.append(request.timestamp)
        prompts.append(request.input_length)
        outputs.append(request.output_length)
        block_counts.append(len(ids))
        block_ids.extend(ids)
    if not times:
        raise no_rows(path)
    segments = segments_of_blocks(
        np.frombuffer(prompts, np.int64),
        np.frombuffer(block_counts, np.int64),
        np.frombuffer(block_ids, np.int64) if block_ids else np.zeros(0, np.int64),
        block_tokens,
    )
    requests = replace(plain_requests(prompts, outputs), segments=segments)
    instants = times_of(path, TIME, np.frombuffer(times), form.ps_per_unit)
    return TraceFile(
        requests=request_table(path, TIME, instants, requests, part),
        format=form.name,
        block_tokens=None if segments is None else block_tokens,
    )


def as_object(path: Path, row: int, line: bytes) -> dict[str, Any]:
    """Return a line as a JSON object, or refuse it with its row number."""
    try:
        value = msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        value = _leniently(line)
    if not isinstance(value, dict):
        raise InputError(str(path), f"row {row}", line, "one JSON object per line")
    return value


def _leniently(line: bytes) -> Any:
    """Return what Python's own reader makes of a line: NaN is a number to it."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _wrong_count(path: Path, row: int, tokens: int, ids: int, block_tokens: int) -> InputError:
    wanted = -(-tokens // block_tokens)
    allowed = f"{wanted} for {tokens} tokens in blocks of {block_tokens}"
    return InputError(str(path), f"row {row}: {BLOCKS}", f"{ids} ids", allowed)


def _complaint(path: Path, row: int, line: bytes, form: JsonRows, reason: str) -> InputError:
    """Return the refusal of a row that did not decode, naming the first column at fault."""
    value = as_object(path, row, line)
    wanted = (*COLUMNS, BLOCKS) if form.ids_required else COLUMNS
    for column in wanted:
        if column not in value:
            return missing_column(path, row, column, list(value))
    time = value[TIME]
    if not _is_number(time) or not math.isfinite(time) or time < 0:
        return InputError(
            str(path), f"row {row}: {TIME}", _shown(time), f"a time in {form.unit}, 0 or later"
        )
    for column in (PROMPT, OUTPUT):
        tokens = value[column]
        if (
            not isinstance(tokens, int)
            or isinstance(tokens, bool)
            or not (1 <= tokens <= MOST_TOKENS)
        ):
            return InputError(str(path), f"row {row}: {column}", _shown(tokens), TOKENS_ALLOWED)
    if BLOCKS in value and (reason_ids := _bad_ids(value[BLOCKS])) is not None:
        return InputError(str(path), f"row {row}: {BLOCKS}", reason_ids, _IDS_ALLOWED)
    return InputError(str(path), f"row {row}", line, f"a row of plain JSON ({reason})")


def _bad_ids(ids: object) -> str | None:
    """Return what is wrong about a list of block ids, or None."""
    if not isinstance(ids, list):
        return _shown(ids)
    for block in ids:
        good = isinstance(block, int) and not isinstance(block, bool)
        if not good or not 0 <= block <= _LARGEST_ID:
            return _shown(block)
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: object) -> str:
    """Return a JSON value the way the file spells it."""
    return json.dumps(value)
