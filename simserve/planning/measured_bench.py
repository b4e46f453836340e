"""A result of ``vllm bench serve`` as the load it put on a server, and the means it measured."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from simserve.errors import InputError
from simserve.planning.measured_means import TPOT, TTFT, MeasuredBench
from simserve.records.clock import PS_PER_S
from simserve.records.requests import IntArray, RequestTable

_MEANS = ("mean_ttft_ms", "mean_tpot_ms")
_SEED = 0
_MOST_PROMPTS = 1_000_000


def read_bench(path: Path) -> MeasuredBench:
    """Return the benchmark in ``path``.

    Lengths are those of every request if the file is detailed, else their mean. Requests start
    when they did, or with Poisson gaps at the asked rate, or in a closed loop of
    ``max_concurrency`` users if the rate is inf.

    Raises:
        InputError: if the file cannot be read, or does not tell the load.
    """
    where = str(path)
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(where, None, str(error), "a result of vllm bench serve, as JSON") from None
    if not isinstance(entry, dict):
        raise InputError(where, None, type(entry).__name__, "a JSON object")
    ttft_ms, tpot_ms = (_above_0(entry, key, where) for key in _MEANS)
    count = int(_above_0(entry, "completed", where))
    if count > _MOST_PROMPTS:
        raise InputError(where, "completed", count, f"at most {_MOST_PROMPTS}")
    if entry.get("failed"):
        raise InputError(where, "failed", entry["failed"], "0: a run in which all finished")
    prompts = _lengths(entry, "input_lens", "total_input_tokens", count, where)
    outputs = _lengths(entry, "output_lens", "total_output_tokens", count, where)
    arrival_s, users, how = _arrivals(entry, count, where)
    requests = RequestTable(
        arrival_ps=np.rint(arrival_s * PS_PER_S).astype(np.int64),
        prompt_tokens=prompts,
        output_tokens=outputs,
        users=users,
        think_ps=np.zeros(count, dtype=np.int64) if users is not None else None,
    )
    means = {TTFT: ttft_ms / 1e3, TPOT: tpot_ms / 1e3}
    return MeasuredBench(where, how, requests, means)


def _lengths(entry: dict[str, Any], each: str, total: str, count: int, where: str) -> IntArray:
    given = entry.get(each)
    if isinstance(given, list) and len(given) == count:
        lengths = np.array(given, dtype=np.int64)
        if (lengths < 1).any():
            raise InputError(where, each, int(lengths.min()), "lengths of at least 1 token")
        return lengths
    mean = _above_0(entry, total, where) / count
    return np.full(count, max(1, round(mean)), dtype=np.int64)


def _arrivals(
    entry: dict[str, Any], count: int, where: str
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], int | None, str]:
    """Return when requests start, how many users wait for answers if any, and both in words."""
    starts = entry.get("start_times")
    if isinstance(starts, list) and len(starts) == count:
        times = np.sort(np.array(starts, dtype=np.float64))
        return times - times[0], None, "as they started"
    rate, users = entry.get("request_rate"), entry.get("max_concurrency")
    if rate in ("inf", math.inf):
        if users is None:
            return np.zeros(count), None, "all at once"
        return np.zeros(count), min(int(users), count), f"{int(users)} in flight"
    if users is not None and int(users) < count:
        allowed = "null, or a request_rate of inf, or a detailed file with start_times"
        raise InputError(where, "max_concurrency", users, allowed)
    per_s = _above_0(entry, "request_rate", where)
    gaps = np.random.default_rng(_SEED).exponential(1 / per_s, count)
    return np.cumsum(gaps) - gaps[0], None, f"{per_s:g} requests/s"


def _above_0(entry: dict[str, Any], key: str, where: str) -> float:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        got = "nothing" if value is None else value
        raise InputError(where, key, got, "a number above 0")
    return float(value)
