"""What a workload can ask for beyond Poisson: each key is checked where it stands."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from simserve.errors import InputError
from simserve.inputs.workload import read_workload
from simserve.inputs.workload_arrivals import ArrivalProcess
from simserve.inputs.workload_trace import TABLE_ROLES, TraceFormat

GOOD: dict[str, Any] = {
    "arrivals": {"process": "poisson", "rate_per_s": 4},
    "prompt_tokens": 100,
    "output_tokens": 10,
    "num_requests": 100,
}


def refusal(**changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        read_workload(GOOD | changes)
    text = str(caught.value)
    assert "\n" not in text and "allowed: " in text
    return text


STEP = {"duration_s": 60, "rate_per_s": 1}
BAD_ARRIVALS = [
    ({"process": "closed-loop"}, "users: got nothing, allowed: how many"),
    ({"process": "closed-loop", "users": 0}, "users: got 0"),
    ({"process": "closed-loop", "users": 5, "rate_per_s": 1}, "no rate for closed-loop"),
    ({"process": "closed-loop", "users": 5, "think_time_s": -1}, "think_time_s: got -1"),
    ({"process": "poisson", "rate_per_s": 1, "users": 5}, "no users for process poisson"),
    ({"process": "poisson", "rate_per_s": 1, "concurrency": 5}, "users, with process closed-loop"),
    ({"process": "piecewise"}, "steps: got nothing, allowed: a list of"),
    ({"process": "piecewise", "steps": []}, "steps: got no request in any step"),
    ({"process": "piecewise", "steps": [{"duration_s": 5, "rate_per_s": 0}]}, "no request in any"),
    ({"process": "piecewise", "steps": [STEP, {"duration_s": 5}]}, "steps.1.rate_per_s: got noth"),
    ({"process": "piecewise", "steps": [STEP, {**STEP, "duration_s": -5}]}, "steps.1.duration_s"),
    ({"process": "piecewise", "steps": [{**STEP, "rate": 5}]}, "rate_per_s, the nearest"),
    ({"process": "piecewise", "steps": [5]}, "steps.0"),
    ({"process": "piecewise", "steps": 5}, "arrivals.steps: got 5, allowed: a list of"),
    ({"process": "diurnal", "rate_per_s": 5}, "peak_to_mean: got nothing"),
    ({"process": "diurnal", "rate_per_s": 5, "peak_to_mean": 2.1}, "a number from 1 to 2"),
    ({"process": "diurnal", "rate_per_s": 5, "peak_to_mean": 0.5}, "a number from 1 to 2"),
    ({"process": "on-off", "rate_per_s": 5, "on_s": 3}, "off_s: got nothing"),
    ({"process": "on-off", "rate_per_s": 5, "on_s": 3, "off_s": 0}, "off_s: got 0"),
    ({"process": "on-off", "rate_per_s": 5, "on_s": 3, "off_s": 3, "off_rate_frac": 2}, "0 to 1"),
    ({"process": "poisson", "rate_per_s": 5, "on_s": 3}, "no on_s for process poisson"),
    ({"process": "vllm-bench"}, "rate_per_s: got nothing"),
    ({"process": "vllm-bench", "ramp_up": "linear"}, "start_rate_per_s: got nothing"),
    ({"process": "vllm-bench", "ramp_up": "cubic"}, "allowed: linear or exponential"),
    (
        {
            "process": "vllm-bench",
            "ramp_up": "linear",
            "start_rate_per_s": 1,
            "end_rate_per_s": 2,
            "rate_per_s": 5,
        },
        "no rate for vllm-bench with a ramp_up",
    ),
]


@pytest.mark.parametrize(("arrivals", "expected"), BAD_ARRIVALS)
def test_wrong_arrivals_are_refused_by_key(arrivals: dict[str, Any], expected: str) -> None:
    assert expected in refusal(arrivals=arrivals)


BAD_PARTS = [
    ({"prompt_tokens": {"histogram": {"upto": [5, 9], "weights": [1]}}}, "as many weights"),
    ({"prompt_tokens": {"histogram": {"upto": [9, 5], "weights": [1, 1]}}}, "a rising list"),
    ({"prompt_tokens": {"histogram": {"upto": [5], "weights": [0]}}}, "at least one number above"),
    ({"prompt_tokens": {"histogram": {"upto": [5], "weights": [-1]}}}, "weights.0"),
    ({"prompt_tokens": {"histogram": {"upto": [5]}}}, "histogram.weights: got nothing"),
    ({"prompt_tokens": {"histogram": {"upto": [5], "weights": [1]}, "median": 5}}, "beside hist"),
    ({"segments": []}, "segments: got an empty list"),
    ({"segments": [{"name": "a", "count": 2}]}, "segments.0.tokens: got nothing"),
    ({"segments": [{"name": "a", "count": 2, "token": 5}]}, "tokens, the nearest"),
    ({"segments": [{"name": "a", "count": 2, "tokens": 5}] * 2}, "got a twice"),
    ({"segments": [{"name": "a", "count": 2, "tokens": 5, "per_request": 3}]}, "at most count (2)"),
    ({"segments": [{"name": "a", "count": 2, "tokens": 5, "share_frac": 0}]}, "share_frac: got 0"),
    (
        {"segments": [{"name": "a", "count": 2, "tokens": 5}], "prefix": {"count": 1, "tokens": 1}},
        "either prefix or segments",
    ),
    ({"sessions": {"think_time_s": 5}}, "either turns or mean_turns"),
    ({"sessions": {"think_time_s": 5, "turns": 2, "mean_turns": 2}}, "got both"),
    ({"sessions": {"turns": 2}}, "sessions.think_time_s: got nothing"),
    ({"sessions": {"mean_turns": 0.5, "think_time_s": 5}}, "a number of at least 1"),
    ({"sessions": {"turns": 2, "think_time_s": 5, "think_time_p95_s": 4}}, "which is the median"),
    ({"classes": [{"name": "a"}]}, "classes.0.weight: got nothing"),
    ({"classes": [{"name": "a", "weight": 0}]}, "classes.0.weight: got 0"),
    ({"classes": [{"name": "a", "weight": 1}] * 2}, "every name once"),
]


@pytest.mark.parametrize(("change", "expected"), BAD_PARTS)
def test_wrong_part_is_refused_by_key(change: dict[str, Any], expected: str) -> None:
    assert expected in refusal(**change)


def test_lengths_may_be_left_to_the_classes_if_all_have_them() -> None:
    full = {"name": "a", "weight": 1, "prompt_tokens": 5, "output_tokens": 5}
    lengths = {"prompt_tokens": None, "output_tokens": None}
    assert read_workload(GOOD | lengths | {"classes": [full]}).prompt_tokens is None
    bare = {"name": "b", "weight": 1, "output_tokens": 5}
    assert "prompt_tokens: got nothing" in refusal(**lengths, classes=[full, bare])


BAD_TRACES = [
    ({"rate_per_s": 1, "time_scale": 2}, "either rate_per_s or time_scale"),
    ({"time_scale": 0}, "time_scale: got 0"),
    ({"from_s": 9, "to_s": 5}, "a time above from_s (9)"),
    ({"from_s": -1}, "from_s: got -1"),
    ({"columns": {"arrival": "t"}}, "got arrival, allowed: arrival_s"),
    ({"columns": {"arrival_s": "t"}, "format": "azure"}, "no columns for format azure"),
    ({"columns": {"arrival_s": 5}}, "columns.arrival_s"),
    ({"format": "csv"}, "azure, mooncake, timed-trace"),
]


@pytest.mark.parametrize(("change", "expected"), BAD_TRACES)
def test_wrong_trace_is_refused_by_key(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        read_workload({"trace": {"file": "t.csv", **change}})
    assert expected in str(caught.value)


def test_only_arrivals_may_stand_beside_a_trace() -> None:
    for key in ("prompt_tokens", "num_requests"):
        with pytest.raises(InputError, match=f"{key}: got a value, allowed: nothing beside trace"):
            read_workload({"trace": {"file": "t.csv"}, key: 5})


def test_every_process_and_format_is_named_in_its_description() -> None:
    from simserve.inputs.workload import ArrivalsSpec, TraceSpec
    from simserve.traffic.trace_formats import FORMATS
    from simserve.traffic.trace_formats.table import KINDS

    described = ArrivalsSpec.model_fields["process"].description or ""
    assert all(name in described for name in get_args(ArrivalProcess))
    described = TraceSpec.model_fields["format"].description or ""
    assert all(name in described for name in FORMATS)
    assert get_args(TraceFormat) == tuple(FORMATS)
    assert tuple(TABLE_ROLES) == tuple(KINDS)
