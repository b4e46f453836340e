"""vLLM's ``timed_trace`` form: JSONL with times in seconds; the plainest trace to write.

``{"timestamp": 0.5, "input_length": 100, "output_length": 20}``, and ``hash_ids`` if prompts
share prefixes. Blocks have 16 tokens unless said, as in Alibaba's Qwen (Bailian) traces. A row
without ``hash_ids`` shares its prompt with nobody.
Source: vLLM 0.33, ``vllm bench serve --dataset-name timed_trace``.
"""

from __future__ import annotations

from pathlib import Path

from simserve.records.clock import PS_PER_S
from simserve.records.requests import RequestTable
from simserve.traffic.trace_formats.json_rows import JsonRows, load_json_rows

# vLLM's default of --timed-trace-chunk-hash-size.
BLOCK_TOKENS = 16


def load_timed_trace(
    path: Path, head: int | None = None, block_tokens: int = BLOCK_TOKENS
) -> RequestTable:
    """Return the requests of a ``timed_trace`` file, or of its first ``head`` rows.

    Raises:
        InputError: naming the row and the column that cannot be used.
    """
    form = JsonRows(
        ps_per_unit=PS_PER_S, unit="seconds", block_tokens=block_tokens, ids_required=False
    )
    return load_json_rows(path, form, head)
