"""The same requests without what is extreme in them: without bursts, without very long prompts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simserve.inputs.scenario import Scenario
from simserve.records.requests import IntArray, RequestTable

LONG_PERCENTILE = 95
"""Prompts are long above this percentile of their lengths."""


def with_even_arrivals(requests: RequestTable, _: Scenario) -> RequestTable:
    """Return the requests in their order, at equal gaps from the first arrival to the last.

    Of conversations that wait for their answers those gaps are between the first turns.
    """
    count = _own_arrivals(requests)
    arrival_ps = requests.arrival_ps.copy()
    even_ps = np.linspace(arrival_ps[0], arrival_ps[count - 1], count)
    arrival_ps[:count] = np.rint(even_ps).astype(np.int64)
    return replace(requests, arrival_ps=arrival_ps)


def why_not_even(requests: RequestTable) -> str | None:
    """Return why the arrivals cannot be evened out; None if they can."""
    if requests.users is not None and requests.next_turn is None:
        return "users ask when they are answered: there are no arrivals to even out"
    arrival_ps = requests.arrival_ps[: _own_arrivals(requests)]
    if not len(arrival_ps) or arrival_ps[-1] == arrival_ps[0]:
        return "all requests come at once"
    return None


def _own_arrivals(requests: RequestTable) -> int:
    """Return how many requests, the first of the table, come at a time of their own."""
    return len(requests) if requests.users is None else requests.users


def longest_usual_prompt(requests: RequestTable) -> int:
    """Return the tokens above which a prompt is called long."""
    found = np.percentile(requests.prompt_tokens, LONG_PERCENTILE, method="higher")
    return int(found)


def with_prompts_cut(requests: RequestTable, _: Scenario, *, most: int) -> RequestTable:
    """Return the requests with prompts of at most ``most`` tokens.

    Of prompts made of shared texts the end is cut, and of each text a token is left.
    """
    table = requests.segments
    if table is None:
        return replace(requests, prompt_tokens=np.minimum(requests.prompt_tokens, most))
    upto = np.cumsum(table.tokens)
    starts = upto - table.tokens
    of_request = np.repeat(starts[table.offsets[:-1]], np.diff(table.offsets))
    left: IntArray = np.minimum(table.tokens, most - (starts - of_request))
    tokens = np.maximum(left, 1)
    prompts = np.add.reduceat(tokens, table.offsets[:-1])
    return replace(requests, prompt_tokens=prompts, segments=replace(table, tokens=tokens))
