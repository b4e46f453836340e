"""Users who wait for their answer, as a workload describes them."""

from __future__ import annotations

import pytest

import simserve
from simserve.inputs.workload import read_workload
from simserve.records.clock import PS_PER_S
from simserve.traffic.generate import generate


def workload(**arrivals: object) -> dict[str, object]:
    return {
        "arrivals": {"process": "closed-loop", **arrivals},
        "prompt_tokens": {"median": 200, "p95": 600},
        "output_tokens": 20,
        "num_requests": 3000,
    }


def test_everyone_thinks_before_every_request() -> None:
    table = generate(read_workload(workload(users=50, think_time_s=4)), seed=1)
    assert table.users == 50 and table.think_ps is not None
    assert table.arrival_ps[:50].tolist() == sorted(table.think_ps[:50].tolist())
    mean_s = table.think_ps.mean() / PS_PER_S
    # The mean of 3,000 exponential times has a standard error of 4 / sqrt(3000) = 0.07 s.
    assert mean_s == pytest.approx(4, abs=4 * 0.073)


def test_more_users_than_requests_ask_once_each() -> None:
    table = generate(read_workload(workload(users=5000) | {"num_requests": 7}), seed=1)
    assert table.users == 7


@pytest.mark.parametrize(
    "extra", [{"duration_s": 60}, {"sessions": {"turns": 3, "think_time_s": 1}}]
)
def test_what_a_closed_loop_cannot_have_is_refused(extra: dict[str, object]) -> None:
    entry = workload(users=5) | extra
    if "duration_s" in extra:
        del entry["num_requests"]
    with pytest.raises(simserve.InputError, match=next(iter(extra))):
        read_workload(entry)


def test_a_run_obeys_the_response_time_law() -> None:
    # Interactive response time law: users = throughput x (response + think), up to the edges.
    users, think_s = 20, 2.0
    scenario = {"workload": workload(users=users, think_time_s=think_s)}
    result = simserve.run(scenario | {"deployment": {"model": "llama-3.1-8b", "gpu": "h100-sxm"}})
    metrics = result.metrics
    response_s = result.requests_frame()["e2e_s"].mean()
    in_loop = metrics.request_throughput * (response_s + think_s)
    assert in_loop == pytest.approx(users, rel=0.05)
    assert metrics.max_in_flight <= users
    assert result.verdict.name == "stable"


def test_classes_keep_their_requests_in_a_closed_loop() -> None:
    classes = [
        {"name": "short", "weight": 1, "prompt_tokens": 10, "slo": "e2el:60000"},
        {"name": "long", "weight": 1, "prompt_tokens": 900},
    ]
    entry = workload(users=8, think_time_s=0.1) | {"classes": classes, "num_requests": 200}
    result = simserve.run(
        {"workload": entry, "deployment": {"model": "llama-3.1-8b", "gpu": "h100-sxm"}}
    )
    frame = result.requests_frame()
    assert (frame["prompt_tokens"] == frame["class"].map({"short": 10, "long": 900})).all()
    assert result.slo_report is not None
    assert result.slo_report.good_requests == (frame["class"] == "short").sum()
