"""A small question whose plan takes about a second: two GPUs, few settings, short runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from simserve.inputs.plan_spec import PlanSpec
from simserve.inputs.prices import load_prices
from simserve.inputs.scenario import load_deployment_spec, scenario_from_dict
from simserve.planning.plan.answer import PlanAnswer, make_plan
from simserve.planning.plan.backends import Backend, LocalBackend
from simserve.planning.plan.question import Question
from simserve.planning.plan.store import OutcomeStore
from simserve.report.plan import plan_dict

WORKLOAD: dict[str, Any] = {
    "arrivals": {"process": "poisson", "rate_per_s": 12},
    "prompt_tokens": {"median": 300, "p95": 900, "max": 2000},
    "output_tokens": {"median": 40, "p95": 120, "max": 300},
    "num_requests": 60,
}
VARY: dict[str, tuple[Any, ...]] = {
    "gpu": ("l4", "l40s"),
    "tp": (1,),
    "quantization": (None, "awq"),
    "kv_cache_dtype": (None,),
    "router": ("round-robin", "least-loaded"),
}


def small_question(slo: str = "ttft_p95:500 tpot_p95:60", **changes: Any) -> Question:
    scenario = scenario_from_dict(
        {
            "name": "small",
            "workload": WORKLOAD,
            "deployment": {"model": "llama-3.1-8b", "gpu": "h100-sxm"},
            "slo": slo,
            "seed": 5,
        }
    )
    spec, origins = load_deployment_spec(None)
    usual: dict[str, Any] = {
        "scenario": scenario,
        "spec": spec,
        "origins": origins,
        "plan": PlanSpec(vary=VARY, limits=({},)),
        "prices": load_prices(),
        "max_gpus": 6,
        "replications": 4,
        "fresh_seeds": 2,
    }
    return Question(**usual | changes)


def planned(
    question: Question, backend: Backend | None = None, store: OutcomeStore | None = None
) -> PlanAnswer:
    return make_plan(question, backend or LocalBackend(1), store or OutcomeStore(None))


def text_of(answer: PlanAnswer) -> str:
    return json.dumps(plan_dict(answer), sort_keys=True)


def planned_into(folder: Path, backend: Backend | None = None, *, resume: bool = True) -> str:
    """Plan the small question with its runs kept in ``folder``, and return all that it says."""
    store = OutcomeStore(folder, resume=resume)
    try:
        return text_of(planned(small_question(), backend, store))
    finally:
        store.close()
