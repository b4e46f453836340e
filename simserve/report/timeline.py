"""A run as a Chrome trace, the format that Perfetto (ui.perfetto.dev) opens.

Each replica has a row of steps and its counters; beside it, each of its requests has a row of
phases. A file has at most ``MOST_EVENTS`` events: of a longer run, steps are put together and
every k-th request is shown, and the file says so. A window shows a part of it in full.

Format: "Trace Event Format", Google, https://docs.google.com/document/d/
1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU. Times are in microseconds, rounded to nanoseconds.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simserve.errors import InputError
from simserve.inputs.units import SECOND_UNITS, parse_quantity
from simserve.records.clock import FAR_PS, NEVER_PS, PS_PER_NS, PS_PER_S
from simserve.records.requests import IntArray
from simserve.records.run_record import ABORTED, REJECTED, RunRecord
from simserve.records.step_log import StepLog
from simserve.results.counters import Counters, counters
from simserve.results.phases import request_phases
from simserve.results.result import Result
from simserve.results.token_times import left_ps
from simserve.results.whole_files import write_whole

MOST_EVENTS = 200_000
"""About 30 MB of JSON, which a browser still opens at once."""

Event = dict[str, Any]

_NS_PER_US = 1000
_STEPS_TID = 0
_COUNTERS = {
    "KV blocks held": "kv_blocks",
    "running": "running",
    "waiting": "waiting",
    "batch tokens": "batch_tokens",
}
# The events of a step: its slice, and up to one of each counter; of several steps put together
# there are three of each counter. Of a request: its name and, mostly, three phases.
_PER_STEP, _PER_GROUP, _PER_REQUEST = 1 + len(_COUNTERS), 1 + 3 * len(_COUNTERS), 4
_SUMMED = ("tokens", "prefill_tokens", "admitted", "preempted", "finished")
_SHOWN = (
    *("decode_seqs", "decode_context_tokens", "prefill_seqs", "prefill_tokens", "admitted"),
    *("hit_tokens", "preempted", "finished", "running", "waiting", "free_blocks"),
)


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a run, in picoseconds from its start."""

    from_ps: int = 0
    to_ps: int = FAR_PS

    def overlaps(self, start_ps: IntArray, end_ps: IntArray) -> IntArray:
        """Return the numbers of the spans that reach into the window."""
        return np.flatnonzero((end_ps >= self.from_ps) & (start_ps < self.to_ps))


def parse_window(text: str | None, where: str = "--timeline-window") -> Window:
    """Return the window ``FROM:TO``, in seconds or such as ``90s:2min``; either may be left out.

    Raises:
        InputError: if it is none, or empty.
    """
    if text is None:
        return Window()
    allowed = "FROM:TO, in seconds or such as 90s:2min, FROM before TO"
    begin, colon, end = (part.strip() for part in text.partition(":"))
    try:
        from_s = parse_quantity(begin, SECOND_UNITS, allowed) if begin else 0.0
        to_s = parse_quantity(end, SECOND_UNITS, allowed) if end else FAR_PS / PS_PER_S
    except ValueError:
        raise InputError(where, None, text, allowed) from None
    if not colon or not 0 <= from_s < to_s:
        raise InputError(where, None, text, allowed)
    return Window(round(from_s * PS_PER_S), min(round(to_s * PS_PER_S), FAR_PS))


def write_timeline(
    result: Result, path: Path, window: Window | None = None, most_events: int = MOST_EVENTS
) -> list[str]:
    """Write the trace, gzipped if the name ends in ``.gz``; return what it leaves out, in words.

    Raises:
        InputError: if the file cannot be written.
    """
    trace = timeline(result, window or Window(), most_events)
    text = json.dumps(trace, separators=(",", ":"), allow_nan=False).encode()
    if path.suffix == ".gz":
        text = gzip.compress(text, mtime=0)  # no date in it: the same run, the same bytes
    write_whole(path, lambda temporary: _write(temporary, text))
    notes: list[str] = trace["otherData"]["left_out"]
    return notes


def timeline(
    result: Result, window: Window = Window(), most_events: int = MOST_EVENTS
) -> dict[str, Any]:
    """Return the run as one Chrome trace object; its events are in order of time."""
    record = result.record
    seen = [window.overlaps(*_spans(log)) for log in record.steps]
    gone_ps = left_ps(record)
    gone_ps = np.where(gone_ps == NEVER_PS, record.end_ps, gone_ps)
    requests = window.overlaps(record.requests.arrival_ps, gone_ps)
    steps_each, requests_each, notes = _thinning(sum(map(len, seen)), len(requests), most_events)
    events: list[Event] = []
    for replica, (log, steps) in enumerate(zip(record.steps, seen, strict=True)):
        events += _names(replica)
        events += _step_events(log, replica, steps, steps_each)
        events += _counter_events(counters(log), replica, window, steps_each)
    events += _request_events(record, requests[::requests_each])
    events.sort(key=lambda event: (event.get("ts", -math.inf), -event.get("dur", 0.0)))
    facts = result.facts
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {
            "made_by": f"simserve {facts.version}",
            "simulated": True,
            "scenario": facts.name,
            "scenario_digest": facts.digest,
            "steps_per_slice": steps_each,
            "one_request_in": requests_each,
            "left_out": notes,
        },
    }


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _spans(log: StepLog) -> tuple[IntArray, IntArray]:
    ends_ps = log.end_per_step_ps()
    return ends_ps - log.duration_per_step_ps(), ends_ps


def _thinning(steps: int, requests: int, most_events: int) -> tuple[int, int, list[str]]:
    """Return how many steps a slice stands for, every which request is shown, and the words.

    Requests may take half of the events, and whatever the steps do not need.
    """
    wanted = steps * _PER_STEP
    for_requests = max(most_events // 2, most_events - wanted)
    requests_each = max(math.ceil(requests * _PER_REQUEST / for_requests), 1)
    left = most_events - math.ceil(requests / requests_each) * _PER_REQUEST
    steps_each = 1 if wanted <= left else max(math.ceil(steps * _PER_GROUP / left), 2)
    notes = []
    if steps_each > 1:
        notes.append(
            f"{steps:,} steps: {steps_each} in one slice, and of these the first, the lowest and "
            "the highest value of each counter"
        )
    if requests_each > 1:
        notes.append(f"{requests:,} requests: one in {requests_each} is shown, by arrival")
    return steps_each, requests_each, notes


def _names(replica: int) -> Iterator[Event]:
    for pid, name in (
        (_replica_pid(replica), f"replica {replica}"),
        (_requests_pid(replica), f"requests of replica {replica}"),
    ):
        yield {"ph": "M", "pid": pid, "tid": 0, "name": "process_name", "args": {"name": name}}
        order = {"sort_index": pid}
        yield {"ph": "M", "pid": pid, "tid": 0, "name": "process_sort_index", "args": order}
    steps = {"name": "steps"}
    yield {
        "ph": "M",
        "pid": _replica_pid(replica),
        "tid": _STEPS_TID,
        "name": "thread_name",
        "args": steps,
    }


def _step_events(log: StepLog, replica: int, steps: IntArray, each: int) -> Iterator[Event]:
    """Yield a slice for every ``each`` steps of those numbered in ``steps``."""
    if not len(steps):
        return
    columns = {name: column[steps] for name, column in log.expand().items()}
    place = {"ph": "X", "pid": _replica_pid(replica), "tid": _STEPS_TID}
    begin = np.arange(0, len(steps), each)
    last = np.append(begin[1:], len(steps)) - 1
    starts_ps, ends_ps = columns["start_ps"][begin], columns["end_ps"][last]
    if each == 1:
        names = _kinds(columns)
        args = {name: columns[name].tolist() for name in _SHOWN}
    else:
        counts = np.diff(np.append(begin, len(steps)))
        names = [f"{count} steps" for count in counts]
        busy_ps = np.add.reduceat(columns["end_ps"] - columns["start_ps"], begin)
        args = {name: np.add.reduceat(columns[name], begin).tolist() for name in _SUMMED}
        args["busy_us"] = (busy_ps / (PS_PER_NS * _NS_PER_US)).round(3).tolist()
        args["decode_seqs_max"] = np.maximum.reduceat(columns["decode_seqs"], begin).tolist()
    for at, (start_ps, end_ps) in enumerate(zip(starts_ps.tolist(), ends_ps.tolist(), strict=True)):
        entry = {"step": int(steps[begin[at]])} | {name: args[name][at] for name in args}
        yield {**place, "name": names[at], **_span(start_ps, end_ps), "args": entry}


def _kinds(columns: dict[str, IntArray]) -> list[str]:
    """Return the name of each step's slice, by what it computes."""
    words = np.array(["idle", "decode", "prefill", "prefill + decode"], dtype=object)
    kind = (columns["decode_seqs"] > 0) + 2 * (columns["prefill_seqs"] > 0)
    return list(words[kind])


def _counter_events(values: Counters, replica: int, window: Window, each: int) -> Iterator[Event]:
    """Yield the counters where they change; they hold until the next event."""
    until_ps = np.append(values.time_ps[1:], FAR_PS)
    seen = window.overlaps(values.time_ps, until_ps)
    for name, field in _COUNTERS.items():
        column, times_ps = getattr(values, field)[seen], values.time_ps[seen]
        shown = _changes(column) if each == 1 else _extremes(column, each)
        for at in shown.tolist():
            yield {
                "ph": "C",
                "pid": _replica_pid(replica),
                "tid": _STEPS_TID,
                "name": name,
                "ts": _us(int(times_ps[at])),
                "args": {name: int(column[at])},
            }


def _changes(column: IntArray) -> IntArray:
    return np.flatnonzero(np.diff(column, prepend=column[:1] - 1))


def _extremes(column: IntArray, each: int) -> IntArray:
    """Return, of every ``each`` entries, where the first, a lowest and a highest are."""
    found: set[int] = set()
    for begin in range(0, len(column), each):
        part = column[begin : begin + each]
        found |= {begin, begin + int(part.argmin()), begin + int(part.argmax())}
    return np.array(sorted(found), np.int64)


def _request_events(record: RunRecord, chosen: IntArray) -> Iterator[Event]:
    """Yield the rows of the chosen requests: a slice for each phase."""
    out, requests = record.outcomes, record.requests
    for request, phases in request_phases(record, chosen):
        pid, tid = _requests_pid(int(out.replica[request])), request + 1
        place = {"pid": pid, "tid": tid}
        name = {"name": requests.id_of(request)}
        yield {"ph": "M", **place, "name": "thread_name", "args": name}
        args = {
            "request": requests.id_of(request),
            "prompt_tokens": int(requests.prompt_tokens[request]),
            "generated_tokens": int(out.generated_tokens[request]),
            "cached_tokens": int(out.cached_tokens[request]),
            "preemptions": int(out.preemptions[request]),
        }
        for phase in phases:
            span = _span(phase.start_ps, phase.end_ps)
            yield {"ph": "X", **place, "name": phase.name, **span, "args": args}
        ending = {REJECTED: "rejected", ABORTED: "given up"}.get(int(out.status[request]))
        if ending is not None:
            end_ps = phases[-1].end_ps if phases else int(requests.arrival_ps[request])
            instant = {"ts": _us(end_ps), "s": "t", "args": args}
            yield {"ph": "i", **place, "name": ending, **instant}


def _replica_pid(replica: int) -> int:
    return 2 * replica + 1


def _requests_pid(replica: int) -> int:
    return 2 * replica + 2


def _us(time_ps: int) -> float:
    return round(time_ps / PS_PER_NS) / _NS_PER_US


def _span(start_ps: int, end_ps: int) -> dict[str, float]:
    """Return start and duration; both ends are rounded, so that neighbours stay neighbours."""
    start_ns, end_ns = round(start_ps / PS_PER_NS), round(end_ps / PS_PER_NS)
    return {"ts": start_ns / _NS_PER_US, "dur": (end_ns - start_ns) / _NS_PER_US}
