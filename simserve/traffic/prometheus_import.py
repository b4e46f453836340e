"""The workload of a running vLLM, read from its ``/metrics``, as a workload file.

Counters since the start of the server, or between two pages: how many requests, how long
prompts and outputs were (histograms), how much of the prompts the prefix cache had.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from simserve.errors import InputError
from simserve.traffic.limits import MOST_TOKENS
from simserve.traffic.prometheus_text import Histogram, Metrics, read_metrics

PROMPTS, OUTPUTS = "vllm:request_prompt_tokens", "vllm:request_generation_tokens"
_HITS = ("vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits")  # the second before 0.11
_QUERIES = ("vllm:prefix_cache_queries", "vllm:gpu_prefix_cache_queries")

# Below this, a prefix of one token would share more.
_LOWEST_HIT_FRAC = 0.005
_NUM_REQUESTS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLoad:
    """What a service was asked to do in ``seconds``."""

    model: str | None
    seconds: float
    requests: float
    prompts: Histogram
    outputs: Histogram
    hit_frac: float | None  # of prompt tokens, in the prefix cache

    @property
    def rate_per_s(self) -> float:
        """Mean rate of finished requests."""
        return self.requests / self.seconds


def read_service_load(
    path: Path, *, seconds: float, since: Path | None = None, model: str | None = None
) -> ServiceLoad:
    """Return the load that a ``/metrics`` page counts up, or its growth ``since`` another page.

    ``seconds`` is the time that the counters cover. ``model`` is needed where the page has
    several.

    Raises:
        InputError: if a page cannot be used, or lacks a metric.
    """
    if not (seconds > 0 and math.isfinite(seconds)):
        raise InputError("--over", None, seconds, "a time above 0, in seconds")
    page = read_metrics(path)
    model = _model(page, model)
    earlier = None if since is None else read_metrics(since).of_model(model)
    page = page.of_model(model)
    prompts, outputs = (_grown(page, earlier, name) for name in (PROMPTS, OUTPUTS))
    queries, hits = (_growth(page, earlier, names) for names in (_QUERIES, _HITS))
    hit_frac = hits / queries if queries and hits is not None else None
    if hit_frac is not None and not 0 <= hit_frac <= 1:
        allowed = "no more hits than queries"
        raise InputError(str(path), _HITS[0], f"{hits:g} of {queries:g}", allowed)
    return ServiceLoad(
        model=model,
        seconds=seconds,
        requests=prompts.count,
        prompts=prompts,
        outputs=outputs,
        hit_frac=hit_frac,
    )


def workload_text(load: ServiceLoad, source: str) -> str:
    """Return the workload as YAML, every number with its origin.

    The hit rate becomes one prefix that all prompts share, as long as the tokens found per
    prompt on average: the cache's savings are kept, which prompts they go to is not. A bucket
    without an end gets the one that makes the mean of all lengths right.
    """
    name = f"model {load.model}, " if load.model else ""
    lines = [
        f"# Workload of a running service, from {source}:",
        f"# {name}{load.requests:g} requests in {load.seconds:g} s.",
        "# kind: imported (rate, length histograms); assumed (Poisson arrivals, lengths",
        "# spread evenly within a bucket). Prompt and output lengths are independent.",
        "workload:",
        f"  arrivals: {{process: poisson, rate_per_s: {load.rate_per_s:.6g}}}",
        f"  num_requests: {_NUM_REQUESTS}",
    ]
    prompts, shared = _edges(load.prompts), 0
    if load.hit_frac is not None:
        lines.append(f"  # prefix cache: {load.hit_frac:.1%} of prompt tokens were hits")
        shared = _shared_tokens(load)
    if shared:
        lines.append("  # assumed: the hits are one prefix that all prompts share")
        lines.append(f"  prefix: {{count: 1, tokens: {shared}}}")
        prompts = _shortened(prompts, shared)
    lines.append(_means_line(load.prompts, shared, prompts))
    lines += _histogram_lines("prompt_tokens", prompts)
    lines.append(_means_line(load.outputs, 0, _edges(load.outputs)))
    lines += _histogram_lines("output_tokens", _edges(load.outputs))
    return "\n".join(lines) + "\n"


def _model(page: Metrics, model: str | None) -> str | None:
    models = page.models()
    if model is not None and model not in models:
        allowed = ", ".join(models) or "none: the page names no model"
        raise InputError(str(page.path), "--served-model", model, allowed)
    if model is None and len(models) > 1:
        allowed = f"--served-model, one of {', '.join(models)}"
        raise InputError(str(page.path), "model_name", f"{len(models)} models", allowed)
    return model if model is not None else next(iter(models), None)


def _grown(page: Metrics, earlier: Metrics | None, name: str) -> Histogram:
    now = page.histogram(name)
    if now is None:
        raise InputError(str(page.path), name, "nothing", "this histogram, as vLLM exports it")
    before = None if earlier is None else earlier.histogram(name)
    if before is not None:
        if before.upto != now.upto:
            raise InputError(str(page.path), name, "other buckets than before", "the same buckets")
        counts = tuple(b - a for a, b in zip(before.counts, now.counts, strict=True))
        now = Histogram(now.upto, counts, now.sum - before.sum)
    if min(now.counts) < 0 or not now.count > 0 or not math.isfinite(now.count):
        got = f"{now.count:g} requests"
        raise InputError(str(page.path), name, got, "at least one, and none fewer than before")
    return now


def _growth(page: Metrics, earlier: Metrics | None, names: tuple[str, ...]) -> float | None:
    now = page.total(*names)
    before = None if earlier is None else earlier.total(*names)
    if now is None or not math.isfinite(now):
        return None
    return now - (before or 0.0)


def _edges(histogram: Histogram) -> list[tuple[int, float]]:
    """Return (upper end in whole tokens, count) of the buckets, an endless one ended."""
    edges: list[tuple[int, float]] = []
    below, middles = 0, 0.0
    for edge, count in zip(histogram.upto, histogram.counts, strict=True):
        if math.isinf(edge):
            if count:
                mean = (histogram.sum - middles) / count
                edges.append((max(below + 1, min(round(2 * mean - below), MOST_TOKENS)), count))
            continue
        end = min(math.floor(edge), MOST_TOKENS)
        if end <= below:  # a bucket below one token: its requests join the next
            edges.append((end, count))
            continue
        middles += count * (below + 1 + end) / 2
        edges.append((end, count))
        below = end
    return _merged(edges)


def _shortened(edges: list[tuple[int, float]], tokens: int) -> list[tuple[int, float]]:
    """Return buckets of what follows the first ``tokens``; at least one token does."""
    return _merged([(end - tokens, count) for end, count in edges])


def _merged(edges: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return rising buckets: those that end below one token become one that ends there."""
    merged: dict[int, float] = {}
    for end, count in edges:
        merged[max(end, 1)] = merged.get(max(end, 1), 0.0) + count
    return sorted(merged.items())


def _shared_tokens(load: ServiceLoad) -> int:
    if load.hit_frac is None or load.hit_frac < _LOWEST_HIT_FRAC:
        return 0
    return round(load.hit_frac * load.prompts.sum / load.prompts.count)


def _means_line(counted: Histogram, shared: int, edges: list[tuple[int, float]]) -> str:
    """Return a comment with the mean that was counted and the one that will be drawn."""
    below, total = 0, 0.0
    for end, count in edges:
        total += count * (shared + (below + 1 + end) / 2)
        below = end
    before = counted.sum / counted.count
    return f"  # mean: {before:,.1f} tokens counted, {total / counted.count:,.1f} drawn"


def _histogram_lines(which: str, edges: list[tuple[int, float]]) -> list[str]:
    last = max(place for place, (_, count) in enumerate(edges) if count)
    ends = ", ".join(str(end) for end, _ in edges[: last + 1])
    weights = ", ".join(f"{count:.12g}" for _, count in edges[: last + 1])
    return [f"  {which}:", "    histogram:", f"      upto: [{ends}]", f"      weights: [{weights}]"]
