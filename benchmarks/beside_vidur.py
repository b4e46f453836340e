"""The same requests and step times through Vidur and through simserve: CPU seconds of each.

``python -m benchmarks.beside_vidur --python VENV/bin/python``, where the other environment holds
``vidur`` (0.0.26 on PyPI, Python 3.11). Vidur gets every advantage: see ``vidur_driver``. The
mean latencies stand beside the times, to show that both did the same work.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import CASES, OUTPUT_TOKENS, PROMPT_TOKENS
from simserve.engine.cluster import Cluster
from simserve.inputs.scenario import scenario_from_dict
from simserve.parity.case import CaseStepTime
from simserve.policy.limits import SchedulerLimits
from simserve.policy.registry import SCHEDULERS
from simserve.policy.router import RoundRobin
from simserve.records.clock import PS_PER_S
from simserve.records.requests import RequestTable
from simserve.traffic.generate import generate

STEP_TIME = CaseStepTime(base_ps=6_400_000_000, per_token_ps=20_000_000, per_context_ps=49_000)
"""About an 8B model on an H100: which does not matter here, only that both have it."""
LIMITS = SchedulerLimits(
    max_num_seqs=1024,
    max_num_batched_tokens=8192,
    max_model_len=131_072,
    num_blocks=27_000,
    enable_prefix_caching=False,
    async_scheduling=False,
)
"""Vidur's scheduler has neither prefix caching nor async scheduling."""
PS_PER_MS = PS_PER_S // 1000
DRIVER = Path(__file__).with_name("vidur_driver.py")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one row per workload."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beside_vidur", description=__doc__)
    parser.add_argument("--python", required=True, help="of the environment that holds vidur")
    parser.add_argument("--requests", type=int, default=5_000, help="per workload")
    parser.add_argument("--rounds", type=int, default=3, help="of each, in turn; the median counts")
    options = parser.parse_args(arguments)
    print("| workload | steps | simserve CPU s | Vidur CPU s | ratio | mean E2E s, both |")
    print("|---|---|---|---|---|---|")
    for name, requests in workloads(options.requests).items():
        rounds = [
            (run_simserve(requests), run_vidur(requests, options.python))
            for _ in range(options.rounds)
        ]
        ours, theirs = rounds[0]
        our_s, their_s = (statistics.median(row[k]["cpu_s"] for row in rounds) for k in (0, 1))
        print(
            f"| {name} | {ours['steps']:,}, {theirs['steps']:,} | {our_s:.3f} | {their_s:.2f} | "
            f"{their_s / our_s:.0f} | {ours['e2e_s']:.4f}, {theirs['e2e_s']:.4f} |",
            flush=True,
        )


def workloads(count: int) -> dict[str, RequestTable]:
    """Return the first ``count`` requests of each workload, by name."""
    drawn = {
        f"{rate}/s, {PROMPT_TOKENS} + {OUTPUT_TOKENS} tokens": poisson(count, rate)
        for rate in (12, 40)
    }
    azure = next(case for case in CASES if case.name == "azure")
    if azure.needs is not None and azure.needs.exists():
        trace = azure.scenario["workload"]["trace"] | {"head": count}
        scenario = scenario_from_dict(azure.scenario | {"workload": {"trace": trace}})
        drawn["Azure 2023 conversations"] = generate(scenario.workload, scenario.seed)
    return drawn


def poisson(count: int, rate_per_s: float) -> RequestTable:
    """Return requests of fixed lengths."""
    gaps_s = np.random.default_rng(0).exponential(1 / rate_per_s, count)
    return RequestTable(
        arrival_ps=(np.cumsum(gaps_s) * PS_PER_S).astype(np.int64),
        prompt_tokens=np.full(count, PROMPT_TOKENS),
        output_tokens=np.full(count, OUTPUT_TOKENS),
    )


def run_simserve(requests: RequestTable) -> dict[str, Any]:
    """Return what simserve needed and found."""
    start = time.process_time()
    record = Cluster(requests, LIMITS, SCHEDULERS["chunked-prefill"], STEP_TIME, RoundRobin()).run()
    cpu_s = time.process_time() - start
    e2e_ps = record.outcomes.finish_ps - requests.arrival_ps
    return {
        "cpu_s": cpu_s,
        "steps": sum(log.total_steps for log in record.steps),
        "e2e_s": float(np.mean(e2e_ps)) / PS_PER_S,
    }


def run_vidur(requests: RequestTable, python: str) -> dict[str, Any]:
    """Return what Vidur needed and found, in a process of its own."""
    arrival_s = requests.arrival_ps / PS_PER_S
    columns = (arrival_s, requests.prompt_tokens, requests.output_tokens)
    parts = (STEP_TIME.base_ps, STEP_TIME.per_token_ps, STEP_TIME.per_context_ps)
    with tempfile.TemporaryDirectory() as folder:
        asked = {
            "folder": folder,
            "requests": list(zip(*(column.tolist() for column in columns), strict=True)),
            "step_ms": [part / PS_PER_MS for part in parts],
            "num_blocks": LIMITS.num_blocks,
            "max_num_seqs": LIMITS.max_num_seqs,
            "max_num_batched_tokens": LIMITS.max_num_batched_tokens,
            "max_model_len": LIMITS.max_model_len,
        }
        done = subprocess.run(
            [python, str(DRIVER)],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            cwd=folder,
            check=False,
        )
    if done.returncode:
        sys.exit(f"beside_vidur: {python} could not run Vidur:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
