"""Scenarios to label hand-made records with, never simulated here; and one deployment that is."""

from __future__ import annotations

import dataclasses
from typing import Any

from simserve.inputs.scenario import Scenario, load_scenario
from simserve.inputs.slo import parse_slo
from simserve.planning.run_scenario import run
from simserve.results.result import Result
from tests.results.reference_run import Options, random_requests, run_reference


def scenario(slo: str | None = None, **changes: Any) -> Scenario:
    shipped = dataclasses.replace(load_scenario(), slo=parse_slo(slo) if slo else None)
    return dataclasses.replace(shipped, **changes)


def result(
    slo: str | None = None,
    options: Options | None = None,
    *,
    requests: int = 40,
    gap_ms: float = 100,
    replicas: int = 2,
    **changes: Any,
) -> Result:
    """Return the result of a small made-up run, by default with gaps and rejections."""
    options = options or Options(slots=8, preempt_chance=0.03, skip_chance=0.05, longest=190)
    run = run_reference(random_requests(requests, 1, gap_ms), options, replicas)
    return Result(scenario(slo, **changes), run.record)


def on_four_gpus(rate: float, requests: int, seed: int) -> Result:
    """Return a run of chats with llama-3.1-70b in fp8 on four H100, which carry about 18.3/s."""
    workload = {
        "arrivals": {"process": "poisson", "rate_per_s": rate},
        "prompt_tokens": {"median": 512, "p95": 2048, "min": 16, "max": 8192},
        "output_tokens": {"median": 192, "p95": 640, "min": 4, "max": 2048},
        "num_requests": requests,
    }
    deployment = {"model": "llama-3.1-70b", "gpu": "h100-sxm", "tp": 4, "quantization": "fp8"}
    slo = "ttft_p95:1000 tpot_p95:200"
    return run({"workload": workload, "deployment": deployment, "slo": slo, "seed": seed})
