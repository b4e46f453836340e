"""Break-even is where both bills are equal; below it the API costs less."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.planning.break_even import Case, break_even
from simserve.planning.fleet import FleetRule, requests_per_month
from tests.planning.test_fleet import offer, rates, rule, rules

prices = st.floats(1e-7, 1.0)


@settings(max_examples=60)
@given(rule=rules, usd=prices)
def test_both_bills_are_equal_at_the_break_even(rule: FleetRule, usd: float) -> None:
    found = break_even(rule, usd)
    for rate in (found.first_per_s, found.for_good_per_s):
        if rate is not None:
            own = rule.usd_per_month(rule.serving(rate))
            assert own == pytest.approx(usd * requests_per_month(rate, rule.hours), rel=1e-9)


@settings(max_examples=60)
@given(rule=rules, usd=prices, share=st.floats(0.01, 0.999))
def test_below_the_first_break_even_the_api_costs_less(
    rule: FleetRule, usd: float, share: float
) -> None:
    first = break_even(rule, usd).first_per_s
    if first is not None:
        case = Case(rule=rule, rate_per_s=share * first, api_usd_per_request=usd)
        assert case.ratio() > 1


@settings(max_examples=60)
@given(rule=rules, usd=prices, more=st.floats(1.001, 50))
def test_beyond_the_last_break_even_the_fleet_costs_less(
    rule: FleetRule, usd: float, more: float
) -> None:
    last = break_even(rule, usd).for_good_per_s
    if last is not None:
        rate = min(more * last, rule.most_rate_per_s(2000))
        assert Case(rule=rule, rate_per_s=rate, api_usd_per_request=usd).ratio() <= 1 + 1e-9


def test_a_fleet_without_stairs_breaks_even_at_price_over_price() -> None:
    # One replica and no spare: $3/h against $0.001 a request are 3,000 requests an hour.
    found = break_even(rule(spares=0), 0.001)
    assert found.first_per_s == found.for_good_per_s == pytest.approx(3000 / 3600)


def test_an_api_that_asks_less_than_a_full_replica_costs_is_never_beaten() -> None:
    # A full replica serves 36,000 requests an hour for $3.
    assert break_even(rule(), 3 / 36_000 * 0.99).first_per_s is None
    assert break_even(rule(spares=0), 3 / 36_000 * 1.01).for_good_per_s is not None
    assert break_even(rule(), 0.0).first_per_s is None


def test_stairs_are_crossed_more_than_once() -> None:
    # With a spare the first replica pays from 20/s: never within its 10/s. At $0.00014 the
    # second replica pays late in its stretch, the third only later in its own.
    found = break_even(rule(), 0.00014)
    assert found.first_per_s is not None and found.for_good_per_s is not None
    assert found.first_per_s < found.for_good_per_s


@given(rule=rules, rate=rates, usd=prices)
def test_cheaper_gpus_more_throughput_or_a_dearer_api_favour_the_fleet(
    rule: FleetRule, rate: float, usd: float
) -> None:
    case = Case(rule=rule, rate_per_s=rate, api_usd_per_request=usd)
    base = case.ratio()
    assert case.with_price(rule.offer.usd_per_gpu_hour / 2).ratio() <= base
    assert case.with_capacity(rule.capacity_per_s * 2).ratio() <= base
    assert case.with_api(usd * 2).ratio() == pytest.approx(base / 2)
    assert case.with_peak(rule.peak_to_mean * 2).ratio() >= base


def test_price_of_a_case_is_per_gpu_whatever_the_machine() -> None:
    case = Case(rule=rule(offer=offer(32.0, gpus=8)), rate_per_s=1.0, api_usd_per_request=1.0)
    assert case.with_price(4.0).ratio() == case.ratio()
    assert case.with_price(2.0).ratio() == pytest.approx(case.ratio() / 2)
    assert replace(case.rule, spares=0).usd_per_month(1) == case.rule.usd_per_month(1)
