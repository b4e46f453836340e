"""Mooncake's traces (FAST'25 release): JSONL with the prefix blocks of every prompt.

``timestamp`` is in milliseconds and ``hash_ids`` name blocks of 512 tokens, the last of which
covers the rest of the prompt. The published files round time (the conversation trace to about
3 s), so that many requests carry the same timestamp: they arrive together, as bursts, and are
not spread. TTFT under such a burst is that of the burst; nothing in the file says how the
requests lay within it.
Source: https://github.com/kvcache-ai/Mooncake, FAST25-release/traces.
"""

from __future__ import annotations

from pathlib import Path

from simserve.records.clock import PS_PER_MS
from simserve.traffic.trace_formats.columns import EVERYTHING, Part, TraceFile
from simserve.traffic.trace_formats.json_rows import JsonRows, read_json_rows

BLOCK_TOKENS = 512

_FORM = JsonRows(
    name="mooncake",
    ps_per_unit=PS_PER_MS,
    unit="milliseconds",
    block_tokens=BLOCK_TOKENS,
    ids_required=True,
)


def read_mooncake(path: Path, part: Part = EVERYTHING) -> TraceFile:
    """Return the requests of a Mooncake trace.

    Raises:
        InputError: naming the row and the column that cannot be used.
    """
    return read_json_rows(path, _FORM, part)
