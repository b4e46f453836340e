"""The trace is one that a parser of the format accepts, and it says what the log says.

The parser is written from the format's description, and knows nothing of how the file is made.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simserve.errors import InputError
from simserve.inputs.scenario import load_scenario
from simserve.planning.run_scenario import run
from simserve.report.timeline import Window, parse_window, timeline, write_timeline
from simserve.results.phases import request_phases
from simserve.results.result import Result

NS = 1000  # picoseconds
BUSY = ["workload.num_requests=80", "rate_per_s=40", "num_gpu_blocks=700", "max_model_len=8192"]
TWO = ["workload.num_requests=60", "replicas=2", "rate_per_s=4"]


@pytest.fixture(scope="module", params=[BUSY, TWO], ids=["preempting", "two replicas"])
def result(request: pytest.FixtureRequest) -> Result:
    return run(load_scenario(settings=request.param))


def parsed(text: str) -> list[dict[str, Any]]:
    """Return the events of a trace, each checked against the format."""
    trace = json.loads(text)
    assert isinstance(trace["traceEvents"], list)
    assert trace["displayTimeUnit"] in ("ms", "ns")
    open_spans: dict[tuple[int, int], list[str]] = defaultdict(list)
    last = -1.0
    for event in trace["traceEvents"]:
        assert isinstance(event["name"], str)
        assert event["name"]
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name", "process_sort_index")
            continue
        assert isinstance(event["ts"], float)
        assert event["ts"] >= last  # in order of time, metadata before all
        last = event["ts"]
        place = (event["pid"], event["tid"])
        if event["ph"] == "X":
            assert event["dur"] >= 0
        elif event["ph"] == "C":
            assert event["args"]
            assert all(isinstance(value, int | float) for value in event["args"].values())
        elif event["ph"] == "i":
            assert event["s"] in ("t", "p", "g")
        elif event["ph"] == "B":
            open_spans[place].append(event["name"])
        else:
            assert event["ph"] == "E", event
            open_spans[place].pop()
    assert not any(open_spans.values())
    return list(trace["traceEvents"])


def _events(result: Result, **options: Any) -> list[dict[str, Any]]:
    return parsed(json.dumps(timeline(result, **options)))


def _ns(us: float) -> int:
    return round(us * 1000)


def _rounded(column: np.ndarray) -> list[int]:
    return [round(value / NS) for value in column.tolist()]


def _counter(events: list[dict[str, Any]], replica: int, name: str) -> tuple[list[int], list[int]]:
    pid = 2 * replica + 1
    mine = [one for one in events if one["ph"] == "C" and one["pid"] == pid and one["name"] == name]
    return [_ns(one["ts"]) for one in mine], [one["args"][name] for one in mine]


def test_the_counters_are_those_of_the_step_log(result: Result) -> None:
    events = _events(result)
    for replica, log in enumerate(result.record.steps):
        columns = log.expand()
        starts_ns = _rounded(columns["start_ps"])
        for name, expected in (
            ("KV blocks held", log.num_blocks - columns["free_blocks"]),
            ("running", columns["running"]),
            ("waiting", columns["waiting"]),
            ("batch tokens", columns["tokens"]),
        ):
            times_ns, values = _counter(events, replica, name)
            at = np.searchsorted(times_ns, starts_ns, side="right") - 1
            assert np.array(values)[at].tolist() == expected.tolist(), name


def test_there_is_a_slice_for_every_step_with_its_batch(result: Result) -> None:
    events = _events(result)
    for replica, log in enumerate(result.record.steps):
        columns = log.expand()
        slices = [one for one in events if one["ph"] == "X" and one["pid"] == 2 * replica + 1]
        assert [_ns(one["ts"]) for one in slices] == _rounded(columns["start_ps"])
        ends_ns = [_ns(one["ts"] + one["dur"]) for one in slices]
        assert ends_ns == _rounded(columns["end_ps"])
        for name in ("decode_seqs", "prefill_tokens", "preempted", "running", "free_blocks"):
            assert [one["args"][name] for one in slices] == columns[name].tolist()
        kinds = {one["name"] for one in slices}
        assert kinds <= {"decode", "prefill", "prefill + decode"}


def test_every_request_has_a_row_with_its_phases_in_order(result: Result) -> None:
    events = _events(result)
    rows: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for one in events:
        if one["ph"] == "X" and one["pid"] % 2 == 0:
            rows[one["pid"], one["tid"]].append(one)
    for request, phases in request_phases(result.record, range(len(result.record.requests))):
        replica = int(result.record.outcomes.replica[request])
        shown = rows[2 * replica + 2, request + 1]
        assert [one["name"] for one in shown] == [phase.name for phase in phases]
        for one, other in pairwise(shown):
            assert _ns(one["ts"] + one["dur"]) == _ns(other["ts"])


def test_a_bound_is_kept_and_what_is_shown_is_true(result: Result) -> None:
    everything = timeline(result)
    few = timeline(result, most_events=1500)
    assert len(few["traceEvents"]) <= 1500 < len(everything["traceEvents"])
    assert few["otherData"]["left_out"]
    assert not everything["otherData"]["left_out"]
    events, full = parsed(json.dumps(few)), parsed(json.dumps(everything))
    for replica in range(len(result.record.steps)):
        for name in ("KV blocks held", "running", "waiting", "batch tokens"):
            times_ns, values = _counter(events, replica, name)
            all_times_ns, all_values = _counter(full, replica, name)
            at = np.searchsorted(all_times_ns, times_ns, side="right") - 1
            assert np.array(all_values)[at].tolist() == values
            assert (min(values), max(values)) == (min(all_values), max(all_values))
    steps = [one for one in events if one["ph"] == "X" and one["pid"] % 2 == 1]
    tokens = sum(int(log.expand()["tokens"].sum()) for log in result.record.steps)
    assert sum(one["args"]["tokens"] for one in steps) == tokens


def test_a_window_shows_the_steps_in_it_and_whoever_is_there_then(result: Result) -> None:
    half_ps = result.record.end_ps // 2
    window = Window(half_ps, half_ps + result.record.end_ps // 10)
    events = _events(result, window=window)
    assert 0 < len(events) < len(_events(result))
    spans: dict[tuple[int, int, int], list[float]] = defaultdict(list)
    for one in events:
        if one["ph"] == "X":
            step = 0 if one["pid"] % 2 == 0 else one["args"]["step"] + 1
            spans[one["pid"], one["tid"], step] += [one["ts"], one["ts"] + one["dur"]]
    for times_us in spans.values():  # of each step, and of each request from first to last
        assert min(times_us) * 1e6 < window.to_ps + NS
        assert max(times_us) * 1e6 >= window.from_ps - NS
    shown = sum(key[2] > 0 for key in spans)
    log = [one.expand() for one in result.record.steps]
    inside = [(one["end_ps"] >= window.from_ps) & (one["start_ps"] < window.to_ps) for one in log]
    assert shown == sum(int(one.sum()) for one in inside)


def test_a_gzipped_trace_is_the_same_trace_and_the_same_bytes_again(
    result: Result, tmp_path: Path
) -> None:
    plain, zipped = tmp_path / "t.json", tmp_path / "t.json.gz"
    write_timeline(result, plain)
    write_timeline(result, zipped)
    first = zipped.read_bytes()
    write_timeline(result, zipped)
    assert zipped.read_bytes() == first
    assert gzip.decompress(first) == plain.read_bytes()
    parsed(plain.read_text())


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("1:2", Window(10**12, 2 * 10**12)),
        ("500ms:2min", Window(5 * 10**11, 120 * 10**12)),
        (":3s", Window(0, 3 * 10**12)),
        ("3:", Window(3 * 10**12)),
        (None, Window()),
    ],
)
def test_windows_are_read_in_seconds_or_with_units(text: str | None, window: Window) -> None:
    assert parse_window(text) == window


@pytest.mark.parametrize("text", ["", "3", "2:1", "1:1", "-1:2", "a:b", "1:2:3", "nan:3", "1:inf"])
def test_other_windows_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="FROM:TO"):
        parse_window(text)
