"""What a report says about a run, as JSON-able data: the text and ``--json`` share it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from simserve.report.deployed import stored_of_run
from simserve.results.metrics import LATENCY_METRICS
from simserve.results.result import Result
from simserve.results.slo_judge import SloReport

PERCENTILES = (50, 90, 95, 99)


def run_summary(result: Result) -> dict[str, Any]:
    """Return the summary; latencies in ms, a metric without a sample is left out."""
    metrics, use = result.metrics, result.engine_use
    samples = {name: metrics.sample(name).statistics_ms(PERCENTILES) for name in LATENCY_METRICS}
    return {
        "scenario": _scenario(result),
        "traffic": {
            "description": result.facts.traffic,
            "notes": list(result.record.meta.notes),
            "requests": metrics.num_prompts,
            "completed": metrics.completed,
            "rejected": metrics.rejected,
            "timed_out": metrics.timed_out,
            "cancelled": metrics.cancelled,
            "unfinished": metrics.unfinished,
            "prompt_tokens": metrics.total_input_tokens,
            "output_tokens": metrics.total_output_tokens,
        },
        "verdict": {
            "name": result.verdict.name,
            "reason": result.verdict.reason,
            "operating_point": result.verdict.operating_point,
            "growing": result.verdict.growing,
        },
        "latency_ms": {name: sample for name, sample in samples.items() if sample},
        "throughput": {
            "duration_s": metrics.duration_s,
            "requests_per_s": metrics.request_throughput,
            "output_tokens_per_s": metrics.output_throughput,
            "total_tokens_per_s": metrics.total_token_throughput,
            "max_in_flight": metrics.max_in_flight,
        },
        "kv_cache": {
            "peak_frac": use.kv_peak_frac,
            "mean_frac": use.kv_mean_frac,
            "preemptions": use.preemptions,
            "preempted_requests": use.preempted_requests,
            "prefix_hit_frac": result.prefix_use.token_hit_frac,
            "prefix_bound_frac": result.prefix_bound_frac,
            "trace_blocks": result.record.meta.trace_blocks,
        },
        "steps": {
            "count": use.steps,
            "mean_seqs": use.batch_mean_seqs,
            "busy_frac": use.busy_frac,
            "waiting_max": use.waiting_max,
        },
        "slo": _slo(result.slo_report),
    }


def _scenario(result: Result) -> dict[str, Any]:
    facts = result.facts
    return {
        "name": facts.name,
        "model": facts.model,
        "stored": stored_of_run(facts),
        "gpu": facts.gpu,
        "tp": facts.tp,
        "replicas": facts.replicas,
        "engine": facts.engine,
        "scheduler": facts.scheduler,
        "async_scheduling": facts.async_scheduling,
        "router": facts.router,
        "latency": facts.latency,
        "seed": facts.seed,
        "digest": facts.digest,
        "limits": facts.limits,
        "assumed_numbers": facts.assumed_numbers,
        "remark": facts.remark(),
        "priced_from": result.record.meta.priced_from,
    }


def _slo(report: SloReport | None) -> dict[str, Any] | None:
    if report is None:
        return None
    return {
        "met": report.met,
        "reason": report.reason,
        "good_frac": report.good_frac,
        "goodput_per_s": report.goodput_per_s,
        "objectives": [asdict(one) for one in report.objectives],
        "classes": [asdict(one) for one in report.classes],
    }
