"""A run as one who compares sees it: latencies by request or by statistic, in vLLM's definitions.

A simulated run and the file of any benchmark become the same thing. What had to be converted,
and what a file does not say, is in ``notes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simserve.records.clock import PS_PER_S
from simserve.results.metrics import LATENCY_METRICS, request_latencies
from simserve.results.result import Result
from simserve.results.samples import FloatArray, Sample
from simserve.results.token_times import finished_requests

STATISTICS = ("mean", "p50", "p90", "p95", "p99")
RATES = ("request_throughput", "output_throughput")
"""Requests and output tokens per second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One run.

    ``series_s`` has ``float64[requests]`` by metric, in the order in which requests were sent,
    NaN for one without; ITL belongs to no request and is never in it. It is empty if the file
    has statistics only. ``start_s`` counts from the first request.
    """

    where: str
    kind: str  # what wrote it, in words
    simulated: bool
    statistics_s: Mapping[str, Mapping[str, float]]
    rates: Mapping[str, float]
    completed: int | None = None
    failed: int | None = None
    model: str | None = None
    series_s: Mapping[str, FloatArray] = field(default_factory=dict)
    ids: tuple[str, ...] | None = None
    start_s: FloatArray | None = None
    prompt_tokens: npt.NDArray[np.int64] | None = None
    output_tokens: npt.NDArray[np.int64] | None = None
    notes: tuple[str, ...] = ()
    resolved: Mapping[str, Any] | None = None  # of a simulated run: everything that decided it
    verdict: str | None = None

    @property
    def requests(self) -> int | None:
        """How many requests there are in ``series_s``; None without one."""
        return next((len(one) for one in self.series_s.values()), None)


def statistics_of(sample: Sample) -> dict[str, float]:
    """Return the statistics of a sample in seconds; empty if it is."""
    found = {"mean": sample.mean} | {
        name: sample.percentile(float(name[1:])) for name in STATISTICS[1:]
    }
    return {name: value for name, value in found.items() if value is not None}


def of_series(series_s: Mapping[str, FloatArray]) -> dict[str, dict[str, float]]:
    """Return the statistics of latencies by request."""
    found = {
        metric: statistics_of(Sample(values[~np.isnan(values)]))
        for metric, values in series_s.items()
    }
    return {metric: one for metric, one in found.items() if one}


def of_result(result: Result, where: str | Path) -> Measurement:
    """Return a simulated run."""
    record, metrics = result.record, result.metrics
    latencies = request_latencies(record)
    finished = finished_requests(record)
    series = {
        "ttft": np.where(finished, latencies.ttft_s, np.nan),
        "tpot": latencies.tpot_s,
        "e2el": latencies.e2el_s,
    }
    arrival_ps = record.requests.arrival_ps
    return Measurement(
        where=str(where),
        kind=f"simserve {result.facts.version}",
        simulated=True,
        statistics_s={
            name: found
            for name in LATENCY_METRICS
            if (found := statistics_of(metrics.sample(name)))
        },
        rates={name: float(getattr(metrics, name)) for name in RATES},
        completed=metrics.completed,
        failed=metrics.failed,
        model=result.facts.hf_id,
        series_s=series,
        ids=tuple(record.requests.id_of(one) for one in range(len(record.requests))),
        start_s=(arrival_ps - arrival_ps[:1]) / PS_PER_S,
        prompt_tokens=record.requests.prompt_tokens,
        output_tokens=record.outcomes.generated_tokens,
        notes=("TTFT and E2E start at arrival",),
        resolved=result.facts.resolved,
        verdict=result.verdict.name,
    )
