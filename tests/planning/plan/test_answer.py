"""The plan is the cheapest that keeps the SLO, fresh seeds confirm it, and it can be started."""

from __future__ import annotations

import dataclasses
import math
import shlex
from functools import cache
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from simserve.inputs.launch_line.read import read_launch_line
from simserve.inputs.plan_spec import AudienceSpec, PlanSpec
from simserve.inputs.scenario import load_deployment_spec, scenario_from_dict
from simserve.inputs.workload import ArrivalsSpec
from simserve.inputs.workload_prompts import SessionsSpec
from simserve.planning.plan.answer import PlanAnswer
from simserve.planning.plan.backends import LocalBackend
from simserve.planning.plan.fronts import pareto
from simserve.planning.plan.outcomes import outcome_of
from simserve.planning.plan.people import at_peak
from simserve.planning.plan.question import Runs, context_tokens, fresh_number
from simserve.planning.plan.race import Plan, Probability
from simserve.planning.plan.space import axes_for, candidates, label_of
from simserve.planning.run_scenario import run
from simserve.report.plan import nobody_can, plan_dict, plan_text
from simserve.report.plan_answer import answer_rows
from simserve.report.plan_deploy import compose_text, serve_lines
from simserve.report.plan_tables import name_of, with_answer
from simserve.results.whole_files import json_text
from tests.planning.plan.questions import VARY, WORKLOAD, planned, small_question, text_of


@cache
def answer() -> PlanAnswer:
    return planned(small_question())


def winner() -> Plan:
    found = answer().winner
    assert found is not None
    return found


def test_no_cheaper_plan_keeps_the_slo() -> None:
    """Every plan that is cheaper was removed by a proof, or is run here and found wanting."""
    one, question = answer(), answer().question
    cheaper = [plan for plan in one.screening.plans if plan.rank < winner().rank]
    assert cheaper
    for plan in cheaper:
        assert plan.lost_at is not None
        outcomes = [
            outcome_of(one.runs.at(plan.deployment, plan.replicas, number, short=False))
            for number in range(question.replications)
        ]
        assert not one.race.keeps(outcomes)


def test_no_equal_of_the_winner_leaves_more_room_that_matters() -> None:
    one = answer()
    equals = [plan for plan in one.screening.plans if plan.rank == winner().rank and plan.runs]
    kept = [plan for plan in equals if one.race.keeps(plan.runs)]
    assert winner() in kept
    assert not any(one.race.has_more_room(plan, winner()) for plan in kept)


def equals_that_use(*used: float) -> list[Plan]:
    """Return plans of one price, numbered in order of preference, that use so much of a limit."""
    first = winner().runs[0]
    promised, plans = first.kept, []
    for number, share in enumerate(used):
        kept = [
            msgspec.structs.replace(one, used=share / (1 + at)) for at, one in enumerate(promised)
        ]
        plan = Plan(
            candidate=dataclasses.replace(winner().candidate, number=number),
            replicas=winner().replicas,
            price=winner().price,
        )
        plan.runs = [msgspec.structs.replace(first, kept=tuple(kept))]
        plans.append(plan)
    return plans


def test_of_equals_the_one_with_room_comes_first_and_small_differences_do_not_count() -> None:
    plans = equals_that_use(0.75, 0.46, 0.38, 0.45)
    order = [plan.candidate.number for plan in answer().race.by_room(plans)]
    assert order == [1, 2, 3, 0]


def test_what_is_used_of_a_limit_is_the_latency_at_its_percentile_by_the_limit() -> None:
    one = winner()
    for run_ in one.runs:
        for kept, metric, limit_ms in zip(run_.kept, ("ttft", "tpot"), (500, 60), strict=True):
            assert kept.used == pytest.approx(run_.latency_ms[metric]["p95"] / limit_ms)


def test_an_slo_of_classes_alone_has_a_measure_of_room() -> None:
    classes = [{"name": "quick", "weight": 1, "slo": "ttft_p95:400"}, {"name": "any", "weight": 1}]
    scenario = scenario_from_dict(
        {
            "workload": {**WORKLOAD, "classes": classes, "num_requests": 200},
            "deployment": {"model": "llama-3.1-8b", "gpu": "h100-sxm"},
            "seed": 5,
        }
    )
    found = planned(small_question(scenario=scenario))
    assert found.winner is not None
    (kept,) = found.winner.runs[0].kept
    assert kept.name == "quick ttft_p95:400"
    assert 0 < found.race.used_of_slo(found.winner) <= 1


def test_no_run_of_a_plan_refuses_a_request_for_its_length() -> None:
    classes = [{"name": "a", "weight": 1, "slo": "ttft_p95:400"}, {"name": "b", "weight": 1}]
    lengths = {"prompt_tokens": {"median": 300, "p95": 4000}, "output_tokens": {"median": 40}}
    workload = {**WORKLOAD, **{key: {**WORKLOAD[key], **one} for key, one in lengths.items()}}
    workload["classes"] = classes
    del workload["prompt_tokens"]["max"]
    deployment = {"model": "llama-3.1-8b", "gpu": "h100-sxm"}
    scenario = scenario_from_dict({"workload": workload, "deployment": deployment, "seed": 5})
    question = small_question(scenario=scenario)
    runs = Runs.of(scenario)
    context = context_tokens(question, runs)
    for number in (*range(question.replications), *map(fresh_number, range(2))):
        assert (runs.requests(number).prompt_tokens < context).all()


def test_the_context_is_no_longer_than_the_model_has() -> None:
    spec, origins = load_deployment_spec(None, model="llama-2-7b")
    question = small_question(spec=spec, origins=origins)
    long = {**WORKLOAD, "prompt_tokens": {"median": 300, "p95": 900, "max": 9000}}
    deployment = {"model": "llama-3.1-8b", "gpu": "h100-sxm"}
    scenario = scenario_from_dict({"workload": long, "deployment": deployment})
    assert context_tokens(question, Runs.of(scenario)) == 4096


def test_a_context_that_refuses_most_requests_keeps_no_slo() -> None:
    vary = {**VARY, "gpu": ("l40s",), "quantization": (None,), "max_model_len": (200, 4096)}
    found = planned(small_question(plan=PlanSpec(vary=vary, limits=({},))))
    assert found.winner is not None
    assert found.winner.candidate.settings["max_model_len"] == 4096
    vary["max_model_len"] = (200,)
    none = planned(small_question(plan=PlanSpec(vary=vary, limits=({},))))
    assert none.winner is None
    refused = 1 - none.screening.plans[0].seen[-1].kept[-1].whole
    assert f"has a context that refuses {refused:.1%} of requests" in nobody_can(none)
    assert found.race.used_of_slo(none.screening.plans[0]) == math.inf
    json_text(plan_dict(none))  # JSON has no infinity


def test_an_equally_dear_plan_with_a_coarser_model_and_more_room_is_told() -> None:
    one = answer()
    assert one.alternative is None
    tight, roomy = equals_that_use(0.9, 0.3)
    told = dataclasses.replace(one, winner=tight, alternative=roomy)
    words = " ".join("  ".join(text) for text in answer_rows(told, tight))
    assert f"Instead  {name_of(roomy)}, for the same price" in words
    assert "at most 30% of a limit, the answer 90%" in words


def test_a_model_as_given_comes_before_a_coarser_one_and_eight_bits_before_four() -> None:
    vary: dict[str, tuple[Any, ...]] = {"gpu": ("h100-sxm",), "tp": (1,)}
    vary |= {"quantization": (None, "fp8", "awq")}
    plan = PlanSpec(vary=vary | {"router": ("round-robin",)}, limits=({},))
    question = small_question(plan=plan)
    axes = axes_for(question.spec, plan, question.prices, question.terms)
    found = candidates(axes, question.spec, question.origins)
    by_label = {label_of(one): one.coarsening for one in found}
    assert by_label == {
        "bf16": (0, 0),
        "bf16, kv fp8": (8, 1),
        "fp8": (8, 1),
        "fp8, kv fp8": (8, 2),
        "awq": (12, 1),
        "awq, kv fp8": (12, 2),
    }


def test_the_answer_stands_in_both_fronts_and_is_marked() -> None:
    heads = ("Front of price and TTFT", "Front of GPUs and users")
    lines = plan_text(answer()).splitlines()
    for head in heads:
        at = next(at for at, line in enumerate(lines) if line.startswith(head))
        front = lines[at + 1 : at + 1 + lines[at + 1 :].index("")]
        assert [line for line in front if line.startswith("* ")], front
    assert with_answer([], winner()) == [winner()]
    assert with_answer([winner()], winner()) == [winner()]


def test_a_plan_is_named_as_a_run_names_it() -> None:
    candidate = winner().candidate
    two = dataclasses.replace(candidate, settings={**candidate.settings, "tp": 2})
    one = Plan(candidate=two, replicas=1, price=winner().price)
    assert name_of(one).startswith(f"2 × {candidate.gpu} (tp 2), ")
    three = Plan(candidate=two, replicas=3, price=winner().price)
    assert name_of(three).startswith(f"3 replicas of 2 × {candidate.gpu} (tp 2), ")


def test_both_prices_are_said_with_and_without_spares() -> None:
    found = plan_dict(answer())["winner"]
    without, spare = found["fleets"]
    assert (without["spares"], spare["spares"]) == (0, 1)
    assert without["usd_per_hour"] == found["usd_per_hour"] < spare["usd_per_hour"]
    ratio = spare["usd_per_hour"] / without["usd_per_hour"]
    assert spare["usd_per_mtok"] == pytest.approx(without["usd_per_mtok"] * ratio)
    words = " ".join(plan_text(answer()).split())
    for one, said in ((without, "without a spare"), (spare, "with 1 spare")):
        assert f"${one['usd_per_hour']:,.2f} an hour and ${one['usd_per_mtok']:.4g}" in words
        assert said in words


def test_what_the_winner_rests_on_is_counted() -> None:
    found = plan_dict(answer())["winner"]
    terms = {term.name: term.bytes for term in winner().deployment.kv.terms}
    assert found["memory"]["kv_frac"] == terms["kv_blocks"] / sum(terms.values())
    words = " ".join(plan_text(answer()).split())
    assert found["assumed"] and f"{len(found['assumed'])} of its numbers" in words


def test_little_room_for_kv_names_the_reserves_that_are_assumed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "That is thin" not in plan_text(answer())
    monkeypatch.setattr("simserve.report.plan_answer._THIN_KV_SHARE", 1.0)
    words = " ".join(plan_text(answer()).split())
    assert "That is thin: " in words and "activation_peak" in words.partition("That is thin")[2]


def test_what_so_few_runs_cannot_show_is_said() -> None:
    low = plan_dict(answer())["winner"]["probability_low"]
    assert low < answer().question.probability
    assert f"more than {low:.0%} is not shown by so few" in " ".join(plan_text(answer()).split())


def test_fresh_seeds_confirm_the_winner() -> None:
    one = winner()
    assert len(one.fresh) == answer().question.fresh_seeds
    assert all(outcome.met(answer().question.good_share) for outcome in one.fresh)
    seeds = {answer().runs.at(one.deployment, 1, n, short=False).seed for n in range(4)}
    fresh = {
        answer().runs.at(one.deployment, 1, fresh_number(n), short=False).seed for n in range(2)
    }
    assert not seeds & fresh


def test_a_winner_that_fresh_seeds_do_not_confirm_is_passed_over() -> None:
    from simserve.planning.plan.race import Race

    first = winner().order

    class Doubtful(Race):
        def confirm(self, plan: Plan, seeds: int) -> bool:
            return super().confirm(plan, seeds) and plan.order != first

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("simserve.planning.plan.answer.Race", Doubtful)
        other = planned(small_question())
    assert [plan.order for plan in other.unconfirmed] == [first]
    assert other.winner is not None and other.winner.order > first
    assert "did not confirm 1 before it" in " ".join(plan_text(other).split())


def test_one_replica_less_does_not_keep_the_slo_as_surely() -> None:
    sizes = {one.what: one for one in answer().sizes}
    assert sizes["the winner"].plan is winner()
    assert sizes["the winner"].probability.share >= answer().question.probability
    assert sizes["with one spare"].plan.replicas == winner().replicas + 1
    if "one less" in sizes:
        assert sizes["one less"].probability.share < answer().question.probability


def test_what_the_bounds_and_heats_removed_sums_up() -> None:
    data = plan_dict(answer())
    left = sum(one.lost_at is None and one.stage != "waiting" for one in answer().screening.plans)
    assert sum(data["removed"].values()) + left == data["plans"]


def test_the_answer_does_not_depend_on_the_order_in_which_runs_finish() -> None:
    class Backwards(LocalBackend):
        def outcomes(self, tasks):  # type: ignore[no-untyped-def]
            return reversed(list(super().outcomes(tasks)))

    assert text_of(planned(small_question(), Backwards(1))) == text_of(answer())


def test_a_stricter_slo_is_never_cheaper() -> None:
    few = {"replications": 2, "fresh_seeds": 0}
    looser = planned(small_question("ttft_p95:900 tpot_p95:90", **few))
    stricter = planned(small_question("ttft_p95:120 tpot_p95:25", **few))
    assert looser.winner is not None and stricter.winner is not None
    prices = [one.price.usd_per_hour for one in (looser.winner, winner(), stricter.winner)]
    assert prices == sorted(prices)


def test_an_slo_that_nobody_keeps_is_one_line() -> None:
    nobody = planned(small_question("ttft_p95:1"))
    assert nobody.winner is None
    line = nobody_can(nobody)
    assert line.startswith("No plan of up to 6 GPUs keeps ttft_p95:1: bounds remove all ")
    assert "\n" not in line and "keep ttft_p95" in line
    assert plan_dict(nobody)["reason"] == line


def test_too_few_gpus_are_one_line_that_names_the_closest() -> None:
    few = planned(
        small_question(max_gpus=1, plan=PlanSpec(vary=VARY | {"gpu": ("l4",)}, limits=({},)))
    )
    assert few.winner is None
    assert "\n" not in nobody_can(few)


def test_a_workload_without_chance_is_run_once() -> None:
    import dataclasses

    from simserve.inputs.workload import ArrivalsSpec, LengthSpec

    question = small_question()
    still = question.scenario.workload.model_copy(
        update={
            "arrivals": ArrivalsSpec(process="constant", rate_per_s=4.0),
            "prompt_tokens": LengthSpec(fixed=200),
            "output_tokens": LengthSpec(fixed=20),
        }
    )
    scenario = dataclasses.replace(question.scenario, workload=still)
    found = planned(dataclasses.replace(question, scenario=scenario))
    assert found.winner is not None
    assert len(found.winner.runs) == 1 and found.winner.fresh == []


def test_the_report_fits_80_columns_and_says_what_the_json_says() -> None:
    text, data = plan_text(answer()), plan_dict(answer())
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    assert f"{data['winner']['name']}: ${data['winner']['usd_per_hour']:,.2f} an hour" in flat
    assert f"{data['plans']:,}" in flat


def test_the_launch_line_is_read_back_as_what_was_planned() -> None:
    line, remarks = serve_lines(winner())
    settings = read_launch_line(line).deployment
    assert settings["model"] == "meta-llama/Llama-3.1-8B"
    assert settings.get("quantization") == winner().candidate.settings["quantization"]
    assert settings["max_model_len"] == answer().context_tokens
    assert remarks


def test_the_compose_file_starts_every_server_on_gpus_of_its_own() -> None:
    plan = winner()
    fleet = Plan(candidate=plan.candidate, replicas=3, price=plan.price)
    content = yaml.safe_load(compose_text(fleet))
    servers = {name: one for name, one in content["services"].items() if name != "router"}
    assert len(servers) == 3 and "router" in content["services"]
    ids = [
        device
        for one in servers.values()
        for device in one["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]
    ]
    assert ids == ["0", "1", "2"]
    for one in servers.values():
        line = shlex.join([*one["entrypoint"], *one["command"]])
        assert line == serve_lines(fleet)[0]
    alone = yaml.safe_load(
        compose_text(Plan(candidate=plan.candidate, replicas=1, price=plan.price))
    )
    assert list(alone["services"]) == ["vllm-0"]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9))))
def test_a_front_has_what_nothing_dominates(points: list[tuple[int, int]]) -> None:
    front = pareto(points, lambda one: one[0], lambda one: one[1])
    assert len(set(front)) == len(front)

    def beats(one: tuple[int, int], other: tuple[int, int]) -> bool:
        return one != other and one[0] <= other[0] and one[1] <= other[1]

    assert set(front) == {one for one in points if not any(beats(two, one) for two in points)}


def test_a_probability_has_wilsons_interval() -> None:
    one = Probability.of(winner().runs, 0.99)
    assert one.low < one.share <= one.high
    # Wilson (1927): all of 4 leave 4 / (4 + z²) at the low end.
    assert one.kept < 4 or one.low == pytest.approx(4 / (4 + 1.959964**2), rel=1e-4)


def test_runs_are_as_long_as_the_slo_lets_latencies_be() -> None:
    question = small_question("ttft_p95:2000 tpot_p95:200")
    runs = Runs.of(question.scenario)
    # 12 requests/s × (2 s + 0.2 s × about 50 tokens) × 20 latencies
    assert runs.whole == pytest.approx(12 * 12 * 20, rel=0.3) or runs.whole == 8 * 60
    assert runs.short is not None and runs.whole is not None and runs.short <= runs.whole


def test_runs_of_conversations_that_wait_show_as_many_at_a_time_as_there_will_be() -> None:
    """Little's law: as many as begin a second, times the seconds that one lasts."""
    sessions = {"turns": 4, "think_time_s": 10, "wait_for_answer": True}
    question = small_question()
    workload = question.scenario.workload.model_copy(
        update={
            "sessions": SessionsSpec.model_validate(sessions),
            "arrivals": ArrivalsSpec(process="poisson", rate_per_s=2),
        }
    )
    runs = Runs.of(dataclasses.replace(question.scenario, workload=workload))
    assert runs.whole is not None and runs.whole > 8 * (workload.num_requests or 0)
    record = run(runs.at(winner().deployment, 2, 0, short=False)).record
    arrival_ps, last_ps = record.requests.arrival_ps, record.meta.last_session_ps
    assert last_ps is not None
    # 2 a second for 30 s, three pauses; at a random moment two of the four turns are to come.
    assert (arrival_ps > last_ps).sum() == pytest.approx(2 * 30 * 2, rel=0.35)
    assert arrival_ps[-1] - last_ps < last_ps / 3


def test_an_audience_that_converses_asks_as_many_requests() -> None:
    """Its requests per user and day are requests: a conversation has several of them."""
    number = {"low": 5, "high": 60, "kind": "assumed", "source": "a test", "date": "2026-11-20"}
    audience = AudienceSpec.model_validate(
        {
            "daily_users": 3600,
            "requests_per_user_per_day": number | {"value": 20},
            "peak_hour_share": number | {"low": 0.05, "value": 0.1, "high": 0.2},
        }
    )
    alone = small_question().scenario
    sessions = SessionsSpec(turns=4, think_time_s=10, wait_for_answer=True)
    talking = dataclasses.replace(
        alone, workload=alone.workload.model_copy(update={"sessions": sessions})
    )
    rates = [at_peak(one, audience).workload.arrivals for one in (alone, talking)]
    assert [one.rate_per_s for one in rates if one is not None] == pytest.approx([2.0, 0.5])
