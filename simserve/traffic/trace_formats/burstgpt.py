"""BurstGPT: CSV with seconds, the tokens of ChatGPT and GPT-4 requests, and failed ones.

``Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type``. A failed request has 0
response tokens; it is left out, and the trace says how many were.
Source: https://github.com/HPMLL/BurstGPT (Wang et al., 2024). The traces are longer than the
simulated clock: choose a part with ``from_s`` and ``to_s``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simserve.errors import InputError
from simserve.records.clock import PS_PER_S
from simserve.traffic.trace_formats.column_kinds import SECONDS, TOKENS, TOKENS_OR_NONE, Kind
from simserve.traffic.trace_formats.columns import (
    EVERYTHING,
    Part,
    TraceFile,
    plain_requests,
    request_table,
    times_of,
)
from simserve.traffic.trace_formats.csv_columns import read_csv_columns

TIME, PROMPT, OUTPUT = "Timestamp", "Request tokens", "Response tokens"
COLUMNS = (TIME, PROMPT, OUTPUT)


def read_burstgpt(path: Path, part: Part = EVERYTHING) -> TraceFile:
    """Return the requests of a BurstGPT trace that were answered.

    ``head`` counts rows of the file, failed ones included.

    Raises:
        InputError: naming the row and the column that cannot be used.
    """
    kinds: dict[str, Kind] = {TIME: SECONDS, PROMPT: TOKENS_OR_NONE, OUTPUT: TOKENS_OR_NONE}
    found = read_csv_columns(path, kinds, part.rows)
    answered = found[OUTPUT] > 0
    failed = int((~answered).sum())
    if failed == len(answered):
        raise InputError(str(path), OUTPUT, "no request that was answered", "at least one")
    empty = answered & (found[PROMPT] == 0)
    if empty.any():
        which = f"row {int(np.flatnonzero(empty)[0]) + 2}: {PROMPT}"
        raise InputError(str(path), which, "0", TOKENS.allowed)
    requests = plain_requests(found[PROMPT][answered], found[OUTPUT][answered])
    times = times_of(path, TIME, found[TIME][answered], PS_PER_S)
    notes = (f"{failed} failed requests (0 response tokens) left out",) if failed else ()
    table = request_table(path, TIME, times, requests, part)
    return TraceFile(requests=table, format="burstgpt", notes=notes)
