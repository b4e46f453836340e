"""The whole question of cost on a small scenario, with the capacity given or looked for."""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from simserve.errors import InputError
from simserve.inputs.prices import load_prices
from simserve.inputs.scenario import load_scenario
from simserve.planning import cost as planning
from simserve.planning.api_bill import api_bill
from simserve.planning.cost import CostReport, cost
from simserve.planning.cost_question import CostQuestion
from simserve.planning.fleet import TOKEN_KINDS, Hours
from simserve.planning.operating_point import STEADY_REQUESTS, load_of, operate

TODAY = dt.date(2026, 11, 20)
QUESTION = CostQuestion(today=TODAY, capacity_per_s=20.0)


def asked(small: Path, load: dict[str, Any] | None = None, **changes: Any) -> CostReport:
    question = dataclasses.replace(QUESTION, **changes)
    return cost(load_scenario(small, **(load or {})), question, load_prices())


def test_attributed_cost_sums_to_the_bill_of_a_real_run(small: Path) -> None:
    report = asked(small)
    for bill in (report.now, report.at_slo):
        assert bill is not None
        assert sum(bill.lines.values()) == pytest.approx(bill.usd, rel=1e-9)
        assert sum(bill.attributed.values()) == pytest.approx(bill.usd, rel=1e-9)


def test_a_full_replica_is_never_dearer_than_the_fleet(small: Path) -> None:
    for rate in (1.0, 5.0, 20.0, 50.0):
        report = asked(small, rate_per_s=rate)
        assert report.at_slo is not None
        full, fleet = report.at_slo.blended_usd_per_mtok, report.now.blended_usd_per_mtok
        assert full <= fleet * (1 + 1e-9)


def test_output_costs_more_than_input_where_decodes_take_the_time(small: Path) -> None:
    prices = asked(small).now.usd_per_mtok
    assert prices["output"] is not None and prices["input"] is not None
    assert prices["output"] > prices["input"] > 0


def test_cached_input_is_cheap_and_has_a_price_of_its_own(small: Path) -> None:
    settings = ["workload.prefix={count: 3, tokens: 500}"]
    report = asked(small, {"settings": settings})
    cached, fresh = (report.now.usd_per_mtok[kind] for kind in ("cached_input", "input"))
    assert cached is not None and fresh is not None
    assert 0 < cached < fresh / 2
    assert "cache hits at the API" in report.assumed


def test_bill_at_the_api_is_that_of_the_very_requests(small: Path) -> None:
    report = asked(small, apis=("openai/gpt-4o-mini",))
    [one] = report.apis
    seen = report.point.usage
    tokens = int(seen.prompt_tokens.sum()) * 0.15 + int(seen.output_tokens.sum()) * 0.6
    assert one.bill.usd_per_request == pytest.approx(tokens / len(seen) / 1e6)
    assert one.usd == pytest.approx(one.bill.usd_per_request * report.now.requests)
    assert one.self_host_ratio == pytest.approx(report.now.usd / one.usd)


def test_break_even_of_the_report_makes_both_bills_equal(small: Path) -> None:
    report = asked(small, apis=("openai/gpt-5.2",))
    [one] = report.apis
    first = one.break_even.first_per_s
    assert first is not None
    own = report.rule.usd_per_month(report.rule.serving(first))
    assert own == pytest.approx(one.bill.usd_per_request * 3600 * 24 * 365 / 12 * first)
    best, worst = one.best.first_per_s, one.worst.first_per_s
    assert best is not None and best <= first
    assert worst is None or worst >= first


def test_without_a_name_the_apis_that_sell_the_model_are_compared(small: Path) -> None:
    report = asked(small)
    assert [one.bill.price.serves for one in report.apis] == ["llama-3.1-8b"] * len(report.apis)
    assert len(report.apis) >= 2
    assert [one.usd for one in report.apis] == sorted(one.usd for one in report.apis)
    assert asked(small, {"model": "opt-13b", "settings": ["max_model_len=2k"]}).apis == ()


def test_what_decides_comes_first_and_moves_one_input_alone(small: Path) -> None:
    report = asked(small)
    sizes = [one.size for one in report.swings]
    assert sizes == sorted(sizes, reverse=True)
    by_name = {one.input.name: one for one in report.swings}
    price = by_name["price of a GPU"]
    base = report.apis[0].self_host_ratio
    at_low = base * price.input.low / price.input.base
    assert price.ratio_at_low == pytest.approx(at_low)
    assert "peak over mean load" not in {
        one.input.name for one in asked(small, peak_to_mean=1.5).swings
    }
    assert "price of a GPU" not in {
        one.input.name for one in asked(small, gpu_usd_per_hour=2.0).swings
    }


def test_engineers_spares_and_hours_are_on_the_bill(small: Path) -> None:
    plain = asked(small, spares=0)
    more = asked(small, spares=2, fte=0.5, fte_usd_per_year=120_000.0)
    assert plain.now.lines["engineering"] == plain.now.lines["spares"] == 0
    assert more.now.lines["engineering"] == pytest.approx(5000.0)
    assert more.now.usd == pytest.approx(3 * plain.now.usd + 5000.0)
    half = asked(small, spares=0, hours=Hours(active=12.0, paid=12.0))
    assert half.now.usd == pytest.approx(plain.now.usd / 2)
    assert half.now.blended_usd_per_mtok == pytest.approx(plain.now.blended_usd_per_mtok)


def test_capacity_is_looked_for_where_there_is_an_slo(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = SimpleNamespace(load=40.0, low=30.0, high=50.0)
    monkeypatch.setattr(planning, "find_capacity", lambda *_, **__: found)
    report = asked(small, {"slo": "ttft_p95:500"}, capacity_per_s=None, rate_per_s=100.0)
    assert report.capacity.per_s == 40.0 and report.now.serving == 3
    assert report.capacity.range_per_s == pytest.approx((30 * 0.79, 50 * 1.10))
    found.load = None
    with pytest.raises(InputError, match="one that a replica meets at some load"):
        asked(small, {"slo": "ttft_p95:500"}, capacity_per_s=None)


def test_without_slo_and_capacity_the_load_as_given_is_a_lower_bound(small: Path) -> None:
    report = asked(small, capacity_per_s=None)
    assert report.capacity.per_s == 20.0 and not report.capacity.is_known
    assert report.at_slo is None and report.now.serving == 1


def test_closed_loops_are_taken_as_they_are(small: Path) -> None:
    settings = ["workload.arrivals={process: closed-loop, users: 4}", "replicas=2"]
    report = asked(small, {"settings": settings}, capacity_per_s=None)
    assert report.now.serving == 2
    assert report.rate_per_s == pytest.approx(2 * report.capacity.per_s)
    with pytest.raises(InputError, match="--rate: got 3, allowed: only for a workload with a mean"):
        asked(small, {"settings": settings}, capacity_per_s=None, rate_per_s=3.0)


def test_the_load_of_conversations_counts_every_turn(small: Path) -> None:
    settings = ["workload.sessions={turns: 4, think_time_s: 1}"]
    load = load_of(load_scenario(small, settings=settings))
    assert load is not None and load.per_s == 80.0
    scenario = load.on_one_replica(8.0)
    assert scenario.workload.arrivals is not None
    assert scenario.workload.arrivals.rate_per_s == pytest.approx(2.0)


def test_a_daily_wave_is_in_the_size_of_the_fleet_and_not_in_a_replica() -> None:
    question = dataclasses.replace(QUESTION, rate_per_s=30.0)
    scenario = load_scenario("diurnal-day")
    report = cost(scenario, question, load_prices())
    wave = scenario.workload.arrivals
    assert wave is not None and wave.peak_to_mean is not None
    assert report.rule.peak_to_mean == wave.peak_to_mean
    assert report.now.serving == -(-30 * wave.peak_to_mean // 20)
    assert report.point.tokens.requests == STEADY_REQUESTS
    load = load_of(scenario)
    assert load is not None and load.per_s == wave.rate_per_s
    steady = load.on_one_replica(5.0).workload.arrivals
    assert steady is not None and (steady.process, steady.rate_per_s) == ("poisson", 5.0)


def test_the_load_of_a_trace_is_that_of_its_requests(tmp_path: Path, small: Path) -> None:
    rows = ['{"timestamp": %g, "input_length": 30, "output_length": 4}' % (k / 4) for k in range(9)]
    (tmp_path / "t.jsonl").write_text("\n".join(rows) + "\n")
    trace = str(tmp_path / "t.jsonl")
    load = load_of(load_scenario(small, trace=trace, trace_format="timed-trace"))
    assert load is not None and load.per_s == pytest.approx(9 / 2)
    as_it_is, faster = (operate(load.on_one_replica(times * load.per_s)) for times in (1, 3))
    assert as_it_is.rate_per_s == pytest.approx(8 / 2)  # gaps over the time they span
    assert faster.rate_per_s == pytest.approx(3 * as_it_is.rate_per_s)
    assert faster.tokens == as_it_is.tokens


def test_old_prices_are_named_with_their_age(small: Path) -> None:
    report = asked(small, offer="aws/p5.4xlarge")
    assert any("aws/p5.4xlarge is 123 days old (2026-07-20)" in one for one in report.warnings)
    assert not any("p5.4x" in one for one in asked(small, offer="aws", most_age_days=200).warnings)
    ended = asked(small, apis=("openai/gpt-4.1-nano",)).warnings
    assert "openai/gpt-4.1-nano is listed to end on 2026-10-23" in ended


def test_a_gpu_without_a_price_is_said_before_anything_is_simulated(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "operate", lambda *_: pytest.fail("simulated"))
    with pytest.raises(InputError, match="--gpu: price: got gaudi-2, allowed: --gpu-price"):
        asked(small, {"gpu": "gaudi-2"})
    with pytest.raises(InputError, match=r"--offer: h100-sxm: got azurre, .*azure/Stand"):
        asked(small, offer="azurre")


def test_energy_is_of_busy_gpus_and_of_all_paid_ones(small: Path) -> None:
    report = asked(small, rate_per_s=5.0)
    energy, bill = report.energy, report.now
    assert energy.tdp is not None and energy.all_in is not None
    seconds = 3600 * 24 * 365 / 12
    output = bill.tokens["output"]
    busy = report.point.time.busy_frac
    assert energy.tdp_j_per_output_token == pytest.approx(700 * seconds * busy / output)
    assert energy.all_in_j_per_output_token == pytest.approx(1730 * 2 * seconds / output)


def test_assumed_values_are_named_once_each(small: Path) -> None:
    names = asked(small).assumed
    assert len(names) == len(set(names)) > 5
    assert {"efficiency.host_step_s", "peak over mean load"} <= set(names)
    given = asked(small, peak_to_mean=2.0, apis=("openai/gpt-4o",)).assumed
    assert "peak over mean load" not in given


def test_the_same_question_has_the_same_answer(small: Path) -> None:
    first, second = asked(small), asked(small)
    assert first.now == second.now and first.apis == second.apis
    assert set(first.now.lines) > set(TOKEN_KINDS)


def test_prices_of_two_lists_bound_the_break_even(small: Path) -> None:
    report = asked(small, apis=("fireworks/llama-v3p1-8b-instruct",))
    [one] = report.apis
    assert one.bill.high_usd_per_request == pytest.approx(2 * one.bill.low_usd_per_request)
    again = api_bill(report.point.usage, one.bill.price)
    assert again == one.bill


def test_those_who_give_up_got_no_tokens(small: Path) -> None:
    settings = ["workload.cancellations={frac: 0.6, mean_after_s: 0.01}"]
    report, patient = asked(small, {"settings": settings}), asked(small)
    lost = report.point.unanswered_frac
    assert 0.1 < lost < 0.7 and patient.point.unanswered_frac == 0
    assert any("given up" in one for one in report.warnings)
    answered = requests = report.now.requests
    answered *= 1 - lost
    kept = report.point.usage.output_tokens
    assert len(kept) == report.point.tokens.requests
    assert report.now.tokens["output"] == pytest.approx(requests * kept.mean())
    assert report.now.tokens["output"] == pytest.approx(answered * kept[kept > 0].mean())


def test_spot_that_is_dearer_than_on_demand_is_remarked(small: Path) -> None:
    dear = asked(small, terms="spot").warnings
    assert [one for one in dear if one.startswith("spot costs more than on-demand here: gcp/")]
    for question in ({"terms": "on-demand"}, {"terms": "reserved-3y"}, {"gpu_usd_per_hour": 99.0}):
        assert not any("costs more" in one for one in asked(small, **question).warnings)


def test_a_bill_that_rests_on_the_roofline_of_experts_says_how_far_that_was_off() -> None:
    question = CostQuestion(today=dt.date(2026, 11, 20), capacity_per_s=1.0)
    settings = ["workload.num_requests=40", "max_model_len=16k"]
    for model, said in (("qwen3-30b-a3b", True), ("llama-3.1-8b", False)):
        report = cost(load_scenario(model=model, settings=settings), question, load_prices())
        assert any("mixture-of-experts" in one for one in report.warnings) == said
