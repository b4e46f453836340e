"""The lemmas hold in simulated runs, and what they remove does not keep the SLO."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.inputs.deployment import read_deployment
from simserve.inputs.plan_spec import PlanSpec
from simserve.inputs.prices import load_prices
from simserve.inputs.scenario import Scenario, load_deployment_spec, scenario_from_dict
from simserve.planning.plan.bounds import Demand, HardwareBounds, share_within
from simserve.planning.plan.outcomes import outcome_of
from simserve.planning.plan.question import Question, Runs
from simserve.planning.plan.screen import Removal, Screening, screen
from simserve.planning.plan.space import axes_for, candidates
from simserve.planning.run_scenario import run
from simserve.records.clock import PS_PER_S
from simserve.results.metrics import request_latencies

# Dense, sliding windows beside full layers, experts, a latent, and quantised.
MODELS: list[dict[str, Any]] = [
    {"model": "llama-3.1-8b", "gpu": "h100-sxm"},
    {"model": "llama-3.1-8b", "gpu": "l4", "quantization": "awq", "max_model_len": 4096},
    {"model": "llama-3.1-8b", "gpu": "a100-80gb-sxm", "tp": 2, "kv_cache_dtype": "fp8"},
    {"model": "gemma-2-9b", "gpu": "h100-sxm"},
    {"model": "mixtral-8x7b", "gpu": "h100-sxm", "tp": 2},
    {"model": "gpt-oss-20b", "gpu": "h100-sxm"},
    {"model": "deepseek-v3", "gpu": "b200-sxm", "tp": 8, "max_model_len": 8192},
]
LIMITS: list[dict[str, Any]] = [
    {},
    {"max_num_seqs": 4},
    {"max_num_seqs": 32, "max_num_batched_tokens": 128},
    {"num_gpu_blocks": 260, "max_model_len": 3000},
    {"async_scheduling": False},
    {"scheduler": "continuous", "max_model_len": 3000},
]
SHARED: list[dict[str, Any]] = [
    {},
    {"prefix": {"count": 3, "tokens": 200}},
    {"sessions": {"turns": 3, "think_time_s": 0.5}},
]


def scenario_of(
    deployment: dict[str, Any],
    limits: dict[str, Any],
    shared: dict[str, Any],
    rate: float,
    seed: int,
) -> Scenario | None:
    wanted = deployment | limits
    if "num_gpu_blocks" in limits and deployment["model"] in ("gemma-2-9b", "gpt-oss-20b"):
        wanted = deployment | {"max_num_seqs": 2}
    workload = {
        "arrivals": {"process": "poisson", "rate_per_s": rate},
        "prompt_tokens": {"median": 300, "p95": 1500, "max": 2000},
        "output_tokens": {"median": 30, "p95": 200, "max": 400},
        "num_requests": 60,
        **shared,
    }
    return scenario_from_dict({"workload": workload, "deployment": wanted, "seed": seed})


@settings(max_examples=25)
@given(
    deployment=st.sampled_from(MODELS),
    limits=st.sampled_from(LIMITS),
    shared=st.sampled_from(SHARED),
    replicas=st.sampled_from([1, 3]),
    rate=st.sampled_from([0.5, 20.0, 500.0]),
    seed=st.integers(0, 10_000),
)
def test_no_run_is_below_a_bound(
    deployment: dict[str, Any],
    limits: dict[str, Any],
    shared: dict[str, Any],
    replicas: int,
    rate: float,
    seed: int,
) -> None:
    scenario = scenario_of(deployment, limits, shared, rate, seed)
    assert scenario is not None
    fleet = dataclasses.replace(scenario.deployment, replicas=replicas)
    result = run(dataclasses.replace(scenario, deployment=fleet))
    record, latencies = result.record, request_latencies(result.record)
    demand = Demand.of(record.requests)
    bounds = HardwareBounds(fleet)
    alone = bounds.alone(demand, fleet.engine.max_model_len)
    done = latencies.finished
    assert done.any()
    # A picosecond of rounding at either end of a latency.
    slack_s = 2 / PS_PER_S
    assert (latencies.ttft_s[done] >= alone.ttft_s[done] - slack_s).all()
    several = done & ~np.isnan(latencies.tpot_s)
    assert (latencies.tpot_s[several] >= alone.tpot_s[several] - slack_s).all()
    assert (latencies.e2el_s[done] >= alone.e2el_s[done] - 2 * slack_s).all()
    growth = [log.duration_growth_ps * (log.steps * (log.steps - 1) // 2) for log in record.steps]
    busy_ps = sum(
        int((log.steps * log.duration_ps + more).sum())
        for log, more in zip(record.steps, growth, strict=True)
    )
    least_s = bounds.busy_s(demand, fleet)
    assert 0 < least_s <= busy_ps / PS_PER_S * (1 + 1e-6)


def test_the_bound_on_work_is_not_far_from_a_full_replica() -> None:
    """A bound that proves nothing would pass the test above; this one is worth something."""
    scenario = scenario_of(MODELS[0], {"max_num_seqs": 32}, {}, 1000.0, 1)
    assert scenario is not None
    workload = scenario.workload.model_copy(update={"num_requests": 2000})
    result = run(dataclasses.replace(scenario, workload=workload))
    least_s = HardwareBounds(scenario.deployment).busy_s(
        Demand.of(result.record.requests), scenario.deployment
    )
    assert least_s > 0.6 * result.record.end_ps / PS_PER_S


def test_a_lone_request_meets_its_bound_on_ttft() -> None:
    deployment = read_deployment({"model": "llama-3.1-8b", "gpu": "h100-sxm"})
    workload = {
        "arrivals": {"process": "constant", "rate_per_s": 0.1},
        "prompt_tokens": 1,
        "output_tokens": 1,
        "num_requests": 5,
    }
    scenario = scenario_from_dict(
        {"workload": workload, "deployment": {"model": "llama-3.1-8b", "gpu": "h100-sxm"}}
    )
    result = run(scenario)
    alone = HardwareBounds(deployment).alone(Demand.of(result.record.requests), 4096)
    assert request_latencies(result.record).ttft_s == pytest.approx(alone.ttft_s, rel=1e-6)


def test_tokens_that_others_have_are_not_counted_as_work() -> None:
    workload = {
        "arrivals": {"process": "constant", "rate_per_s": 1},
        "prompt_tokens": 100,
        "output_tokens": 10,
        "prefix": {"count": 1, "tokens": 900},
        "num_requests": 20,
    }
    scenario = scenario_from_dict(
        {"workload": workload, "deployment": {"model": "llama-3.1-8b", "gpu": "h100-sxm"}}
    )
    demand = Demand.of(run(scenario).record.requests)
    assert demand.prompt.tolist() == [1000] * 20
    assert demand.computed.tolist() == [100] * 20


def test_objectives_of_a_class_are_asked_of_its_requests_alone() -> None:
    from simserve.inputs.slo import ClassSlo, parse_slo

    classes = [
        {"name": "long", "weight": 1, "prompt_tokens": 2000, "slo": "ttft_p95:1"},
        {"name": "short", "weight": 1, "prompt_tokens": 10},
    ]
    workload = {
        "arrivals": {"process": "constant", "rate_per_s": 1},
        "prompt_tokens": 10,
        "output_tokens": 5,
        "num_requests": 40,
        "classes": classes,
    }
    scenario = scenario_from_dict(
        {"workload": workload, "deployment": {"model": "llama-3.1-8b", "gpu": "h100-sxm"}}
    )
    demand = Demand.of(run(scenario).record.requests)
    bounds = HardwareBounds(scenario.deployment).alone(demand, 4096)
    found = share_within(
        parse_slo("ttft_p95:1000"),
        [ClassSlo("long", parse_slo("ttft_p95:1")), ClassSlo("short", None)],
        demand,
        bounds,
    )
    assert [(name, share) for name, _, share in found] == [("ttft_p95", 1.0), ("ttft_p95", 0.0)]


@cache
def chat_at_20() -> tuple[Question, Runs, Screening]:
    """Chat at 20 requests per second on a part of the price list; every bound removes something."""
    from simserve.inputs.scenario import load_scenario

    scenario = load_scenario(
        settings=["workload.arrivals.rate_per_s=20", "workload.num_requests=1500"]
    )
    spec, origins = load_deployment_spec(None)
    gpus = ("a10", "a100-80gb-sxm", "h100-sxm", "l4", "l40s", "rtx-pro-6000-server")
    plan = PlanSpec(vary={"gpu": gpus, "kv_cache_dtype": (None,), "router": ("round-robin",)})
    question = Question(
        scenario=scenario,
        spec=spec.model_copy(update={"max_model_len": 10_240}),
        origins=origins,
        plan=plan,
        prices=load_prices(),
        max_gpus=16,
    )
    axes = axes_for(question.spec, plan, question.prices, "on-demand")
    runs = Runs.of(scenario)
    found = candidates(axes, question.spec, origins)
    return question, runs, screen(question, found, Demand.of(runs.requests()))


def removed_by(bound: str, count: int) -> list[Removal]:
    """Return removed plans: of work, those nearest to their bound, where a flaw would show."""
    _, _, screening = chat_at_20()
    found = [one for one in screening.removals if one.bound == bound]
    if bound == "rate":
        found.sort(key=lambda one: float(one.reason.split()[2]) / one.replicas)
    step = 1 if bound == "rate" else max(1, len(found) // count)
    return found[::step][:count]


@pytest.mark.parametrize("bound", ["latency", "rate"])
def test_plans_that_a_bound_removed_do_not_keep_the_slo(bound: str) -> None:
    question, runs, _ = chat_at_20()
    removals = removed_by(bound, 10)
    assert len(removals) == 10
    for one in removals:
        assert one.candidate.deployment is not None
        outcome = outcome_of(
            runs.at(one.candidate.deployment, one.replicas, 1, short=bound == "latency")
        )
        assert not outcome.met(question.good_share), one


def test_what_is_counted_is_all_there_is() -> None:
    question, _, screening = chat_at_20()
    assert len(screening.plans) + len(screening.removals) == screening.total
    assert screening.total == len(screening.candidates) // 4 * (16 + 8 + 4 + 2)
    orders = [one.order for one in screening.plans]
    assert orders == sorted(orders)
    assert all(one.gpus <= question.max_gpus for one in screening.plans)


def test_a_model_that_does_not_fit_is_removed_as_it_would_be_refused() -> None:
    spec, origins = load_deployment_spec(None, model="llama-3.1-70b")
    plan = PlanSpec(vary={"gpu": ("l4", "h100-sxm"), "tp": (1, 3, 8)}, limits=({},))
    axes = axes_for(spec, plan, load_prices(), "on-demand")
    fates = {
        (one.gpu, one.tp, one.settings["quantization"]): one
        for one in candidates(axes, spec, origins)
    }
    assert fates["h100-sxm", 1, None].fate == "memory"
    assert "GB less per GPU" in str(fates["h100-sxm", 1, None].error)
    assert fates["h100-sxm", 3, None].fate == "impossible"
    assert fates["h100-sxm", 8, None].deployment is not None
