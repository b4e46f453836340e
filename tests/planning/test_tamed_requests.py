"""Bursts and long prompts taken out of a table of requests: what stays, and what cannot be done."""

from __future__ import annotations

import numpy as np
import pytest

import simserve
from simserve.inputs.scenario import Scenario
from simserve.planning.tamed_requests import (
    longest_usual_prompt,
    why_not_even,
    with_even_arrivals,
    with_prompts_cut,
)
from simserve.records.requests import RequestTable
from simserve.traffic.generate import generate


def made(name: str, *settings: str) -> tuple[Scenario, RequestTable]:
    scenario = simserve.load_scenario(name, settings=["workload.num_requests=300", *settings])
    return scenario, generate(scenario.workload, scenario.seed)


@pytest.mark.parametrize("name", ["chat", "on-off-bursts", "agents"])
def test_even_arrivals_have_equal_gaps_and_the_same_mean_rate(name: str) -> None:
    scenario, requests = made(name)
    tamed = with_even_arrivals(requests, scenario)
    count = len(requests) if requests.users is None else requests.users
    gaps_ps = np.diff(tamed.arrival_ps[:count])
    assert gaps_ps.max() - gaps_ps.min() <= 1  # picoseconds
    ends = [0, count - 1]
    assert (tamed.arrival_ps[ends] == requests.arrival_ps[ends]).all()
    assert tamed.prompt_tokens is requests.prompt_tokens


@pytest.mark.parametrize(
    ("arrivals", "reason"),
    [
        ("{process: all-at-once}", "all requests come at once"),
        ("{process: closed-loop, users: 4}", "users ask when they are answered"),
    ],
)
def test_arrivals_that_nobody_chose_cannot_be_evened_out(arrivals: str, reason: str) -> None:
    _, requests = made("chat", f"workload.arrivals={arrivals}")
    assert reason in (why_not_even(requests) or "")
    assert why_not_even(made("agents")[1]) is None


@pytest.mark.parametrize("name", ["chat", "rag", "agents"])
def test_cut_prompts_are_no_longer_than_asked_and_others_are_as_they_were(name: str) -> None:
    scenario, requests = made(name)
    most = longest_usual_prompt(requests)
    assert (requests.prompt_tokens > most).mean() <= 0.05
    cut = with_prompts_cut(requests, scenario, most=most)
    texts = 0
    if cut.segments is not None:  # of each text beyond the end a token is left
        texts = int(np.diff(cut.segments.offsets).max())
        sums = np.add.reduceat(cut.segments.tokens, cut.segments.offsets[:-1])
        assert (sums == cut.prompt_tokens).all() and cut.segments.tokens.min() >= 1
    assert cut.prompt_tokens.max() <= most + texts
    usual = requests.prompt_tokens <= most
    assert (cut.prompt_tokens[usual] == requests.prompt_tokens[usual]).all()
    assert (cut.prompt_tokens[~usual] <= requests.prompt_tokens[~usual]).all()
