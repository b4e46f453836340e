"""vLLM's ``timed_trace`` form: JSONL with times in seconds; the plainest trace to write.

``{"timestamp": 0.5, "input_length": 100, "output_length": 20}``, and ``hash_ids`` if prompts
share prefixes. Blocks have 16 tokens unless said, as in Alibaba's Qwen (Bailian) traces. A row
without ``hash_ids`` shares its prompt with nobody.
Source: vLLM 0.33, ``vllm bench serve --dataset-name timed_trace``.
"""

from __future__ import annotations

from pathlib import Path

from simserve.records.clock import PS_PER_S
from simserve.traffic.trace_formats.columns import EVERYTHING, Part, TraceFile
from simserve.traffic.trace_formats.json_rows import JsonRows, read_json_rows

# vLLM's default of --timed-trace-chunk-hash-size.
BLOCK_TOKENS = 16


def read_timed_trace(
    path: Path, part: Part = EVERYTHING, block_tokens: int = BLOCK_TOKENS
) -> TraceFile:
    """Return the requests of a ``timed_trace`` file.

    Raises:
        InputError: naming the row and the column that cannot be used.
    """
    form = JsonRows(
        name="timed-trace",
        ps_per_unit=PS_PER_S,
        unit="seconds",
        block_tokens=block_tokens,
        ids_required=False,
    )
    return read_json_rows(path, form, part)
