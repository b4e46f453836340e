"""Alibaba's Bailian traces of Qwen: JSONL with conversations and the prefix blocks of prompts.

Rows have ``chat_id``, ``parent_chat_id`` (-1 for a first turn), ``timestamp`` in seconds,
``input_length``, ``output_length``, ``type``, ``turn`` and ``hash_ids`` of 16 tokens. The ids
already say what a later turn repeats, so ``parent_chat_id`` adds nothing and is not read.
Source: https://github.com/alibaba-edu/qwen-bailian-usagetraces-anon.
"""

from __future__ import annotations

from pathlib import Path

from simserve.records.clock import PS_PER_S
from simserve.traffic.trace_formats.columns import EVERYTHING, Part, TraceFile
from simserve.traffic.trace_formats.json_rows import JsonRows, read_json_rows

BLOCK_TOKENS = 16
CHAT = "chat_id"

_FORM = JsonRows(
    name="bailian",
    ps_per_unit=PS_PER_S,
    unit="seconds",
    block_tokens=BLOCK_TOKENS,
    ids_required=True,
)


def read_bailian(path: Path, part: Part = EVERYTHING) -> TraceFile:
    """Return the requests of a Bailian trace.

    Raises:
        InputError: naming the row and the column that cannot be used.
    """
    return read_json_rows(path, _FORM, part)
