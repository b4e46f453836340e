"""One made-up run in the formats of four benchmarks, as their code defines them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

COUNT, TOKENS = 200, 5
RNG = np.random.default_rng(7)
START_S = np.cumsum(RNG.exponential(0.1, COUNT))
TTFT_S = RNG.gamma(4, 0.05, COUNT)
GAPS_S = RNG.gamma(4, 0.004, (COUNT, TOKENS - 1))
E2EL_S = TTFT_S + GAPS_S.sum(axis=1)
TPOT_S = GAPS_S.sum(axis=1) / (TOKENS - 1)
PROMPTS = RNG.integers(10, 900, COUNT)
PERCENTILES = (50, 90, 95, 99)


def _vllm_statistics(name: str, values_s: Any) -> dict[str, float]:
    return {
        f"mean_{name}_ms": float(np.mean(values_s)) * 1000,
        f"median_{name}_ms": float(np.median(values_s)) * 1000,
        f"p99_{name}_ms": float(np.percentile(values_s, 99)) * 1000,
    }


def vllm(detailed: bool = True, failed: int = 0) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "backend": "vllm",
        "endpoint_type": "openai",
        "model_id": "a/model",
        "max_concurrency": None,
        "duration": 25.0,
        "completed": COUNT - failed,
        "failed": failed,
        "request_throughput": COUNT / 25,
        "output_throughput": COUNT * TOKENS / 25,
    }
    if detailed:
        entry |= {
            "input_lens": PROMPTS.tolist(),
            "output_lens": [0 if at < failed else TOKENS for at in range(COUNT)],
            "ttfts": [0.0 if at < failed else one for at, one in enumerate(TTFT_S.tolist())],
            "itls": [[] if at < failed else one for at, one in enumerate(GAPS_S.tolist())],
            "start_times": (1e5 + START_S).tolist(),
            "errors": ["boom" if at < failed else "" for at in range(COUNT)],
            "latencies": [0.0 if at < failed else one for at, one in enumerate(E2EL_S.tolist())],
        }
    entry |= _vllm_statistics("ttft", TTFT_S) | _vllm_statistics("tpot", TPOT_S)
    return entry | _vllm_statistics("itl", GAPS_S) | _vllm_statistics("e2el", E2EL_S)


def sglang() -> dict[str, Any]:
    entry = vllm(detailed=False)
    renamed = {
        key.replace("e2el", "e2e_latency"): value
        for key, value in entry.items()
        if key not in ("endpoint_type", "failed")
    }
    return renamed | {"backend": "sglang", "total_output_tokens_retokenized": COUNT * TOKENS}


def _summary(values: Any) -> dict[str, Any]:
    return {
        "mean": float(np.mean(values)),
        "percentiles": {f"p{q}": float(np.percentile(values, q)) for q in PERCENTILES},
    }


def guidellm(listed: bool = True) -> dict[str, Any]:
    requests = [
        {
            "request_id": f"id-{at}",
            "request_start_time": 1e9 + START_S[at],
            "request_latency": E2EL_S[at],
            "prompt_tokens": int(PROMPTS[at]),
            "output_tokens": TOKENS,
            "time_to_first_token_ms": TTFT_S[at] * 1000,
            "inter_token_latency_ms": TPOT_S[at] * 1000,
            "time_per_output_token_ms": E2EL_S[at] / TOKENS * 1000,  # with the first
        }
        for at in reversed(range(COUNT))  # in the order of completion, not of sending
    ]
    metrics = {
        "request_totals": {"successful": COUNT, "incomplete": 0, "errored": 0, "total": COUNT},
        "requests_per_second": {"successful": {"mean": COUNT / 25}},
        "output_tokens_per_second": {"successful": {"mean": COUNT * TOKENS / 25}},
        "request_latency": {"successful": _summary(E2EL_S)},
        "time_to_first_token_ms": {"successful": _summary(TTFT_S * 1000)},
        "inter_token_latency_ms": {"successful": _summary(TPOT_S * 1000)},
        "time_per_output_token_ms": {"successful": _summary(E2EL_S / TOKENS * 1000)},
    }
    bench = {
        "metrics": metrics,
        "requests": {"successful": requests if listed else [], "incomplete": [], "errored": []},
    }
    return {"metadata": {"version": 2, "guidellm_version": "0.8.1"}, "benchmarks": [bench]}


def aiperf() -> dict[str, Any]:
    def metric(values: Any, unit: str) -> dict[str, Any]:
        found = {f"p{q}": float(np.percentile(values, q)) for q in PERCENTILES}
        return {"unit": unit, "avg": float(np.mean(values)), **found}

    return {
        "schema_version": "1.4",
        "aiperf_version": "0.13.0",
        "time_to_first_token": metric(TTFT_S * 1000, "ms"),
        "inter_token_latency": metric(TPOT_S * 1000, "ms"),
        "inter_chunk_latency": metric(GAPS_S * 1000, "ms"),
        "request_latency": metric(E2EL_S * 1000, "ms"),
        "request_throughput": {"unit": "requests/sec", "avg": COUNT / 25},
        "output_token_throughput": {"unit": "tokens/sec", "avg": COUNT * TOKENS / 25},
        "request_count": {"unit": "requests", "avg": float(COUNT)},
    }


FORMATS = {
    "vllm": vllm,
    "vllm-statistics": lambda: vllm(detailed=False),
    "sglang": sglang,
    "guidellm": guidellm,
    "guidellm-statistics": lambda: guidellm(listed=False),
    "aiperf": aiperf,
}


def write(folder: Path, name: str, entry: Any) -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(entry))
    return path
