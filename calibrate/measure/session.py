"""The loop of a calibration: the most valuable points first, watched, journalled, repeated.

Everything that decides is here; nothing of it knows torch.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from math import ceil
from statistics import median
from typing import Any, Protocol

from calibrate.measure.client import Worker, WorkerGoneError
from calibrate.measure.journal import END, POINT, REPEAT, SENTINEL, Entry, Journal
from calibrate.plans.plan import Plan
from calibrate.plans.point import LAUNCH, Point
from simserve.errors import InputError, SimserveError

# A kernel that ended its process so often is left alone: a hang costs half a minute each time.
_MOST_LOST_BY_KERNEL = 3
# After so many points in a row that ended their process, the machine itself is asked.
_MOST_LOST_IN_A_ROW = 5
# Clocks that the median of a session is taken from, at least.
_FEWEST_CLOCKS = 20

FINISHED, OUT_OF_TIME = "finished", "time limit"


class Telemetry(Protocol):
    """What is sampled beside the measurements."""

    def between(self, start: float, end: float) -> Mapping[str, float]:
        """Return columns for the time from ``start`` to ``end``, Unix seconds."""
        ...


class LostMachineError(SimserveError):
    """No kernel answers any more, or no process can be started."""


@dataclass(slots=True, kw_only=True)
class Session:
    """One run of a plan; ``say`` is told of every finished point.

    Points that launch one of the kernels ``without`` are refused.
    """

    plan: Plan
    worker: Worker
    journal: Journal
    telemetry: Telemetry
    limit_s: float | None = None
    retry: bool = False
    without: Collection[str] = ()
    say: Callable[[str, Point, Entry], None] = lambda *_: None
    _start: float = field(default_factory=time.monotonic)
    _last_sentinel: float | None = None
    _lost_in_a_row: int = 0
    _lost: Counter[str] = field(default_factory=Counter)  # by kernel
    _clocks: list[float] = field(default_factory=list)

    def run(self) -> str:
        """Measure what the journal has not yet; return why it ended.

        Raises:
            LostMachineError: if five points in a row end their process, and then the first
                sentinel too; or if a worker cannot be started again.
        """
        todo = self._unfinished()
        repeat_s = self.plan.protocol.repeat_frac * self.plan.seconds(todo)
        complete = True
        for point in todo:
            if not self._time_for(point, keep_s=min(repeat_s, self._repeat_room_s())):
                complete = False
                continue  # a shorter one further on may still fit
            self._sentinels()
            self._measure(POINT, point)
        for point in self._to_repeat():
            if not self._time_for(point):
                complete = False
                break
            self._sentinels()
            self._measure(REPEAT, point)
        self._sentinels(last=True)
        reason = FINISHED if complete else OUT_OF_TIME
        self.journal.add(END, {"reason": reason, "seconds": round(self._elapsed_s(), 3)})
        return reason

    def _unfinished(self) -> list[Point]:
        done = self.journal.finished(POINT)
        if self.retry:
            done = {name: entry for name, entry in done.items() if entry["status"] == "ok"}
        return [point for point in self.plan.points if point.name not in done]

    def _to_repeat(self) -> list[Point]:
        """Return the points to measure once more: a twentieth, the same in every run."""
        done = self.journal.finished(POINT)
        again = self.journal.finished(REPEAT)
        fine = [
            point
            for point in self.plan.points
            if point.table != LAUNCH
            and "seconds" not in point.how
            and done.get(point.name, {}).get("status") == "ok"
        ]
        wanted = ceil(self.plan.protocol.repeat_frac * len(fine))
        drawn = {one.name for one in sorted(fine, key=self._draw)[:wanted]}
        return [one for one in fine if one.name in drawn and one.name not in again]

    def _draw(self, point: Point) -> str:
        return hashlib.sha256(f"{self.plan.seed} {point.name}".encode()).hexdigest()

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._start

    def _repeat_room_s(self) -> float:
        return self.plan.protocol.repeat_frac * (self.limit_s or 0.0)

    def _time_for(self, point: Point, keep_s: float = 0.0) -> bool:
        if self.limit_s is None:
            return True
        needed_s = self.plan.rates.point_s(point, self.plan.protocol)
        return self._elapsed_s() + needed_s + keep_s <= self.limit_s

    def _sentinels(self, last: bool = False) -> None:
        """Measure the sentinels, if it is time: at the start, at the end, and in between."""
        now = time.monotonic()
        every_s = self.plan.protocol.sentinel_every_s
        due = self._last_sentinel is None or now - self._last_sentinel >= every_s
        if last:
            due = self._last_sentinel is not None
        if due:
            for point in self.plan.sentinels:
                self._measure(SENTINEL, point)
            self._last_sentinel = time.monotonic()

    def _measure(self, kind: str, point: Point) -> None:
        """Measure a point, twice if its times scatter or the clock was low, and write it down."""
        entry = self._asked(point)
        flags = self._flags(entry)
        if flags and kind == POINT:
            again = self._asked(point)
            if again.get("status") == "ok" and _spread(again) <= _spread(entry):
                entry = again
            flags = self._flags(entry)
        if "sm_mhz" in entry:
            self._clocks.append(entry["sm_mhz"])
        line = {
            "name": point.name,
            "table": point.table,
            "block": point.block,
            "keys": dict(point.keys),
            "seq": len(self.journal.entries),
            "t_unix": round(time.time(), 3),
            "flag": " ".join(flags),
            "bytes": point.work.bytes_moved,
            "flops": point.work.flops,
            **entry,
        }
        self.journal.add(kind, line)
        self.say(kind, point, line)

    def _asked(self, point: Point) -> Entry:
        """Return the answer of the worker; what ended its process is a failure of the point."""
        left_out = [label for label in point.labels if label in self.without]
        if left_out:
            return {"status": "refused", "error": f"left out: {left_out[0]}"}
        if self._lost[point.kernel] >= _MOST_LOST_BY_KERNEL:
            told = f"given up: {point.kernel} ended its process {_MOST_LOST_BY_KERNEL} times"
            return {"status": "failed", "error": told}
        entry, lost = self._answer(point)
        if lost:
            self._note_loss(point, str(entry["error"]))
        else:
            self._lost_in_a_row = 0
        start, end = entry.pop("t_start", None), entry.pop("t_end", None)
        if start is not None and end is not None:
            entry |= self.telemetry.between(start, end)
        return {key: _rounded(value) for key, value in entry.items()}

    def _answer(self, point: Point) -> tuple[Entry, bool]:
        """Return the answer, and whether the process is gone."""
        protocol = self.plan.protocol
        limit_s = protocol.point_limit_s + self.plan.rates.point_s(point, protocol)
        try:
            entry = self.worker.ask(point.request(), limit_s)
        except WorkerGoneError as error:
            return {"status": "failed", "error": str(error)}, True
        except InputError as error:
            told = f"calibrate: no worker starts any more: {error}"
            raise LostMachineError(f"{told}; see {self.journal.path}") from None
        return entry, bool(entry.pop("lost", False))

    def _note_loss(self, point: Point, error: str) -> None:
        """Count a process that a point ended; ask the machine after too many of them."""
        self._lost[point.kernel] += 1
        self._lost_in_a_row += 1
        if self._lost_in_a_row < _MOST_LOST_IN_A_ROW:
            return
        if self.plan.sentinels and self._answer(self.plan.sentinels[0])[0]["status"] == "ok":
            self._lost_in_a_row = 0
            return
        raise LostMachineError(
            f"calibrate: {self._lost_in_a_row} points in a row ended their process, the "
            f"last ({point.name}) {error}; what was measured is in {self.journal.path}"
        )

    def _flags(self, entry: Entry) -> list[str]:
        flags = []
        if _spread(entry) > self.plan.protocol.noisy_ratio:
            flags.append("noisy")
        if len(self._clocks) >= _FEWEST_CLOCKS and "sm_mhz" in entry:
            low = self.plan.protocol.slow_clock_frac * median(self._clocks)
            if entry["sm_mhz"] < low:
                flags.append("slow-clock")
        return flags


def _spread(entry: Mapping[str, Any]) -> float:
    """Return the 90th percentile over the 10th; 1 if there is none."""
    return entry["us_p90"] / entry["us_p10"] if entry.get("us_p10") else 1.0


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
