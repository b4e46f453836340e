"""Requests written in the forms of other tools, and as a table that loses nothing."""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simserve.errors import unknown_name
from simserve.records.clock import PS_PER_MS, PS_PER_S
from simserve.records.requests import IntArray, RequestTable
from simserve.traffic.segments import block_ids, offsets_of
from simserve.traffic.trace_formats.mooncake import BLOCK_TOKENS as MOONCAKE_BLOCK_TOKENS
from simserve.traffic.trace_formats.timed_trace import BLOCK_TOKENS as TIMED_TRACE_BLOCK_TOKENS

TARGETS = ("timed-trace", "mooncake", "azure", "csv", "parquet")
"""The forms that can be written."""

# Azure's times have no zone; those written here start at this made-up instant.
AZURE_START = "2000-01-01T00:00:00"
_AZURE_DIGITS = 7
_PS_DIGITS = 12
_LINES_AT_A_TIME = 10_000


def target_of(name: str, where: str) -> str:
    """Return the form called ``name``; underscores are accepted for hyphens."""
    normal = name.replace("_", "-")
    if normal not in TARGETS:
        raise unknown_name(where, "to", name, TARGETS)
    return normal


def losses(requests: RequestTable, target: str, *, measured: bool = False) -> list[str]:
    """Return what the form cannot say about these requests, in words."""
    if target in ("csv", "parquet"):
        return []
    lost = []
    if requests.segments is not None and target == "azure":
        lost.append("shared prefixes")
    if requests.output_segment is not None:
        lost.append("that prompts repeat generated tokens")
    if requests.priority is not None:
        lost.append("priorities")
    if requests.request_id is not None:
        lost.append("request ids")
    if measured:
        lost.append("measured latencies")
    if target == "azure":
        lost.append("times below 100 ns")
    return lost


def write_trace(
    path: Path,
    requests: RequestTable,
    target: str,
    *,
    block_tokens: int | None = None,
    packed: bool = False,
    measured: Mapping[str, npt.NDArray[np.float64]] | None = None,
) -> None:
    """Write the requests to ``path``, gzipped if ``packed`` (Parquet packs itself).

    ``measured`` are further columns of a table, in seconds, NaN where nothing was measured.
    ``block_tokens`` is what one id of ``hash_ids`` stands for: 16 in a timed-trace and 512 in
    a Mooncake trace if not given.
    """
    if target == "parquet":
        _write_parquet(path, requests, measured or {})
    elif target == "csv":
        _write_lines(path, table_lines(requests, measured or {}), packed)
    elif target == "azure":
        _write_lines(path, _azure_lines(requests), packed)
    elif target == "mooncake":
        size = block_tokens or MOONCAKE_BLOCK_TOKENS
        _write_lines(path, _json_lines(requests, PS_PER_MS, size, always=True), packed)
    else:
        size = block_tokens or TIMED_TRACE_BLOCK_TOKENS
        _write_lines(path, _json_lines(requests, PS_PER_S, size, always=False), packed)


def _write_lines(path: Path, lines: Iterable[str], packed: bool) -> None:
    with path.open("wb") as file:
        # No name and no time in the gzip header: the same requests give the same bytes.
        out: Any = gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) if packed else file
        held: list[str] = []
        for line in lines:
            held.append(line)
            if len(held) == _LINES_AT_A_TIME:
                out.write("".join(held).encode())
                held.clear()
        out.write("".join(held).encode())
        if packed:
            out.close()


def _json_lines(
    requests: RequestTable, ps_per_unit: int, block_tokens: int, *, always: bool
) -> Iterator[str]:
    times = _decimals(requests.arrival_ps, ps_per_unit)
    blocks: Callable[[int], str] = lambda _: ""  # noqa: E731
    if requests.segments is not None or always:
        counts, ids = block_ids(requests, block_tokens)
        offsets, named = offsets_of(counts).tolist(), ids

        def blocks(request: int) -> str:
            listed = named[offsets[request] : offsets[request + 1]].tolist()
            return f', "hash_ids": {listed}'

    lengths = zip(requests.prompt_tokens.tolist(), requests.output_tokens.tolist(), strict=True)
    for request, (time, (prompt, output)) in enumerate(zip(times, lengths, strict=True)):
        yield (
            f'{{"timestamp": {time}, "input_length": {prompt}, "output_length": {output}'
            f"{blocks(request)}}}\n"
        )


def _azure_lines(requests: RequestTable) -> Iterator[str]:
    yield "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    tick_ps = 10 ** (_PS_DIGITS - _AZURE_DIGITS)
    ticks = np.rint(requests.arrival_ps / tick_ps).astype(np.int64)
    seconds, rest = ticks // 10**_AZURE_DIGITS, ticks % 10**_AZURE_DIGITS
    stamps = np.datetime_as_string(np.datetime64(AZURE_START, "s") + seconds)
    for stamp, digits, prompt, output in zip(
        stamps.tolist(),
        rest.tolist(),
        requests.prompt_tokens.tolist(),
        requests.output_tokens.tolist(),
        strict=True,
    ):
        yield f"{stamp.replace('T', ' ')}.{digits:07},{prompt},{output}\r\n"


def table_lines(
    requests: RequestTable, measured: Mapping[str, npt.NDArray[np.float64]]
) -> Iterator[str]:
    """Yield the lines of the requests as CSV."""
    columns = _table_columns(requests, measured)
    columns["arrival_s"] = list(_decimals(requests.arrival_ps, PS_PER_S))
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="\n")
    for row in [list(columns), *zip(*columns.values(), strict=True)]:
        writer.writerow(row)
        yield line.getvalue()
        line.seek(0)
        line.truncate()


def _write_parquet(
    path: Path, requests: RequestTable, measured: Mapping[str, npt.NDArray[np.float64]]
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table(_table_columns(requests, measured)), path)


def _table_columns(
    requests: RequestTable, measured: Mapping[str, npt.NDArray[np.float64]]
) -> dict[str, list[Any]]:
    """Return the columns of a table, those that say nothing left out."""
    columns: dict[str, list[Any]] = {
        "arrival_s": (requests.arrival_ps / PS_PER_S).tolist(),
        "prompt_tokens": requests.prompt_tokens.tolist(),
        "output_tokens": requests.output_tokens.tolist(),
    }
    if requests.priority is not None:
        columns["priority"] = requests.priority.tolist()
    if requests.request_id is not None:
        columns["request_id"] = list(requests.request_id)
    if requests.segments is not None:
        columns["segments"] = list(_segment_texts(requests))
        if requests.output_segment is not None:
            columns["output_segment"] = requests.output_segment.tolist()
    for name, values in measured.items():
        columns[name] = [None if math.isnan(one) else one for one in values.tolist()]
    return columns


def _segment_texts(requests: RequestTable) -> Iterator[str]:
    table = requests.segments
    if table is None:
        return
    pairs = [f"{s}:{t}" for s, t in zip(table.segment.tolist(), table.tokens.tolist(), strict=True)]
    offsets = table.offsets.tolist()
    for begin, end in pairwise(offsets):
        yield " ".join(pairs[begin:end])


def _decimals(times_ps: IntArray, ps_per_unit: int) -> Iterator[str]:
    """Yield times in a unit, exactly, without digits that say nothing."""
    digits = len(str(ps_per_unit)) - 1
    whole, rest = times_ps // ps_per_unit, times_ps % ps_per_unit
    for unit, part in zip(whole.tolist(), rest.tolist(), strict=True):
        yield f"{unit}.{part:0{digits}}".rstrip("0") if part else str(unit)
