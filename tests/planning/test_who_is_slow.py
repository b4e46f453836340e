"""What sets the slowest apart is said only if it would hardly come about by chance."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import simserve
from simserve.planning.explanation import explain
from simserve.planning.what_if import Question
from simserve.planning.who_is_slow import _probability
from simserve.report.plain_words import in_plain_words


@given(st.integers(1, 60), st.data())
def test_the_bound_is_never_below_the_binomial_probability(
    trials: int, data: st.DataObject
) -> None:
    hits = data.draw(st.integers(0, trials))
    usual = data.draw(st.floats(0.01, 0.99))
    exact = math.fsum(
        math.comb(trials, k) * usual**k * (1 - usual) ** (trials - k)
        for k in range(hits, trials + 1)
    )
    bound = _probability(hits / trials, usual, trials)
    assert exact <= bound * (1 + 1e-9) and bound <= 1
    if hits == trials:
        assert bound == pytest.approx(exact)


def test_a_few_requests_of_an_even_load_are_on_no_crowded_replica_and_in_no_crowd() -> None:
    settings = ["workload.num_requests=100", "replicas=4", "workload.arrivals.rate_per_s=4"]
    said_of_crowds = 0
    for seed in range(20):
        scenario = simserve.load_scenario("chat", settings=settings, seed=seed)
        said = explain(scenario, Question(metric="ttft", percentile=99), changes=False)
        assert said.asked_band.requests == 2
        (where,) = (one for one in said.traits if one.replica is not None)
        assert where.may_be_chance  # both on the same of four happens once in four
        words = in_plain_words(said)
        assert "of them were on replica" not in words
        said_of_crowds += "just before them requests came at" in words
    assert said_of_crowds <= 3
