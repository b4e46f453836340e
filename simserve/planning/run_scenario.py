"""One scenario, from its files to its result: the story that every command tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from simserve.engine.simulate import simulate
from simserve.inputs.scenario import Scenario, load_scenario, scenario_from_dict
from simserve.latency.load import load_latency_model
from simserve.latency.model import StepLatencyModel
from simserve.latency.roofline import RooflineModel
from simserve.records.requests import RequestTable
from simserve.records.run_record import RunRecord
from simserve.results.result import Result
from simserve.traffic.generate import generate
from simserve.traffic.segments import infinite_cache_hit_frac, reusable_tokens


def run(
    scenario: Scenario | str | Path | Mapping[str, Any],
    *,
    check: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    latency: StepLatencyModel | None = None,
) -> Result:
    """Simulate ``scenario`` and return its result.

    A path is a scenario file; a mapping has the keys of one (``workload``, ``deployment``,
    ``slo``, ``seed``). ``check`` asserts the laws of conservation after every step, which is
    slow. ``on_progress`` is told (finished requests, all requests) from time to time. ``latency``
    prices the steps in place of the model that the deployment names.

    Raises:
        InputError: if a file or a value in it cannot be used.
        DoesNotFitError: if the GPUs cannot hold the model.
    """
    ready = as_scenario(scenario)
    requests = generate(ready.workload, ready.seed)
    if latency is None:
        latency = load_latency_model(ready.deployment)
    record = simulate(requests, ready.deployment, latency, check=check, on_progress=on_progress)
    bound = _reusable_frac(record.requests, ready.deployment.engine.block_size)
    meta = replace(
        record.meta,
        users=None if ready.workload.arrivals is None else ready.workload.arrivals.users,
        notes=tuple(requests.notes),
        trace_blocks=None if ready.workload.trace is None else _seen_before(requests),
        priced_from=_priced_from(latency, record),
    )
    return Result(scenario=ready, record=replace(record, meta=meta), prefix_bound_frac=bound)


def _reusable_frac(requests: RequestTable, block_size: int) -> float | None:
    """Return the share of prompt tokens that an endless prefix cache would have found."""
    everything = int(requests.prompt_tokens.sum())
    return int(reusable_tokens(requests, block_size).sum()) / everything if everything else None


def _priced_from(latency: StepLatencyModel, record: RunRecord) -> dict[str, Any] | None:
    """Return which profile priced the steps, and how much of their time each kind of answer."""
    if isinstance(latency, RooflineModel):
        return None
    from simserve.latency.tables.source_shares import shares_of_run
    from simserve.latency.tables.table_model import TableModel

    if not isinstance(latency, TableModel):
        return None
    return {
        "profile": latency.profile.name,
        "kind": latency.profile.provenance.kind,
        "digest": latency.profile.digest,
        "shares": shares_of_run(latency, record.steps),
        "answered_by_roofline": list(latency.missing),
        "warnings": list(latency.warnings),
    }


def _seen_before(requests: RequestTable) -> dict[str, float] | None:
    """Return how many of a trace's own prompt blocks an earlier request had, and their size."""
    if requests.segments is None:
        return None
    block_tokens = int(requests.segments.tokens.max())
    seen_frac = infinite_cache_hit_frac(requests, block_tokens)
    return {"block_tokens": block_tokens, "seen_before_frac": seen_frac}


def as_scenario(scenario: Scenario | str | Path | Mapping[str, Any]) -> Scenario:
    """Return the scenario itself, loaded from a file or built from a mapping if need be."""
    if isinstance(scenario, Scenario):
        return scenario
    if isinstance(scenario, Mapping):
        return scenario_from_dict(dict(scenario))
    return load_scenario(scenario)
