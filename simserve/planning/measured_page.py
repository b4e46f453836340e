"""A saved page of vLLM's ``/metrics`` as a load on a server, and the means that it measured.

The page tells how many requests came, how long they were and what was found in the prefix
cache; not when they came: Poisson arrivals are taken. Tokens per step tell whether that holds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simserve.errors import InputError
from simserve.inputs.workload import read_workload
from simserve.inputs.yaml_reader import parse_yaml
from simserve.planning.measured_means import (
    E2E,
    ITL,
    QUEUE,
    STEP_TOKENS,
    TPOT,
    TTFT,
    MeasuredBench,
)
from simserve.traffic.generate import generate
from simserve.traffic.prometheus_import import read_service_load, workload_text
from simserve.traffic.prometheus_text import Metrics, read_metrics

# The histograms (vllm/v1/metrics/loggers.py); the second name of ITL is that before 0.11.
_HISTOGRAMS = {
    TTFT: ("vllm:time_to_first_token_seconds",),
    TPOT: ("vllm:request_time_per_output_token_seconds",),
    ITL: ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
    E2E: ("vllm:e2e_request_latency_seconds",),
    QUEUE: ("vllm:request_queue_time_seconds",),
    STEP_TOKENS: ("vllm:iteration_tokens_total",),
}
_NEEDED = TTFT, E2E
# Means of fewer requests are the luck of their lengths.
_LEAST_REQUESTS = 100
# Requests of the sample: enough for the lengths, and so many times those in flight at once.
_SAMPLE_REQUESTS, _TIMES_IN_FLIGHT, _MOST_REQUESTS = 2000, 20, 50_000
_SEED = 0


def read_page(path: Path, seconds: float, since: Path | None, model: str | None) -> MeasuredBench:
    """Return what a page, or its growth ``since`` another, says of ``seconds``.

    Raises:
        InputError: if a page cannot be used, lacks a histogram, or counts too few requests.
    """
    load = read_service_load(path, seconds=seconds, since=since, model=model)
    if load.requests < _LEAST_REQUESTS:
        allowed = f"at least {_LEAST_REQUESTS}: the mean of fewer is the luck of their lengths"
        raise InputError(str(path), "requests", f"{load.requests:g}", allowed)
    pages = [read_metrics(one).of_model(load.model) for one in (path, since) if one is not None]
    means = {name: _mean(pages, histograms) for name, histograms in _HISTOGRAMS.items()}
    found = {name: mean for name, mean in means.items() if mean is not None}
    for name in (*_NEEDED, *(() if TPOT in found else (ITL,))):
        if name not in found:
            allowed = "this histogram, as vLLM exports it, with what it counted in the time"
            raise InputError(str(path), _HISTOGRAMS[name][0], "nothing", allowed)
    entry = parse_yaml(workload_text(load, path.name), path.name)["workload"]
    in_flight = load.rate_per_s * found[E2E]
    count = max(_SAMPLE_REQUESTS, round(_TIMES_IN_FLIGHT * in_flight))
    if count > _MOST_REQUESTS:
        got, allowed = f"{in_flight:,.0f} requests at once", "those of one replica"
        raise InputError(str(path), None, got, allowed)
    requests = generate(read_workload({**entry, "num_requests": count}), _SEED)
    how = f"{load.rate_per_s:.3g} requests/s"
    return MeasuredBench(str(path), how, requests, found, is_sample=True)


def is_page(path: Path) -> bool:
    """Return whether a file is a page of metrics, not a JSON object; true if it is unreadable."""
    try:
        return not path.read_bytes()[:4096].lstrip().startswith((b"{", b"["))
    except OSError:
        return True


def _mean(pages: list[Metrics], names: tuple[str, ...]) -> float | None:
    """Return the mean of the first of these histograms that grew, None if none did."""
    for name in names:
        totals = [[page.total(f"{name}_{part}") for part in ("sum", "count")] for page in pages]
        if None in totals[0]:
            continue
        grown = np.array(totals[0], dtype=np.float64)
        if len(totals) > 1:
            grown -= np.array([one or 0.0 for one in totals[1]])
        if not (np.isfinite(grown).all() and grown[0] >= 0 and grown[1] >= 0):
            got = f"a sum of {grown[0]:g} over {grown[1]:g}"
            raise InputError(str(pages[0].path), name, got, "a histogram that grows")
        if grown[1]:
            return float(grown[0] / grown[1])
    return None
