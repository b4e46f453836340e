"""The tables of docs/knob-ledger.md: every flag of ``vllm serve``, and what becomes of it."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

from simserve.inputs.launch_line.flag_table import Flag, vllm_table

ROOT = Path(__file__).resolve().parent.parent
KNOBS = "tests/policy/test_knobs.py"
DEPLOYMENTS = "tests/inputs/test_deployment.py"
LINES = "tests/inputs/launch_line/test_round_trip.py"

ELSEWHERE = {
    "model": (LINES, "test_printed_line_reads_back_as_the_same_deployment"),
    "tp": (LINES, "test_printed_line_reads_back_as_the_same_deployment"),
    "replicas": (LINES, "test_printed_line_reads_back_as_the_same_deployment"),
    "quantization": (DEPLOYMENTS, "test_quantised_weights_leave_their_bytes_to_the_kv_pool"),
    "kv_cache_dtype": (DEPLOYMENTS, "test_eight_bit_kv_values_double_the_blocks"),
    "gpu_memory_utilization": (
        DEPLOYMENTS,
        "test_a_larger_memory_fraction_never_gives_fewer_blocks",
    ),
    "kv_cache_memory_bytes": (LINES, "test_printed_line_reads_back_as_the_same_deployment"),
}
"""Settings that no scheduler sees, and the tests that show them; the rest are in KNOBS."""


def modelled() -> str:
    """Return the flags that change a simulation, each with the test that shows it."""
    lines = ["| flag | setting | default | shown by |", "| --- | --- | --- | --- |"]
    for flag in _flags("modelled"):
        path, test = _test_of(flag.setting)
        default = "decided at start" if flag.default is None else f"`{flag.default}`"
        lines.append(f"| `{flag.name}` | `{flag.setting}` | {default} | [`{test}`](../{path}) |")
    return "\n".join(lines)


def irrelevant() -> str:
    """Return the flags that are accepted and change nothing, by reason."""
    return _by_reason("irrelevant")


def refused() -> str:
    """Return the flags that are refused unless at their default, by reason."""
    return _by_reason("refused")


def counts() -> str:
    """Return how many flags there are of each kind."""
    table = vllm_table()
    kinds = sorted({flag.meaning for flag in table.flags})
    said = ", ".join(f"{len(_flags(kind))} {kind}" for kind in kinds)
    return f"vLLM {table.version}, read on {table.date}: {len(table.flags)} flags; {said}."


def _flags(meaning: str) -> list[Flag]:
    return sorted((f for f in vllm_table().flags if f.meaning == meaning), key=lambda f: f.name)


def _by_reason(meaning: str) -> str:
    names = defaultdict(list)
    for flag in _flags(meaning):
        names[flag.why].append(f"`{flag.name}`")
    lines = ["| why | flags |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| {why} | {' '.join(names[why])} |" for why in sorted(names))])


def _test_of(setting: str) -> tuple[str, str]:
    """Return the file and the name of the test that shows a setting.

    Raises:
        ValueError: if there is none.
    """
    path, wanted = ELSEWHERE.get(setting, (KNOBS, f"test_{setting}_"))
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    # The longest setting wins: max_num_seqs is not shown by a test of max_num_seqs_of_others.
    found = [name for name in names if name.startswith(wanted)]
    if not found:
        raise ValueError(f"no test in {path} shows {setting}")
    return path, min(found, key=len)
