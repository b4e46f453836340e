"""The Azure LLM inference traces (2023 and 2024): CSV with a calendar time and two lengths.

``TIMESTAMP`` has up to seven fractional digits (any number up to twelve is read exactly) and
no time zone, or ``+00:00`` as in the files of 2024; lines end in CRLF. The traces name no
prefixes, so no two prompts share anything.
Source: https://github.com/Azure/AzurePublicDataset (Patel et al., "Splitwise", ISCA 2024).
"""

from __future__ import annotations

from pathlib import Path

from simserve.traffic.trace_formats.column_kinds import CALENDAR, TOKENS, Kind
from simserve.traffic.trace_formats.columns import (
    EVERYTHING,
    Part,
    Times,
    TraceFile,
    plain_requests,
    request_table,
)
from simserve.traffic.trace_formats.csv_columns import read_csv_columns

TIME, PROMPT, OUTPUT = "TIMESTAMP", "ContextTokens", "GeneratedTokens"
COLUMNS = (TIME, PROMPT, OUTPUT)


def read_azure(path: Path, part: Part = EVERYTHING) -> TraceFile:
    """Return the requests of an Azure trace.

    A row without an output token is refused, not repaired: vLLM generates at least one token
    for every request that it finishes, and the files of 2023 hold no such row.

    Raises:
        InputError: naming the row and the column that cannot be used.
    """
    kinds: dict[str, Kind] = {TIME: CALENDAR, PROMPT: TOKENS, OUTPUT: TOKENS}
    found = read_csv_columns(path, kinds, part.rows)
    stamps = found.pop(TIME)
    times = Times(whole_s=stamps[:, 0], rest_ps=stamps[:, 1])
    requests = plain_requests(found.pop(PROMPT), found.pop(OUTPUT))
    return TraceFile(requests=request_table(path, TIME, times, requests, part), format="azure")
