"""A month's bill: every dollar on one line, and the fleet that a load needs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.inputs.prices import Offer
from simserve.inputs.sourced import Sourced
from simserve.planning.fleet import EVERY_HOUR, TOKEN_KINDS, FleetRule, Hours, monthly_bill
from simserve.results.token_cost import GpuTime, TokenCount


def offer(usd_per_hour: float, gpus: int | None = None) -> Offer:
    price = Sourced(usd_per_hour, "imported", "test", "2026-11-20")
    return Offer(provider="p", machine=None, gpu="h100-sxm", gpus=gpus, price=price)


def rule(**changes: object) -> FleetRule:
    base = FleetRule(
        offer=offer(3.0),
        tp=1,
        capacity_per_s=10.0,
        peak_to_mean=1.0,
        spares=1,
        hours=EVERY_HOUR,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


times = st.builds(
    GpuTime,
    input_ps=st.integers(1, 10**15),
    cached_ps=st.integers(0, 10**13),
    output_ps=st.integers(1, 10**15),
    idle_ps=st.integers(0, 10**15),
)
counts = st.builds(
    TokenCount,
    requests=st.integers(1, 5000),
    input_tokens=st.integers(1, 10**7),
    cached_tokens=st.integers(0, 10**7),
    output_tokens=st.integers(1, 10**7),
)
rules = st.builds(
    FleetRule,
    offer=st.builds(offer, st.floats(0.01, 200), st.sampled_from([None, 2, 4, 8])),
    tp=st.sampled_from([1, 2]),
    capacity_per_s=st.floats(0.1, 100),
    peak_to_mean=st.floats(1, 3),
    spares=st.integers(0, 3),
    hours=st.builds(Hours, active=st.floats(1, 12), paid=st.floats(12, 24)),
    fixed_usd_per_month=st.sampled_from([0.0, 7500.0]),
)
rates = st.floats(0.001, 500)


@given(rule=rules, rate=rates, time=times, tokens=counts)
def test_lines_and_attributed_cost_both_sum_to_the_bill(
    rule: FleetRule, rate: float, time: GpuTime, tokens: TokenCount
) -> None:
    serving = rule.serving(rate)
    bill = monthly_bill(rule, rate, serving, time, tokens)
    assert sum(bill.lines.values()) == pytest.approx(bill.usd, rel=1e-9)
    assert sum(bill.attributed.values()) == pytest.approx(bill.usd, rel=1e-9)
    by_token = 0.0
    for kind in TOKEN_KINDS:
        price = bill.usd_per_mtok[kind]
        by_token += 0.0 if price is None else price * bill.tokens[kind] / 1e6
    assert by_token == pytest.approx(bill.usd, rel=1e-9)
    assert min(bill.lines.values()) >= 0


@given(rule=rules, rate=rates, time=times, tokens=counts)
def test_twice_the_price_is_twice_the_cost(
    rule: FleetRule, rate: float, time: GpuTime, tokens: TokenCount
) -> None:
    price = replace(rule.offer.price, value=2 * rule.offer.price.value)
    dear = replace(
        rule,
        offer=replace(rule.offer, price=price),
        fixed_usd_per_month=2 * rule.fixed_usd_per_month,
    )
    serving = rule.serving(rate)
    one, two = (monthly_bill(each, rate, serving, time, tokens) for each in (rule, dear))
    assert two.usd == pytest.approx(2 * one.usd)
    assert two.blended_usd_per_mtok == pytest.approx(2 * one.blended_usd_per_mtok)
    assert two.tokens == one.tokens


@given(rule=rules, share=st.floats(0.01, 1.0), time=times, tokens=counts)
def test_cost_per_token_falls_with_load_until_the_fleet_is_full(
    rule: FleetRule, share: float, time: GpuTime, tokens: TokenCount
) -> None:
    full = rule.most_rate_per_s(1)
    part = monthly_bill(rule, share * full, 1, time, tokens)
    whole = monthly_bill(rule, full, 1, time, tokens)
    assert rule.serving(share * full) == rule.serving(full) == 1
    assert whole.usd == part.usd
    assert whole.blended_usd_per_mtok == pytest.approx(part.blended_usd_per_mtok * share)


@given(rule=rules, serving=st.integers(1, 500))
def test_a_load_of_exactly_so_many_replicas_needs_so_many(rule: FleetRule, serving: int) -> None:
    assert rule.serving(rule.most_rate_per_s(serving)) == serving
    assert rule.serving(rule.most_rate_per_s(serving) * 1.001) == serving + 1


@given(rule=rules, rate=rates, more=st.floats(1, 10))
def test_more_load_or_a_higher_peak_never_needs_fewer_replicas(
    rule: FleetRule, rate: float, more: float
) -> None:
    assert rule.serving(rate * more) >= rule.serving(rate)
    higher = replace(rule, peak_to_mean=rule.peak_to_mean * more)
    assert higher.serving(rate) == rule.serving(rate * more)


def test_idle_spare_unpaid_and_unused_hours_are_lines_of_their_own() -> None:
    asked = rule(offer=offer(16.0, gpus=4), hours=Hours(active=6.0, paid=12.0))
    time = GpuTime(input_ps=10, cached_ps=0, output_ps=40, idle_ps=50)
    tokens = TokenCount(requests=1, input_tokens=10, cached_tokens=0, output_tokens=10)
    bill = monthly_bill(asked, 15.0, 2, time, tokens)
    month = 365 / 12
    # Two replicas and a spare on a machine of four GPUs at $4 each; traffic 6 of 12 paid hours.
    assert bill.gpus_paid == 4
    assert bill.usd == pytest.approx(16 * 12 * month)
    assert bill.lines["idle"] == pytest.approx(2 * 4 * 6 * month / 2)
    assert bill.lines["hours_without_traffic"] == pytest.approx(2 * 4 * 6 * month)
    assert bill.lines["spares"] == bill.lines["unused_gpus"] == pytest.approx(4 * 12 * month)
    assert bill.overhead_frac == pytest.approx(1 - 1 / 8)
    assert bill.requests == pytest.approx(15 * 6 * 3600 * month)
