"""Scenarios to label hand-made records with; what they ask for is never simulated here."""

from __future__ import annotations

import dataclasses
from typing import Any

from simserve.inputs.scenario import Scenario, load_scenario
from simserve.inputs.slo import parse_slo
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
