"""Runs to compare, from a folder of ``run --out`` or from the file of a benchmark.

The format is told from what is in the file, never from its name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from simserve.errors import InputError, reason_of
from simserve.results.measured import Measurement, of_result
from simserve.results.measured_bench import is_bench, read_bench
from simserve.results.measured_others import is_aiperf, is_guidellm, read_aiperf, read_guidellm
from simserve.results.result import Result

_FORMATS = (
    (is_guidellm, read_guidellm),
    (is_aiperf, read_aiperf),
    (is_bench, read_bench),
)
_ALLOWED = (
    "a folder that 'run --out' wrote, or JSON of vllm bench serve, SGLang bench_serving, "
    "GuideLLM or AIPerf"
)
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)


def read_measured(source: str | Path) -> Measurement:
    """Return the run in a folder or a file.

    Raises:
        InputError: if there is none, or its format is not known, or it is damaged.
    """
    path = Path(source)
    if path.is_dir():
        return of_result(Result.load(path), source)
    entry = _read_json(path)
    for is_it, read in _FORMATS:
        if is_it(entry):
            try:
                return read(entry, str(source))
            except _UNREADABLE as error:
                raise InputError(str(source), None, reason_of(error), _ALLOWED) from error
    raise InputError(str(source), None, "JSON of another kind", _ALLOWED)


def _read_json(path: Path) -> dict[str, Any]:
    """Return the one object of a file of JSON, or of JSON Lines."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(str(path), None, "no such file", _ALLOWED) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(path), None, reason_of(error), _ALLOWED) from error
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        found = _from_lines(path, text)
    if not isinstance(found, dict):
        raise InputError(str(path), None, "no JSON object", _ALLOWED)
    return found


def _from_lines(path: Path, text: str) -> Any:
    try:
        lines = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        raise InputError(str(path), None, reason_of(error), _ALLOWED) from error
    if not lines:
        raise InputError(str(path), None, "an empty file", _ALLOWED)
    if len(lines) != 1:
        allowed = "one result: keep the line to compare"
        raise InputError(str(path), None, f"{len(lines)} results, one a line", allowed)
    return lines[0]
