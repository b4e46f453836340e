"""A trace replayed in part, faster or slower: bursts stay bursts, lengths stay lengths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simserve.errors import InputError
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
