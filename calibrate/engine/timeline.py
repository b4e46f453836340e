"""The clock of a replay: real time on a GPU, thread CPU time of the work alone on a CPU.

On a GPU the host's clock is the wall's, and device time is between two events. On a CPU there
is one thread; what it computes for the model counts as the device's time, everything else as
the host's. The two are laid side by side as a host and a stream would run: work starts when
it is launched and the stream is free, and who waits for it waits until it is done. Idle time
is jumped over. So other load on the machine changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from simserve.records.clock import PS_PER_NS

_PS_PER_MS = 1_000_000_000
# Sleeping wakes up late by up to this much on a busy Linux host; the rest is spun.
_SPIN_PS = 2 * _PS_PER_MS
_S_PER_MS = 1e-3
_S_PER_NS = 1e-9


@dataclass(slots=True)
class Ticket:
    """Work given to the device: wait for it, then ask how long it took."""

    start: Any = None  # a CUDA event, or nothing
    end: Any = None
    copied: Any = None
    done_ps: int = 0
    device_s: float = 0.0


class Timeline(Protocol):
    """A host clock, and a stream of device work beside it."""

    def now_ps(self) -> int:
        """Return the host's time since the replay began."""
        ...

    def idle_until(self, time_ps: int) -> None:
        """Let time pass, if it has not, until ``time_ps``."""
        ...

    def launch(self, work: Callable[[], object], copy_out: Callable[[], object]) -> Ticket:
        """Give ``work`` and the copy of its result to the device, in order."""
        ...

    def wait(self, ticket: Ticket) -> None:
        """Wait until the result is there; fills in ``device_s``."""
        ...


class CpuTimeline:
    """Thread CPU time, with the device's share laid beside the host's."""

    def __init__(self) -> None:
        self._offset_ns = -time.thread_time_ns()
        self._stream_free_ps = 0

    def now_ps(self) -> int:
        """Return the host's time since the replay began."""
        return (time.thread_time_ns() + self._offset_ns) * PS_PER_NS

    def idle_until(self, time_ps: int) -> None:
        """Jump over idle time."""
        ahead_ns = -(-(time_ps - self.now_ps()) // PS_PER_NS)
        if ahead_ns > 0:
            self._offset_ns += ahead_ns

    def launch(self, work: Callable[[], object], copy_out: Callable[[], object]) -> Ticket:
        """Compute now, and let it count as done when a stream would have it done."""
        start_ns = time.thread_time_ns()
        begin_ps = max(self._stream_free_ps, (start_ns + self._offset_ns) * PS_PER_NS)
        work()
        copy_out()
        spent_ns = time.thread_time_ns() - start_ns
        self._offset_ns -= spent_ns
        self._stream_free_ps = begin_ps + spent_ns * PS_PER_NS
        return Ticket(done_ps=self._stream_free_ps, device_s=spent_ns * _S_PER_NS)

    def wait(self, ticket: Ticket) -> None:
        """Wait until the stream would be done."""
        self.idle_until(ticket.done_ps)


class CudaTimeline:
    """The wall clock, and events on the current stream."""

    def __init__(self) -> None:
        torch.cuda.synchronize()
        self._origin_ns = time.perf_counter_ns()

    def now_ps(self) -> int:
        """Return the host's time since the replay began."""
        return (time.perf_counter_ns() - self._origin_ns) * PS_PER_NS

    def idle_until(self, time_ps: int) -> None:
        """Sleep through most of a pause, and spin at its end."""
        while (ahead_ps := time_ps - self.now_ps()) > 0:
            if ahead_ps > _SPIN_PS:
                time.sleep((ahead_ps - _SPIN_PS) / PS_PER_NS * _S_PER_NS)

    def launch(self, work: Callable[[], object], copy_out: Callable[[], object]) -> Ticket:
        """Enqueue the work between two events, then the copy and a third."""
        start, end, copied = (
            torch.cuda.Event(enable_timing=timed) for timed in (True, True, False)
        )
        ticket = Ticket(start, end, copied)
        ticket.start.record()
        work()
        ticket.end.record()
        copy_out()
        ticket.copied.record()
        return ticket

    def wait(self, ticket: Ticket) -> None:
        """Wait for the copy; both events before it have happened by then."""
        ticket.copied.synchronize()
        ticket.device_s = ticket.start.elapsed_time(ticket.end) * _S_PER_MS


def timeline_for(device: torch.device) -> Timeline:
    """Return a clock that starts now, for work on ``device``."""
    return CudaTimeline() if device.type == "cuda" else CpuTimeline()
