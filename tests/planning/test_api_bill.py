"""The API's bill, request by request: cached input, long prompts, batch, lists that disagree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.inputs.prices import ApiPrice
from simserve.inputs.prices_file import LongPrompt, TokenPrices
from simserve.inputs.sourced import Sourced
from simserve.planning.api_bill import Usage, api_bill

BATCH = Sourced(0.5, "assumed", "test", "2026-11-20")


def price(
    *,
    cached: float | None = 0.1,
    long: LongPrompt | None = None,
    other: TokenPrices | None = None,
) -> ApiPrice:
    return ApiPrice(
        provider="p",
        model="m",
        prices=TokenPrices(input=1.0, cached_input=cached, output=4.0),
        other_list=other,
        long_prompt=long,
        batch=BATCH,
        retired=None,
        serves=None,
        kind="imported",
        source="test",
        date="2026-11-20",
    )


def usage(prompt: list[int], cached: list[int], output: list[int]) -> Usage:
    return Usage(
        prompt_tokens=np.array(prompt, np.int64),
        cached_tokens=np.array(cached, np.int64),
        output_tokens=np.array(output, np.int64),
    )


def test_each_kind_of_token_has_its_price() -> None:
    bill = api_bill(usage([1_000_000], [250_000], [500_000]), price())
    assert bill.parts == pytest.approx({"input": 0.75, "cached_input": 0.025, "output": 2.0})
    assert bill.usd_per_request == pytest.approx(2.775)
    assert bill.batch_usd_per_request == pytest.approx(2.775 / 2)


def test_without_a_cached_price_a_hit_costs_as_input() -> None:
    hit, miss = (usage([1000], [cached], [10]) for cached in (900, 0))
    assert api_bill(hit, price(cached=None)).usd_per_request == pytest.approx(
        api_bill(miss, price(cached=None)).usd_per_request
    )


def test_only_requests_with_a_long_prompt_pay_the_long_price() -> None:
    long = LongPrompt(above_tokens=1000, input=2.0, output=6.0)
    bill = api_bill(usage([1000, 1001], [0, 1], [100, 100]), price(long=long))
    assert bill.long_prompts == 1
    expected = (1000 * 1 + 100 * 4) + (1000 * 2 + 1 * 0.2 + 100 * 6)
    assert bill.usd_per_request == pytest.approx(expected / 2 / 1e6)


def test_two_lists_span_the_price() -> None:
    other = TokenPrices(input=2.0, cached_input=0.2, output=8.0)
    bill = api_bill(usage([100], [50], [10]), price(other=other))
    assert bill.low_usd_per_request == bill.usd_per_request
    assert bill.high_usd_per_request == pytest.approx(2 * bill.usd_per_request)


requests = st.lists(
    st.tuples(st.integers(1, 100_000), st.floats(0, 1), st.integers(1, 5000)), min_size=1
)


@given(requests=requests, share=st.floats(0, 1))
def test_hits_never_cost_more_and_parts_sum(
    requests: list[tuple[int, float, int]], share: float
) -> None:
    prompt, hit, output = (list(column) for column in zip(*requests, strict=True))
    seen = usage(prompt, [int(a * b) for a, b in zip(prompt, hit, strict=True)], output)
    bill = api_bill(seen, price())
    assert sum(bill.parts.values()) == pytest.approx(bill.usd_per_request)
    none, some = (api_bill(seen.with_hits(at), price()).usd_per_request for at in (0.0, share))
    assert some <= none
    twice = usage(prompt * 2, seen.cached_tokens.tolist() * 2, output * 2)
    assert api_bill(twice, price()).usd_per_request == pytest.approx(bill.usd_per_request)
