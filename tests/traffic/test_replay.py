"""A trace replayed in part, faster or slower: bursts stay bursts, lengths stay lengths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simserve.errors import InputError
from simserve.inputs.scenario import load_scenario
from simserve.inputs.workload import read_workload
from simserve.records.clock import PS_PER_S
from simserve.records.requests import RequestTable
from simserve.traffic.generate import generate
from simserve.traffic.trace_stats import gap_cv

TIMES_S = [0, 0, 0, 5, 5, 6, 20, 21, 21, 40]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    rows = [
        {"timestamp": t, "input_length": 20 + k, "output_length": 1 + k, "hash_ids": [0, 100 + k]}
        for k, t in enumerate(TIMES_S)
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def replayed(trace: Path, arrivals: dict[str, Any] | None = None, **keys: Any) -> RequestTable:
    entry: dict[str, Any] = {"trace": {"file": str(trace), **keys}}
    return generate(read_workload(entry | ({"arrivals": arrivals} if arrivals else {})), 3)


def refusal(*words: Any, **keys: Any) -> str:
    with pytest.raises(InputError) as caught:
        replayed(*words, **keys)
    return str(caught.value)


def seconds(table: RequestTable) -> list[float]:
    return [float(ps) / PS_PER_S for ps in table.arrival_ps]


def test_time_scale_multiplies_all_times(trace: Path) -> None:
    assert seconds(replayed(trace, time_scale=2.5)) == [t * 2.5 for t in TIMES_S]


@pytest.mark.parametrize("rate", [0.01, 1.0, 300.0])
def test_rate_is_met_and_burstiness_kept(trace: Path, rate: float) -> None:
    table, plain = replayed(trace, rate_per_s=rate), replayed(trace)
    assert len(table) / (table.arrival_ps[-1] / PS_PER_S) == pytest.approx(rate)
    assert gap_cv(table) == pytest.approx(gap_cv(plain) or 0)
    assert table.prompt_tokens.tolist() == plain.prompt_tokens.tolist()


def test_window_keeps_what_arrives_in_it_and_starts_at_zero(trace: Path) -> None:
    table = replayed(trace, from_s=5, to_s=21)
    assert seconds(table) == [0, 0, 1, 15]
    assert table.prompt_tokens.tolist() == [23, 24, 25, 26]
    assert table.segments is not None
    assert table.segments.segment.tolist() == [0, 103, 0, 104, 0, 105, 0, 106]


def test_windows_side_by_side_hold_every_request_once(trace: Path) -> None:
    parts = [replayed(trace, from_s=a, to_s=b) for a, b in ((0, 6), (6, 21), (21, 99))]
    outputs = [n for part in parts for n in part.output_tokens.tolist()]
    assert outputs == replayed(trace).output_tokens.tolist()


def test_head_counts_within_the_window_and_rate_is_that_of_the_part(trace: Path) -> None:
    table = replayed(trace, from_s=5, head=4, rate_per_s=1)
    assert table.prompt_tokens.tolist() == [23, 24, 25, 26]
    assert seconds(table)[-1] == pytest.approx(4)


def test_lengths_get_the_arrivals_of_the_workload(trace: Path) -> None:
    poisson = {"process": "poisson", "rate_per_s": 9}
    table = replayed(trace, poisson, format="lengths")
    drawn = generate(
        read_workload(
            {"arrivals": poisson, "prompt_tokens": 1, "output_tokens": 1, "num_requests": 10}
        ),
        3,
    )
    np.testing.assert_array_equal(table.arrival_ps, drawn.arrival_ps)
    assert table.prompt_tokens.tolist() == [20 + k for k in range(10)]


def test_contradictions_of_times_and_arrivals_are_refused(trace: Path) -> None:
    poisson = {"process": "poisson", "rate_per_s": 9}
    assert "workload.trace.rate_per_s makes them faster" in refusal(trace, poisson)
    assert "workload.arrivals: got nothing" in refusal(trace, format="lengths")
    assert "the file has no times" in refusal(trace, poisson, format="lengths", rate_per_s=5)
    assert "the file has no times" in refusal(trace, poisson, format="lengths", from_s=5)
    assert "requests that all come at once" in refusal(trace, head=3, rate_per_s=5)
    assert "no request from 50 s" in refusal(trace, from_s=50)
    assert "allowed: at most 53 days" in refusal(trace, time_scale=1e9)
    assert "allowed: at most 53 days" in refusal(trace, rate_per_s=1e-9)


def test_columns_and_block_size_reach_the_reader(tmp_path: Path, trace: Path) -> None:
    text = trace.read_text().replace("timestamp", "t").replace("hash_ids", "ids")
    other = tmp_path / "other.jsonl"
    other.write_text(text)
    roles = {"arrival_s": "t", "prompt_tokens": "input_length", "output_tokens": "output_length"}
    assert seconds(replayed(other, columns=roles)) == TIMES_S
    assert "in blocks of 20" in refusal(trace, block_tokens=20)


# --- the part and the rate, as options ---


def loaded(**options: Any) -> Any:
    return load_scenario(**options).workload


def test_rate_of_a_trace_keeps_its_bursts(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n0,5,5\n0.1,5,5\n9,5,5\n12,5,5\n")
    whole = generate(loaded(trace=path), 0).arrival_ps
    fast = generate(loaded(trace=path, rate_per_s="2/s"), 0).arrival_ps
    assert len(fast) / (fast[-1] / PS_PER_S) == pytest.approx(2)
    assert fast / fast[-1] == pytest.approx(whole / whole[-1])  # gaps keep their ratios
    part = generate(loaded(trace=path, from_s=0.05, to_s="10s", head=1), 0)
    assert part.arrival_ps.tolist() == [0]


@pytest.mark.parametrize("process", ["poisson", "diurnal", "on-off", "piecewise", "vllm-bench"])
def test_rate_of_a_synthetic_workload_is_that_of_its_arrivals(process: str) -> None:
    extra = {
        "diurnal": ["workload.arrivals.peak_to_mean=1.5"],
        "on-off": ["workload.arrivals.on_s=5", "workload.arrivals.off_s=5"],
        "piecewise": ["workload.arrivals.steps=[{duration_s: 5, rate_per_s: 1}]"],
    }
    settings = [f"workload.arrivals.process={process}", *extra.get(process, [])]
    arrivals = loaded(rate_per_s="120/min", settings=settings).arrivals
    assert (arrivals.process, arrivals.rate_per_s) == (process, 2.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": 5}, "--head: got 5, allowed: a trace"),
        ({"from_s": "1h"}, "--from: got 1h, allowed: a trace"),
        ({"to_s": 3.0}, "--to: got 3.0, allowed: a trace"),
        ({"trace_columns": {"arrival_s": "t"}}, "--trace-columns: got arrival_s, allowed: a trace"),
        ({"trace": "a", "workload": "chat"}, "--trace: got a, allowed: either it or --workload"),
        ({"rate_per_s": 0}, "--rate: workload.arrivals.rate_per_s: got 0, allowed: a number above"),
        (
            {"rate_per_s": 3, "settings": ["workload.arrivals={process: closed-loop, users: 5}"]},
            "--set .*a second value",
        ),
        (
            {"rate_per_s": 3, "settings": ["workload.arrivals.process=all-at-once"]},
            "--rate: .*no rate for all-at-once",
        ),
    ],
)
def test_parts_and_rates_that_mean_nothing_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        loaded(**options)


def test_rate_of_a_closed_loop_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(
        "arrivals: {process: closed-loop, users: 5}\n"
        "prompt_tokens: 5\noutput_tokens: 5\nnum_requests: 9\n"
    )
    with pytest.raises(InputError, match=r"--rate: .*got 3.*no rate for closed-loop"):
        loaded(workload=path, rate_per_s=3)


def test_lengths_without_times_come_at_the_rate(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text("prompt_tokens,output_tokens\n" + "5,6\n" * 4000)
    requests = generate(loaded(trace=path, rate_per_s=8), 0)
    # The mean of 4,000 exponential gaps has a standard error of 1.6 %.
    assert requests.arrival_ps[-1] / PS_PER_S == pytest.approx(500, rel=0.065)
    assert requests.notes == ("the file has no times: Poisson arrivals at 8/s",)
    with pytest.raises(InputError, match=r"time_scale.*the file has no times"):
        generate(loaded(trace=path, settings=["workload.trace.time_scale=2"]), 0)
