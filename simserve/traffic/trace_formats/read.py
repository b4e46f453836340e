"""The one door to trace files: any format, all of it or a part."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from simserve.errors import InputError, unknown_name
from simserve.records.requests import RequestTable
from simserve.traffic.trace_formats.azure import read_azure
from simserve.traffic.trace_formats.bailian import read_bailian
from simserve.traffic.trace_formats.burstgpt import read_burstgpt
from simserve.traffic.trace_formats.columns import EVERYTHING, NotInOrderError, Part, TraceFile
from simserve.traffic.trace_formats.detect import FORMATS, detect_format
from simserve.traffic.trace_formats.lengths_only import read_lengths
from simserve.traffic.trace_formats.mooncake import read_mooncake
from simserve.traffic.trace_formats.otel import read_otel
from simserve.traffic.trace_formats.servegen import read_servegen
from simserve.traffic.trace_formats.table import read_table
from simserve.traffic.trace_formats.text_lines import refuse_pipe
from simserve.traffic.trace_formats.timed_trace import BLOCK_TOKENS, read_timed_trace

_PLAIN_READERS: dict[str, Callable[[Path, Part], TraceFile]] = {
    "azure": read_azure,
    "mooncake": read_mooncake,
    "burstgpt": read_burstgpt,
    "bailian": read_bailian,
}


def load_trace(
    path: str | Path,
    format: str | None = None,
    head: int | None = None,
    *,
    block_tokens: int | None = None,
) -> RequestTable:
    """Return the requests of a trace file, the first at time 0, in order of arrival.

    See ``read_trace``, which says more about the file and reads parts of it.
    """
    return read_trace(path, format, Part(head=head), block_tokens=block_tokens).requests


def read_trace(
    path: str | Path,
    format: str | None = None,
    part: Part = EVERYTHING,
    *,
    block_tokens: int | None = None,
    columns: Mapping[str, str] | None = None,
    rate_per_s: float | None = None,
    skip_incomplete: bool = False,
    seed: int = 0,
) -> TraceFile:
    """Return a trace file's requests, the first at time 0, in order of arrival.

    ``format`` is a name in ``FORMATS``; None finds it in the file (``detect_format``), or is a
    table if ``columns`` are named. ``part.head`` reads only that many rows from the file's
    start, and checks only those, unless they are not in order of arrival. ``block_tokens`` says
    what one entry of ``hash_ids`` stands for in a timed-trace. ``rate_per_s`` and ``seed`` matter
    only to formats that requests are drawn from; ``skip_incomplete`` leaves out spans (format
    otel) without token counts. Columns that the format does not name are ignored.

    Raises:
        InputError: if the file, a row of it or an argument cannot be used.
    """
    path = Path(path)
    refuse_pipe(path)
    if part.head is not None and part.head < 1:
        raise InputError("head", None, part.head, "a number of rows, 1 or more")
    if block_tokens is not None and block_tokens < 1:
        raise InputError("block_tokens", None, block_tokens, "a number of tokens, 1 or more")
    name = _format(path, format, columns, block_tokens)
    if columns is not None and name != "table":
        raise InputError(str(path), "columns", "a value", f"nothing: {name} fixes them")
    if skip_incomplete and name != "otel":
        raise InputError(str(path), "skip_incomplete", True, f"nothing: {name} has no spans")
    if block_tokens is not None and name != "timed-trace":
        raise InputError(str(path), "block_tokens", block_tokens, f"nothing: {name} fixes it")
    read: dict[str, Callable[[Path, Part], TraceFile]] = {
        "timed-trace": partial(read_timed_trace, block_tokens=block_tokens or BLOCK_TOKENS),
        "table": partial(read_table, columns=columns),
        "lengths": partial(read_lengths, without_times=format is not None),
        "otel": partial(read_otel, skip_incomplete=skip_incomplete),
        "servegen": partial(read_servegen, rate_per_s=rate_per_s, seed=seed),
        **_PLAIN_READERS,
    }
    try:
        return read[name](path, part)
    except NotInOrderError:
        return read[name](path, replace(part, to_s=math.inf))  # all rows, of which the first


def _format(
    path: Path, format: str | None, columns: Mapping[str, str] | None, block_tokens: int | None
) -> str:
    if format is not None:
        name = format.replace("_", "-")
        if name not in FORMATS:
            raise unknown_name(str(path), "format", format, FORMATS)
        return name
    if columns is not None:
        return "table"
    return "timed-trace" if block_tokens is not None else detect_format(path)
