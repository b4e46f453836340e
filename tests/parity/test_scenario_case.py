"""A scenario as a case: the same requests and limits, and a step time close to its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from simserve.errors import InputError
from simserve.inputs.scenario import scenario_from_dict
from simserve.latency.load import load_latency_model
from simserve.parity.case_file import load_case, save_case
from simserve.parity.scenario_case import case_of, case_or_scenario, is_case, straight_step_time
from simserve.parity.verify import serve_case
from simserve.policy.cohort import CohortScheduler
from simserve.records.run_record import FINISHED
from simserve.records.step import PrefillChunk, StepShape

SCENARIO = {
    "workload": {
        "arrivals": {"process": "poisson", "rate_per_s": 20},
        "prompt_tokens": {"median": 200, "p95": 600, "max": 2000},
        "output_tokens": 20,
        "num_requests": 30,
        "prefix": {"count": 2, "tokens": 64},
    },
    "deployment": {"model": "llama-3.1-8b", "gpu": "h100-sxm", "max_num_seqs": 8},
    "seed": 3,
}


def test_every_request_is_served_within_the_scenarios_limits(tmp_path: Path) -> None:
    scenario = scenario_from_dict(SCENARIO)
    case = case_of(scenario, "x.yaml")
    assert len(case.requests) == 30
    assert case.limits.max_num_seqs == 8
    assert case.limits.num_blocks == scenario.deployment.engine.num_blocks
    run = serve_case(case, CohortScheduler)
    assert (run.outcomes.status == FINISHED).all()
    assert run.outcomes.cached_tokens.sum() > 0  # the prefixes are still shared
    path = tmp_path / "x.case.json"
    save_case(case, path)
    assert load_case(path).requests.arrival_ps.tolist() == case.requests.arrival_ps.tolist()


def test_the_step_time_meets_the_latency_model_where_it_was_drawn() -> None:
    deployment = scenario_from_dict(SCENARIO).deployment
    latency = load_latency_model(deployment)
    case = case_of(scenario_from_dict(SCENARIO), "x.yaml")
    straight = straight_step_time(latency, case.limits)
    budget = case.limits.max_num_batched_tokens
    for shape in (StepShape(1, 1), StepShape(0, 0, (PrefillChunk(budget, 0),))):
        # Slopes are whole nanoseconds a token: at most one nanosecond off for each.
        assert straight.step_s(shape) == pytest.approx(latency.step_s(shape), abs=3e-9 * budget)


@pytest.mark.parametrize("setting", [{"replicas": 2}, {"scheduler": "static"}])
def test_what_a_case_cannot_hold_is_refused(setting: dict[str, object]) -> None:
    deployment = {**SCENARIO["deployment"], **setting}  # type: ignore[dict-item]
    scenario = scenario_from_dict({**SCENARIO, "deployment": deployment})
    with pytest.raises(InputError, match=rf"x.yaml: deployment.{next(iter(setting))}: got "):
        case_of(scenario, "x.yaml")


def test_a_file_is_a_case_by_its_name(tmp_path: Path) -> None:
    assert is_case(Path("a.case.json")) and is_case(Path("a.case.json.gz"))
    assert not is_case(Path("case.yaml"))
    with pytest.raises(InputError, match=r"nowhere\.yaml"):
        case_or_scenario(tmp_path / "nowhere.yaml")
