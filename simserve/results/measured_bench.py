"""Results of ``vllm bench serve`` and of SGLang's ``bench_serving``, which share their names.

Both define the latencies as simserve does. Their clocks start when the client sends: with a cap on
concurrency, after that gate. SGLang calls ``e2el`` what it is not: ``e2e_latency``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from simserve.results.measured import RATES, STATISTICS, Measurement, of_series, statistics_of
from simserve.results.metrics import LATENCY_METRICS
from simserve.results.samples import MS_PER_S, FloatArray, Sample

_SGLANG = ("mean_e2e_latency_ms", "total_output_tokens_retokenized")
_NAME_IN_SGLANG = {"e2el": "e2e_latency"}
_DETAIL = ("ttfts", "itls", "output_lens")
OWN_BACKEND = "simserve"


def is_bench(entry: Mapping[str, Any]) -> bool:
    """Return whether this is the result of one of the two."""
    return "request_throughput" in entry and ("duration" in entry or "mean_ttft_ms" in entry)


def read_bench(entry: Mapping[str, Any], where: str) -> Measurement:
    """Return the run.

    Raises:
        TypeError, ValueError, KeyError: if something in it is not what it should be.
    """
    sglang = any(key in entry for key in _SGLANG)
    own = entry.get("backend") == OWN_BACKEND
    series = _series(entry)
    statistics = _statistics(entry, _NAME_IN_SGLANG if sglang else {})
    if series:
        statistics |= of_series(series)
        gaps = np.array([gap for gaps in entry["itls"] for gap in gaps], dtype=np.float64)
        if len(gaps):
            statistics["itl"] = statistics_of(Sample(gaps))
    start = entry.get("start_times") if series else None
    return Measurement(
        where=where,
        kind="simserve" if own else "SGLang bench_serving" if sglang else "vllm bench serve",
        simulated=own,
        statistics_s=statistics,
        rates={name: float(entry[name]) for name in RATES if entry.get(name) is not None},
        completed=_count(entry, "completed"),
        failed=_count(entry, "failed"),
        model=entry.get("model_id"),
        series_s=series,
        start_s=None if not start else np.array(start, dtype=np.float64) - min(start),
        prompt_tokens=np.array(entry["input_lens"], np.int64)
        if series and "input_lens" in entry
        else None,
        output_tokens=np.array(entry["output_lens"], np.int64) if series else None,
        notes=tuple(_notes(entry, own=own, sglang=sglang, detailed=bool(series))),
        resolved=entry["simserve"]["resolved"] if own else None,
        verdict=entry["simserve"]["verdict"] if own else None,
    )


def _count(entry: Mapping[str, Any], key: str) -> int | None:
    return None if entry.get(key) is None else int(entry[key])


def _series(entry: Mapping[str, Any]) -> dict[str, FloatArray]:
    """Return the latencies by request; empty unless the file was saved with details."""
    if not all(entry.get(key) for key in _DETAIL):
        return {}
    ttft_s = np.array(entry["ttfts"], dtype=np.float64)
    tokens = np.array(entry["output_lens"], dtype=np.float64)
    after_s = np.array([sum(gaps) for gaps in entry["itls"]], dtype=np.float64)
    latencies = entry.get("latencies")
    e2el_s = np.array(latencies, np.float64) if latencies else ttft_s + after_s
    if not len(ttft_s) == len(tokens) == len(after_s) == len(e2el_s):
        raise ValueError("ttfts, itls, output_lens and latencies are of different lengths")
    errors = entry.get("errors") or [""] * len(ttft_s)
    failed = (tokens == 0) | np.array([bool(one) for one in errors], dtype=np.bool_)
    several = tokens > 1
    tpot_s = np.where(several, (e2el_s - ttft_s) / np.where(several, tokens - 1, 1), np.nan)
    found = {"ttft": ttft_s, "tpot": tpot_s, "e2el": e2el_s}
    order = _by_start(entry, len(ttft_s))
    return {name: np.where(failed, np.nan, values)[order] for name, values in found.items()}


def _by_start(entry: Mapping[str, Any], count: int) -> Any:
    """Return the order of the file: it is that of sending, in both."""
    start = entry.get("start_times")
    if start and len(start) != count:
        raise ValueError("start_times and ttfts are of different lengths")
    return np.arange(count)


def _statistics(
    entry: Mapping[str, Any], renamed: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    found = {}
    for metric in LATENCY_METRICS:
        name = renamed.get(metric, metric)
        values = {
            statistic: float(entry[key]) / MS_PER_S
            for statistic in STATISTICS
            if (key := f"{'median' if statistic == 'p50' else statistic}_{name}_ms") in entry
            and entry[key] is not None
        }
        if values:
            found[metric] = values
    return found


def _notes(entry: Mapping[str, Any], *, own: bool, sglang: bool, detailed: bool) -> list[str]:
    notes = ["TTFT and E2E start at arrival"] if own else []
    if not own:
        gate = entry.get("max_concurrency")
        words = "TTFT and E2E start when the client sends"
        notes.append(f"{words}, after its gate of {gate}" if gate else words)
    if not detailed:
        option = "--output-details" if sglang else "--save-detailed"
        notes.append(f"statistics only: no requests to pair ({option} keeps them)")
    return notes
