"""Results of GuideLLM and of AIPerf (or genai-perf), converted to vLLM's definitions.

* GuideLLM's ``time_per_output_token_ms`` includes the first token; TPOT is its
  ``inter_token_latency_ms``: from the first to the last token, over tokens less one. Its own
  aggregate of that weights by tokens, so TPOT is taken from the requests where they are listed.
  ``request_latency`` is in seconds. It has no single gaps (ITL).
* AIPerf's ``inter_token_latency`` is TPOT, its ``inter_chunk_latency`` is ITL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from simserve.results.measured import STATISTICS, Measurement, of_series
from simserve.results.samples import MS_PER_S, FloatArray

_GUIDELLM_METRICS = {
    "ttft": ("time_to_first_token_ms", MS_PER_S),
    "tpot": ("inter_token_latency_ms", MS_PER_S),
    "e2el": ("request_latency", 1),
}
_AIPERF_METRICS = {
    "ttft": "time_to_first_token",
    "tpot": "inter_token_latency",
    "itl": "inter_chunk_latency",
    "e2el": "request_latency",
}
_PER_S = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


def is_guidellm(entry: Mapping[str, Any]) -> bool:
    """Return whether this is a report of GuideLLM."""
    return isinstance(entry.get("benchmarks"), list)


def read_guidellm(entry: Mapping[str, Any], where: str) -> Measurement:
    """Return the only benchmark of a report.

    Raises:
        TypeError, ValueError, KeyError: if something in it is not what it should be.
    """
    if len(entry["benchmarks"]) != 1:
        count = len(entry["benchmarks"])
        raise ValueError(f"{count} benchmarks in one report: keep the one to compare")
    [bench] = entry["benchmarks"]
    metrics = bench["metrics"]
    listed = sorted(
        (bench.get("requests") or {}).get("successful") or [],
        key=lambda one: one["request_start_time"],
    )
    totals = metrics["request_totals"]
    complete = len(listed) == totals["successful"] and bool(listed)
    series = _guidellm_series(listed) if complete else {}
    statistics = _guidellm_statistics(metrics)
    notes = [
        "TTFT and E2E start when the client sends",
        "TPOT is GuideLLM's inter_token_latency_ms, not its time_per_output_token_ms, which "
        "includes the first token; it ends at the last token, not at completion",
    ]
    if complete:
        statistics |= of_series(series)
    else:
        notes.append("statistics only, TPOT weighted by tokens: not every request is listed")
    start = np.array([one["request_start_time"] for one in listed], dtype=np.float64)
    return Measurement(
        where=where,
        kind=f"GuideLLM {(entry.get('metadata') or {}).get('guidellm_version', '')}".strip(),
        simulated=False,
        statistics_s=statistics,
        rates={
            "request_throughput": float(metrics["requests_per_second"]["successful"]["mean"]),
            "output_throughput": float(metrics["output_tokens_per_second"]["successful"]["mean"]),
        },
        completed=totals["successful"],
        failed=totals["incomplete"] + totals["errored"],
        series_s=series,
        ids=tuple(str(one["request_id"]) for one in listed) if complete else None,
        start_s=start - start[0] if complete else None,
        prompt_tokens=_tokens(listed, "prompt_tokens") if complete else None,
        output_tokens=_tokens(listed, "output_tokens") if complete else None,
        notes=tuple(notes),
    )


def _tokens(listed: list[Any], key: str) -> Any:
    values = [one[key] for one in listed]
    return None if any(value is None for value in values) else np.array(values, dtype=np.int64)


def _guidellm_series(listed: list[Any]) -> dict[str, FloatArray]:
    def column(key: str, per_s: float) -> FloatArray:
        values = [np.nan if one.get(key) is None else float(one[key]) for one in listed]
        return np.array(values, dtype=np.float64) / per_s

    found = {metric: column(*named) for metric, named in _GUIDELLM_METRICS.items()}
    # One token has no gap, whatever a file writes there.
    tokens = np.array([one.get("output_tokens") or 0 for one in listed])
    found["tpot"] = np.where(tokens > 1, found["tpot"], np.nan)
    return found


def _guidellm_statistics(metrics: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    found = {}
    for metric, (name, per_s) in _GUIDELLM_METRICS.items():
        one = (metrics.get(name) or {}).get("successful") or {}
        percentiles = one.get("percentiles") or {}
        values = {"mean": one.get("mean")} | {q: percentiles.get(q) for q in STATISTICS[1:]}
        kept = {key: float(value) / per_s for key, value in values.items() if value is not None}
        if kept:
            found[metric] = kept
    return found


def is_aiperf(entry: Mapping[str, Any]) -> bool:
    """Return whether this is an export of AIPerf or genai-perf."""
    latency = entry.get("request_latency")
    return isinstance(latency, dict) and "unit" in latency


def read_aiperf(entry: Mapping[str, Any], where: str) -> Measurement:
    """Return the run that an export is of.

    Raises:
        TypeError, ValueError, KeyError: if something in it is not what it should be.
    """
    statistics = {}
    for metric, tag in _AIPERF_METRICS.items():
        one = entry.get(tag)
        if isinstance(one, dict):
            per_s = _PER_S[one["unit"]]
            values = {"mean": one.get("avg")} | {q: one.get(q) for q in STATISTICS[1:]}
            kept = {key: float(value) / per_s for key, value in values.items() if value is not None}
            if kept:
                statistics[metric] = kept
    rates = {
        "request_throughput": "request_throughput",
        "output_throughput": "output_token_throughput",
    }
    version = entry.get("aiperf_version")
    return Measurement(
        where=where,
        kind=f"AIPerf {version}" if version else "genai-perf",
        simulated=False,
        statistics_s=statistics,
        rates={
            ours: float(entry[theirs]["avg"]) for ours, theirs in rates.items() if theirs in entry
        },
        completed=_aiperf_count(entry, "request_count"),
        failed=_aiperf_count(entry, "error_request_count"),
        notes=(
            "TTFT and E2E start when the client sends",
            "TPOT is AIPerf's inter_token_latency, ITL its inter_chunk_latency",
            "statistics only: no requests to pair",
        ),
    )


def _aiperf_count(entry: Mapping[str, Any], tag: str) -> int | None:
    one = entry.get(tag)
    return int(one["avg"]) if isinstance(one, dict) and one.get("avg") is not None else None
