"""Objectives are read as vLLM's goodput flag, or as percentiles; never as means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.errors import InputError
from simserve.inputs.slo import Objective, parse_slo


def test_bare_names_are_judged_per_request_and_percentiles_over_all() -> None:
    slo = parse_slo("ttft:500 tpot_p95:50, itl_p99.9:80")
    assert slo.objectives == (
        Objective("ttft", None, 500.0),
        Objective("tpot", 95.0, 50.0),
        Objective("itl", 99.9, 80.0),
    )


@pytest.mark.parametrize(
    "value",
    [
        "ttft:500 tpot_p95:50",
        ["ttft:500", "tpot_p95:50"],
        {"ttft": 500, "tpot_p95": 50},
        [{"ttft": "0.5s"}, "tpot_p95:50ms"],
    ],
)
def test_text_list_and_mapping_say_the_same(value: object) -> None:
    assert str(parse_slo(value)) == "ttft:500 tpot_p95:50"


@given(
    st.dictionaries(
        st.sampled_from(["ttft", "tpot", "e2el", "ttft_p50", "itl_p99", "e2el_p99.9"]),
        st.integers(1, 10**6),
        min_size=1,
    )
)
def test_an_slo_reads_back_from_its_own_text(limits: dict[str, int]) -> None:
    slo = parse_slo(limits)
    assert [(one.name, one.limit_ms) for one in slo.objectives] == list(limits.items())
    assert parse_slo([f"{name}:{limit}" for name, limit in limits.items()]) == slo


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("tttf:500", "did you mean ttft?"),
        ("mean_ttft:500", "ttft_pNN"),
        ("itl:50", "itl_p99"),
        ("ttft:0", "above 0"),
        ("ttft:-5", "above 0"),
        ("ttft:nan", "above 0"),
        ("ttft:5parsecs", "above 0"),
        ("ttft_p0:5", "percentile"),
        ("ttft_p100:5", "percentile"),
        ("ttft", "name:limit"),
        ("ttft:1 ttft:2", "every objective once"),
        ("ttft_p95:1 ttft_p95.0:2", "every objective once"),
        ("", "no objective"),
        ([], "no objective"),
        (5, "text such as"),
        (None, "text such as"),
        ({"ttft": None}, "above 0"),
    ],
)
def test_a_wrong_objective_is_refused_in_one_line(value: object, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_slo(value)
    assert expected in str(caught.value)
