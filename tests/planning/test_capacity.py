"""Capacity: looser limits never lower it, and below it the SLO is met by others' luck too."""

from __future__ import annotations

import dataclasses
from functools import cache
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

import simserve
from simserve.engine.simulate import simulate
from simserve.errors import InputError
from simserve.inputs.deployment import read_deployment
from simserve.planning.capacity import MOST_USERS, Capacity, _Search, find_capacity
from simserve.planning.load_tests import LoadTest, LoadTester
from simserve.planning.loads import load_dial
from simserve.planning.other_hardware import as_it_is
from simserve.planning.replications import replicate
from simserve.planning.run_scenario import run
from simserve.records.run_record import REJECTED
from simserve.report.capacity import capacity_dict, capacity_text
from simserve.results.attainment import attainments
from simserve.results.whole_files import json_text
from simserve.traffic.generate import generate

QUICK = [
    "workload.prompt_tokens={median: 200, p95: 600, max: 2000}",
    "workload.output_tokens={median: 20, p95: 60, max: 200}",
    "workload.num_requests=300",
    "max_num_seqs=16",
]


def quick(slo: str | None, *settings: str) -> simserve.Scenario:
    return simserve.load_scenario(settings=[*QUICK, *settings], slo=slo or "ttft_p95:1")


@cache
def capacity(slo: str, users: bool = False) -> Capacity:
    return find_capacity(quick(slo), users=users, replications=3, precision_frac=0.05)


def found(slo: str) -> float:
    load = capacity(slo).load
    assert load is not None
    return load


def test_a_looser_limit_never_lowers_the_capacity() -> None:
    loads = [found(f"ttft_p95:{limit}") for limit in (30, 60, 200, "1e6")]
    assert loads == sorted(loads) and loads[0] < loads[-1]


def test_more_objectives_never_raise_the_capacity() -> None:
    assert found("ttft_p95:200 e2el_p95:1000") <= found("ttft_p95:200")


def test_the_capacity_lies_in_its_interval() -> None:
    one = capacity("ttft_p95:200")
    assert one.load is not None and one.low is not None and one.high is not None
    assert one.low <= one.load < one.high
    assert one.at is not None and one.at.met
    assert one.above is not None and not one.above.met
    assert one.above.load <= one.load * 1.05 * 1.001


def test_below_the_capacity_fresh_seeds_meet_the_slo() -> None:
    slo = "ttft_p95:200"
    one = capacity(slo)
    assert one.load is not None
    scenario = one.dial.at(0.9 * one.load, 600)
    fresh = replicate(scenario, range(50, 56))
    assert all(each.met for each in attainments(fresh))
    assert not any(each.verdict == "overloaded" for each in fresh)


def test_well_above_the_capacity_fresh_seeds_miss_it() -> None:
    one = capacity("ttft_p95:200")
    assert one.load is not None
    fresh = replicate(one.dial.at(1.5 * one.load, 600), range(50, 53))
    missed = not all(each.met for each in attainments(fresh))
    assert missed or any(each.verdict == "overloaded" for each in fresh)


def test_the_same_seed_gives_the_same_bytes_whatever_the_processes() -> None:
    texts = {
        json_text(
            capacity_dict(
                find_capacity(
                    quick("ttft_p95:100"), replications=2, precision_frac=0.1, workers=workers
                )
            )
        )
        for workers in (1, 2)
    }
    assert len(texts) == 1


def test_an_objective_that_nobody_can_meet_is_one_line() -> None:
    one = capacity("ttft_p95:0.1")
    assert one.load is None and one.frontier == ()
    text = capacity_text(one)
    assert text.startswith("No load meets ttft_p95:0.1: even at ")
    assert "\n" not in text and " TTFT p95 is " in text
    assert capacity_dict(one)["capacity"] is None


def test_what_limits_is_named() -> None:
    assert capacity_dict(capacity("ttft_p95:30"))["limited_by"] == "ttft_p95:30"
    # Nothing but overload breaks an objective of 1,000 s.
    assert capacity_dict(capacity("ttft_p95:1e6"))["limited_by"] == "load"


def test_users_are_whole_numbers_and_their_questions_enough() -> None:
    one = capacity("ttft_p95:60", users=True)
    assert one.load is not None and one.load == round(one.load) >= 1
    assert all(test.load == round(test.load) for test in one.frontier)
    assert "users" in capacity_text(one)
    assert one.above is None or one.above.load > one.load


def test_objectives_per_request_are_asked_of_a_share() -> None:
    slo = "ttft:100"
    strict, lenient = (
        find_capacity(quick(slo), replications=2, precision_frac=0.1, good_share=share).load
        for share in (0.99, 0.8)
    )
    assert strict is not None and lenient is not None and strict <= lenient


def test_the_frontier_rises_and_shows_the_capacity() -> None:
    one = capacity("ttft_p95:200")
    loads = [test.load for test in one.frontier]
    assert loads == sorted(loads) and one.load in loads
    assert one.frontier[0].met
    text = capacity_text(one)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("  *\n") == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["workload.arrivals={process: all-at-once}"], "all-at-once"),
        (
            [
                "workload.arrivals={process: vllm-bench, ramp_up: linear, start_rate_per_s: 1, "
                "end_rate_per_s: 9}"
            ],
            "ramp_up",
        ),
    ],
)
def test_a_load_that_is_no_number_is_refused(settings: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_dial(quick("ttft:1", *settings), users=False, think_time_s=None)


def test_without_an_objective_there_is_no_capacity() -> None:
    import dataclasses

    with pytest.raises(InputError, match="--slo"):
        find_capacity(dataclasses.replace(quick(None), slo=None))


def test_the_dial_sets_the_rate_and_nothing_else() -> None:
    scenario = quick("ttft:1", "workload.arrivals={process: gamma, rate_per_s: 3, burstiness: 0.5}")
    dial = load_dial(scenario, users=False, think_time_s=None)
    assert dial.start == 3
    changed = dial.at(7.5, 900).workload
    assert changed.arrivals is not None and changed.arrivals.rate_per_s == 7.5
    assert changed.arrivals.burstiness == 0.5 and changed.num_requests == 900
    assert changed.prompt_tokens == scenario.workload.prompt_tokens


def test_a_latency_that_no_request_has_is_no_objective() -> None:
    settings = ["workload.output_tokens=1", "workload.num_requests=30"]
    scenario = simserve.load_scenario(settings=settings, slo="tpot_p95:50")
    with pytest.raises(InputError, match="a latency that some request has"):
        find_capacity(scenario, replications=1)


def test_runs_without_a_steady_state_are_not_said_to_break_an_objective() -> None:
    scenario = simserve.load_scenario(settings=["workload.num_requests=1"], slo="ttft_p95:1e6")
    text = capacity_text(find_capacity(scenario))
    assert "No capacity is found" in text and "warm-up and drain" in text


def test_goodput_is_of_all_who_come_once() -> None:
    scenario = quick("ttft_p95:1e6", "workload.cancellations={frac: 0.5, mean_after_s: 0.05}")
    tester = LoadTester(
        load_dial(scenario, users=False, think_time_s=None),
        replications=2,
        good_share=0.99,
        workers=1,
    )
    test = tester.test(2.0)
    served, good = test.served_per_s, test.goodput_per_s
    assert served is not None and good is not None and served.value < 1.7
    assert good.value == pytest.approx(served.value)  # nobody who is answered is late


def test_nobody_late_between_tokens_is_no_proof_either() -> None:
    test = LoadTester(
        load_dial(quick("itl_p99:1e6"), users=False, think_time_s=None),
        replications=2,
        good_share=0.99,
        workers=1,
    ).test(1.0)
    (found,) = test.attainments
    gaps = sum(run.promises[0].strain.weights.sum() for run in test.runs)
    assert found.share == 1 and found.effective_size < gaps


def test_conversations_that_wait_are_overloaded_by_their_rate() -> None:
    """Each waits for its answers, so requests never come faster than they are answered."""
    sessions = "workload.sessions={mean_turns: 4, wait_for_answer: true, think_time_s: 0.5}"
    settings = [*QUICK[:2], sessions, "workload.num_requests=1500"]
    scenario = simserve.load_scenario(settings=settings, slo="ttft_p95:1e6")
    dial = load_dial(scenario, users=False, think_time_s=None)
    assert dial.kind == "conversations/s"
    light, heavy = (run(dial.at(rate)) for rate in (2.0, 500.0))
    assert light.verdict.name == "stable" and "conversation" in light.verdict.reason
    assert heavy.verdict.name != "stable"
    begun = light.record.meta.last_session_ps
    window = light.sample.window
    assert light.record.requests.arrival_ps[window.stop - 1] <= begun
    assert light.record.requests.arrival_ps[-1] > begun


def test_a_rate_that_changes_is_not_carried_by_a_run_that_is_over_at_once() -> None:
    steps = "{duration_s: 10, rate_per_s: 2}, {duration_s: 10, rate_per_s: 5}"
    arrivals = f"workload.arrivals={{process: piecewise, steps: [{steps}]}}"
    scenario = quick("ttft_p95:1e6", arrivals)
    dial = load_dial(scenario, users=False, think_time_s=None)
    tester = LoadTester(dial, replications=1, good_share=0.99, workers=1)
    assert tester.test(3.0).met
    at_once = tester.test(1e5)
    assert at_once.runs[0].changes and not at_once.steady


def test_more_users_than_are_looked_for_are_not_looked_for() -> None:
    """Where more users only wait longer, an objective may never be broken beyond chance."""

    class Tester:
        dial = SimpleNamespace(whole=True)

        def __init__(self) -> None:
            self.tested: dict[float, SimpleNamespace] = {}

        def test(self, load: float) -> SimpleNamespace:
            found = SimpleNamespace(met=load <= 3, surely_met=False, surely_missed=False)
            return self.tested.setdefault(load, found)

    tester = Tester()
    search = _Search(cast(LoadTester, tester), 0.02)
    assert search.interval(3.0, 4.0, cast(LoadTest, tester.test(1.0))) == (None, None)
    assert max(tester.tested) <= 2 * MOST_USERS


def test_requests_that_no_context_holds_are_counted_in_the_answer() -> None:
    whole = capacity("ttft_p95:30")
    prompts = np.sort(
        generate(whole.dial.scenario.workload, whole.dial.scenario.seed).prompt_tokens
    )
    limit = int(prompts[len(prompts) // 2])
    deployment = whole.dial.scenario.deployment
    short = dataclasses.replace(
        deployment, engine=dataclasses.replace(deployment.engine, max_model_len=limit)
    )
    scenario = dataclasses.replace(whole.dial.scenario, deployment=short)
    found = dataclasses.replace(whole, dial=dataclasses.replace(whole.dial, scenario=scenario))
    record = simulate(generate(scenario.workload, scenario.seed), short, as_it_is(short))
    refused = float((record.outcomes.status == REJECTED).mean())
    assert found.refused_frac == capacity_dict(found)["refused_frac"] == refused > 0.4
    assert f"{refused:.1%} of the requests are refused at every load" in " ".join(
        capacity_text(found).split()
    )
    assert whole.refused_frac == 0 and "refused" not in capacity_text(whole)


def test_the_answer_says_how_far_the_roofline_of_experts_is_known() -> None:
    dense = capacity("ttft_p95:30")
    experts = read_deployment({"model": "qwen3-30b-a3b", "gpu": "h100-sxm"})
    scenario = dataclasses.replace(dense.dial.scenario, deployment=experts)
    other = dataclasses.replace(dense, dial=dataclasses.replace(dense.dial, scenario=scenario))
    assert "hardly validated" in capacity_dict(other)["remark"]
    assert "hardly validated" in " ".join(capacity_text(other).split())
    assert capacity_dict(dense)["remark"] is None
    plugin = read_deployment({"model": "llama-3.1-8b", "gpu": "gaudi-3"})
    scenario = dataclasses.replace(dense.dial.scenario, deployment=plugin)
    other = dataclasses.replace(dense, dial=dataclasses.replace(dense.dial, scenario=scenario))
    assert "itself does not run on gaudi-3" in " ".join(capacity_text(other).split())
    assert "itself does not run on gaudi-3" in capacity_dict(other)["remark"]
    assert "hardly validated" not in " ".join(capacity_text(dense).split())
