"""A scenario as a case: its requests, its engine's limits, and a straight step time.

What a step costs does not decide what a scheduler does with a step, only who has arrived by
then. So a case's step time need not be the scenario's: it is the line through three of its
steps, in whole nanoseconds.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from simserve.errors import InputError
from simserve.inputs.scenario import Scenario, load_scenario
from simserve.latency.load import load_latency_model
from simserve.latency.model import StepLatencyModel
from simserve.parity.case import Case, CaseStepTime, rows_of, table_of
from simserve.parity.case_file import CASE_SUFFIX, NS_PER_S, load_case
from simserve.parity.verify import FAST
from simserve.policy.limits import SchedulerLimits
from simserve.records.clock import PS_PER_NS
from simserve.records.step import PrefillChunk, StepShape
from simserve.traffic.generate import generate


def is_case(path: Path) -> bool:
    """Return whether a file's name says that it is a case."""
    return path.name.removesuffix(".gz").endswith(CASE_SUFFIX)


def case_or_scenario(path: Path) -> Case:
    """Read a case, or a scenario as a case.

    Raises:
        InputError: if the file is neither, or the scenario has more than one replica.
    """
    return load_case(path) if is_case(path) else case_of(load_scenario(path), str(path))


def case_of(scenario: Scenario, where: str) -> Case:
    """Return a scenario as a case.

    Requests that leave no room for a token are left out: a server refuses them.

    Raises:
        InputError: if a case cannot hold it; ``where`` is the scenario's file.
    """
    deployment = scenario.deployment
    if deployment.replicas != 1:
        raise InputError(where, "deployment.replicas", deployment.replicas, "1: a case has one")
    if deployment.scheduler != FAST:
        raise InputError(where, "deployment.scheduler", deployment.scheduler, f"{FAST}, as vLLM's")
    engine = deployment.engine
    limits = SchedulerLimits(
        **{field.name: getattr(engine, field.name) for field in fields(SchedulerLimits)}
    )
    rows = rows_of(generate(scenario.workload, scenario.seed))
    served = [row for row in rows if row.prompt_tokens < limits.max_model_len]
    if not served:
        raise InputError(where, "workload", "only prompts that are too long", "some that fit")
    step_time = straight_step_time(load_latency_model(deployment), limits)
    return Case(scenario.name, limits, step_time, table_of(served), f"made from {Path(where).name}")


def straight_step_time(latency: StepLatencyModel, limits: SchedulerLimits) -> CaseStepTime:
    """Return the line through a lone decode, a long one, and a prefill of the whole budget."""
    budget, longest = limits.max_num_batched_tokens, limits.max_model_len
    decode_ns = _ns(latency, StepShape(1, 1))
    long_ns = _ns(latency, StepShape(1, longest))
    prefill_ns = _ns(latency, StepShape(0, 0, (PrefillChunk(budget, 0),)))
    per_context_ns = (long_ns - decode_ns) // max(longest - 1, 1)
    per_token_ns = (prefill_ns - decode_ns) // max(budget - 1, 1) - per_context_ns
    per_token_ns = max(per_token_ns, 0)
    base_ns = max(decode_ns - per_token_ns - per_context_ns, 1)
    return CaseStepTime(base_ns * PS_PER_NS, per_token_ns * PS_PER_NS, per_context_ns * PS_PER_NS)


def _ns(latency: StepLatencyModel, shape: StepShape) -> int:
    return round(latency.step_s(shape) * NS_PER_S)
