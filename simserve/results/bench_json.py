"""A result in the format of ``vllm bench serve --save-result`` (vLLM 0.33).

Keys, their order and their units are vLLM's; whatever vLLM does not know stands under the
one key ``simserve``, because consumers convert every other key that ends in ``ms`` to a
number. A metric without a sample leaves its keys out, and NaN and infinity are never written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from simserve.records.clock import PS_PER_S
from simserve.records.run_record import ABORTED, FINISHED, REJECTED, RunRecord
from simserve.results.engine_use import EngineUse, PrefixUse
from simserve.results.metrics import LATENCY_METRICS, Metrics, request_latencies
from simserve.results.run_facts import RunFacts
from simserve.results.slo_judge import SloReport
from simserve.results.token_times import step_clock, token_ends_ps
from simserve.results.verdict import Verdict

BACKEND = "simserve"
DEFAULT_PERCENTILES = (99,)
"""What vLLM writes unless ``--metric-percentiles`` asks for more."""


def bench_json(
    *,
    facts: RunFacts,
    record: RunRecord,
    metrics: Metrics,
    verdict: Verdict,
    slo: SloReport | None,
    use: EngineUse,
    prefix: PrefixUse,
    prefix_bound_frac: float | None = None,
    metric_percentiles: Sequence[float] = DEFAULT_PERCENTILES,
    save_detailed: bool = False,
) -> dict[str, Any]:
    """Return the result as JSON-able data, keys in vLLM's order."""
    out = _labels(facts, metrics)
    out |= {
        "duration": metrics.duration_s,
        "completed": metrics.completed,
        "failed": metrics.failed,
        "total_input_tokens": metrics.total_input_tokens,
        "total_output_tokens": metrics.total_output_tokens,
        "request_throughput": metrics.request_throughput,
        "request_goodput": slo.goodput_per_s if slo is not None else None,
        "output_throughput": metrics.output_throughput,
        "total_token_throughput": metrics.total_token_throughput,
    }
    out |= _arrays(record, save_detailed=save_detailed)
    out |= {
        "max_output_tokens_per_s": metrics.max_output_tokens_per_s,
        "max_concurrent_requests": metrics.max_concurrent_requests,
        "rtfx": 0.0,  # vLLM's real-time factor of audio models
    }
    for name in LATENCY_METRICS:
        statistics = metrics.sample(name).statistics_ms(metric_percentiles)
        out |= {f"{statistic}_{name}_ms": value for statistic, value in statistics.items()}
    out["simserve"] = {
        "version": facts.version,
        "simulated": True,
        "seed": facts.seed,
        "scenario_digest": facts.digest,
        "verdict": verdict.name,
        "verdict_reason": verdict.reason,
        "slo_met": slo.met if slo is not None else None,
        **(_classes(slo) if slo is not None and slo.classes else {}),
        "ttft_starts_at": "arrival",
        "max_concurrency_is": "the most requests observed in flight, not a cap",
        "rejected": metrics.rejected,
        "unfinished": metrics.unfinished,
        "preemptions": use.preemptions,
        "steps": use.steps,
        "kv_peak_frac": use.kv_peak_frac,
        "prefix_hit_frac": prefix.token_hit_frac,
        "prefix_bound_frac": prefix_bound_frac,
        "assumed_numbers": facts.assumed_numbers,
        "remark": facts.remark(),
        "resolved": facts.resolved,
    }
    return out


def _classes(slo: SloReport) -> dict[str, Any]:
    """Return what came of every class of requests; objectives are its own."""
    return {
        "classes": {
            one.name: {
                "requests": one.requests,
                "good_requests": one.good_requests,
                "good_frac": one.good_frac,
                "goodput_per_s": one.goodput_per_s,
                "objectives": [asdict(objective) for objective in one.objectives],
            }
            for one in slo.classes
        }
    }


def _labels(facts: RunFacts, metrics: Metrics) -> dict[str, Any]:
    """Return the settings that open the file.

    A trace has no asked rate, so its mean offered rate is written. ``max_concurrency`` is
    null in vLLM without a cap; consumers call ``int`` on it, so the observed maximum is
    written instead.
    """
    observed = metrics.offered_rate_per_s
    rate = facts.request_rate if facts.request_rate is not None else observed
    return {
        "date": facts.start,
        "endpoint_type": BACKEND,
        "backend": BACKEND,
        "label": facts.name,
        "model_id": facts.hf_id,
        "tokenizer_id": facts.hf_id,
        "num_prompts": metrics.num_prompts,
        "request_rate": rate if rate is not None else "inf",
        "burstiness": facts.burstiness if facts.burstiness is not None else 1.0,
        "max_concurrency": metrics.max_in_flight,
    }


def _arrays(record: RunRecord, *, save_detailed: bool) -> dict[str, Any]:
    """Return the arrays per request, in seconds; 0 for a request that did not finish.

    ``queue_times`` is vLLM's wait for the client's own concurrency gate. A simulated client
    has none, so it is 0; the wait inside the engine is in requests.parquet.
    """
    latencies = request_latencies(record)
    finished = latencies.finished
    always = {
        "latencies": np.where(finished, latencies.e2el_s, 0.0).tolist(),
        "queue_times": [0.0] * len(finished),
    }
    if not save_detailed:
        return always
    status = record.outcomes.status
    words = {FINISHED: "", REJECTED: "rejected", ABORTED: "aborted by the client"}
    tokens_ps = token_ends_ps(record, step_clock(record))
    return {
        "input_lens": record.requests.prompt_tokens.tolist(),
        "output_lens": np.where(finished, record.outcomes.generated_tokens, 0).tolist(),
        "ttfts": np.where(finished, latencies.ttft_s, 0.0).tolist(),
        "itls": [
            (np.diff(ends_ps) / PS_PER_S).tolist() if done else []
            for ends_ps, done in zip(tokens_ps, finished, strict=True)
        ],
        "start_times": (record.requests.arrival_ps / PS_PER_S).tolist(),
        "generated_texts": [""] * len(finished),
        "errors": [words.get(int(value), "unfinished") for value in status],
        **always,
    }
