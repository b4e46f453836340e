"""Time one case in this process: CPU seconds after import, and as many bare SimPy timeouts.

The unit is a timeout of SimPy that does nothing, measured in the same process for as many
events as the run had steps. CPU seconds change with the machine; their ratio hardly does.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Generator
from typing import Any

import numpy as np
import simpy

from benchmarks.cases import Case
from simserve.engine.simulate import simulate
from simserve.inputs.scenario import scenario_from_dict
from simserve.latency.load import load_latency_model
from simserve.records.run_record import FINISHED
from simserve.traffic.generate import generate

RSS_UNITS_PER_MIB = 2**20 if sys.platform == "darwin" else 2**10
"""What ``ru_maxrss`` counts: bytes on macOS, KiB elsewhere (getrusage(2))."""


def bare_timeouts_cpu_s(count: int) -> float:
    """Return the CPU seconds that one SimPy process needs for ``count`` timeouts."""

    def sleeper(env: simpy.Environment) -> Generator[simpy.Event, Any, None]:
        for _ in range(count):
            yield env.timeout(1)

    env = simpy.Environment()
    env.process(sleeper(env))
    start = time.process_time()
    env.run()
    return time.process_time() - start


def measure(case: Case) -> dict[str, float]:
    """Simulate ``case`` once and return its figures, by name."""
    scenario = scenario_from_dict(case.scenario)
    latency = load_latency_model(scenario.deployment)
    start = time.process_time()
    requests = generate(scenario.workload, scenario.seed)
    generated = time.process_time()
    record = simulate(requests, scenario.deployment, latency)
    cpu_s = time.process_time() - generated
    peak_rss_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / RSS_UNITS_PER_MIB
    steps = sum(log.total_steps for log in record.steps)
    rows = sum(len(log) for log in record.steps)
    timeouts_cpu_s = bare_timeouts_cpu_s(steps)
    outcomes = record.outcomes
    return {
        "requests": len(requests),
        "finished_frac": float(np.mean(outcomes.status == FINISHED)),
        "preempted_frac": float(np.mean(outcomes.preemptions > 0)),
        "steps": steps,
        "log_rows": rows,
        "generate_cpu_s": generated - start,
        "cpu_s": cpu_s,
        "requests_per_cpu_s": len(requests) / cpu_s,
        "timeouts_cpu_s": timeouts_cpu_s,
        "timeouts_ratio": cpu_s / timeouts_cpu_s,
        "peak_rss_mib": peak_rss_mib,
    }
