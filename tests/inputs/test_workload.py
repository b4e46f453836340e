"""A workload is synthetic or a trace, and says in one line what is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest

from simserve.errors import InputError
from simserve.inputs.workload import LengthSpec, read_workload

GOOD: dict[str, Any] = {
    "arrivals": {"process": "poisson", "rate_per_s": 4},
    "prompt_tokens": {"median": 500, "p95": 2000},
    "output_tokens": 128,
    "num_requests": 100,
}


def test_a_bare_number_is_a_fixed_length() -> None:
    assert read_workload(GOOD).output_tokens == LengthSpec(fixed=128)
    assert read_workload(GOOD | {"output_tokens": "2k"}).output_tokens == LengthSpec(fixed=2000)


def test_a_duration_may_carry_its_unit() -> None:
    spec = {key: value for key, value in GOOD.items() if key != "num_requests"}
    assert read_workload(spec | {"duration_s": "5min"}).duration_s == 300.0


def test_all_at_once_needs_no_rate() -> None:
    arrivals = read_workload(GOOD | {"arrivals": {"process": "all_at_once"}}).arrivals
    assert arrivals is not None and arrivals.process == "all-at-once"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"arrivals": {"process": "poisson"}}, "workload.arrivals.rate_per_s: got nothing"),
        (
            {"arrivals": {"rate_per_s": -4}},
            "workload.arrivals.rate_per_s: got -4, allowed: a number above 0, in requests per s",
        ),
        ({"arrivals": {"rate_per_s": 0}}, "above 0"),
        ({"arrivals": {"rate_per_s": float("nan")}}, "above 0"),
        ({"arrivals": {"rate_per_s": float("inf")}}, "above 0"),
        ({"arrivals": {"process": "gamma", "rate_per_s": 1}}, "burstiness"),
        ({"arrivals": {"rate_per_s": 1, "burstiness": 2}}, "use process gamma"),
        ({"arrivals": {"process": "all-at-once", "rate_per_s": 1}}, "no rate"),
        ({"arrivals": {"process": "weibull", "rate_per_s": 1}}, "poisson, constant, gamma"),
        ({"arrivals": {"rate": 1}}, "rate_per_s, the nearest"),
        ({"arrivals": "poisson"}, "a mapping"),
        ({"prompt_tokens": {"median": 500}}, "prompt_tokens.p95: got nothing"),
        ({"prompt_tokens": {"median": 500, "p95": 400}}, "more than the median"),
        ({"prompt_tokens": {"fixed": 5, "median": 4}}, "nothing beside fixed"),
        ({"prompt_tokens": {"median": 5, "p95": 9, "min": 9, "max": 8}}, "at least min (9)"),
        ({"prompt_tokens": 0}, "prompt_tokens: got 0"),
        ({"prompt_tokens": 2.5}, "prompt_tokens: got 2.5"),
        ({"prompt_tokens": None}, "prompt_tokens: got nothing"),
        ({"num_requests": None}, "num_requests or duration_s"),
        ({"duration_s": 5}, "either num_requests or duration_s"),
        ({"num_requests": -1}, "at least 1"),
        ({"trace": {"file": "t.jsonl"}}, "nothing beside trace"),
        ({"prefix": {"count": 2}}, "prefix.tokens: got nothing"),
        ({"num_request": 5}, "num_requests, the nearest"),
    ],
)
def test_a_wrong_workload_is_refused_by_key(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        read_workload(GOOD | changes)
    assert expected in str(caught.value)


@pytest.mark.parametrize("entry", [None, 5, [], "chat"])
def test_a_workload_that_is_no_mapping_is_refused(entry: object) -> None:
    with pytest.raises(InputError, match=r"a mapping with .*keys .*arrivals"):
        read_workload(entry)


def test_a_missing_trace_is_refused_before_anything_runs() -> None:
    with pytest.raises(InputError, match="no such file"):
        read_workload({"trace": {"file": "nowhere.jsonl"}})
