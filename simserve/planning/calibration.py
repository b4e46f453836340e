"""How far answers move when the latencies that were measured had come out otherwise.

Each draw takes the tables as another measurement might have found them, and simulates a
replication again: the same requests, so that the difference is that of the tables alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simserve.inputs.scenario import Scenario
from simserve.latency.perturbed import deployment_scatter, perturbed_model
from simserve.planning.processes import in_order
from simserve.planning.replications import replication_of
from simserve.planning.run_scenario import run
from simserve.results.critical_values import student_t
from simserve.results.run_sample import RunSample
from simserve.results.steady_state import point_statistics
from simserve.traffic.streams import random_stream

DRAWS = 16
"""How often the tables are drawn: the band itself is then known to about a third."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationBand:
    """Half-widths in seconds by metric and statistic, or the ``reason`` why there are none.

    ``source`` says whose scatter it is.
    """

    half_widths_s: Mapping[str, Mapping[str, float]]
    source: str | None = None
    reason: str | None = None


def calibration_band(
    scenario: Scenario, runs: Sequence[RunSample], *, draws: int = DRAWS, workers: int = 1
) -> CalibrationBand:
    """Return the band around the numbers of ``runs``, the first replications of ``scenario``."""
    scatter = deployment_scatter(scenario.deployment)
    if scatter is None:
        what = scenario.deployment.latency
        reason = f"{what} does not say how far its latencies may be off"
        return CalibrationBand(half_widths_s={}, reason=reason)
    tasks = [
        _Draw(replication_of(scenario, draw % len(runs)), scenario.seed, draw)
        for draw in range(draws)
    ]
    drawn = in_order(_perturbed_sample, tasks, workers)
    lost = sum(one.verdict == "overloaded" for one in drawn)
    if lost:
        reason = f"in {lost} of {draws} draws of the tables the deployment is overloaded"
        return CalibrationBand(half_widths_s={}, source=scatter.source, reason=reason)
    base = [point_statistics(one) for one in runs[:draws]]
    moved = [point_statistics(one) for one in drawn]
    found: dict[str, dict[str, float]] = {}
    for metric in base[0]:
        for statistic in base[0][metric]:
            shifts = [
                one[metric][statistic] - base[draw % len(runs)][metric][statistic]
                for draw, one in enumerate(moved)
                if metric in one and metric in base[draw % len(runs)]
            ]
            found.setdefault(metric, {})[statistic] = _reach(shifts)
    return CalibrationBand(half_widths_s=found, source=scatter.source)


def _reach(shifts: Sequence[float]) -> float:
    """Return the half-width around no shift that holds 95 % of them."""
    count = len(shifts)
    return student_t(count) * math.sqrt(float(np.dot(shifts, shifts)) / count) if count else 0.0


@dataclass(frozen=True, slots=True)
class _Draw:
    scenario: Scenario
    seed: int
    number: int


def _perturbed_sample(draw: _Draw) -> RunSample:
    rng = random_stream(draw.seed, f"calibration {draw.number}")
    result = run(draw.scenario, latency=perturbed_model(draw.scenario.deployment, rng))
    return RunSample.of(result.record, result.verdict, result.facts)
