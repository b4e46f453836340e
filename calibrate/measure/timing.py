"""Times a case: one path for every device, with the clock that the device has.

On a CPU that clock is the thread's CPU time, which other processes hardly disturb; on a GPU
events around replays of a captured graph.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice, pairwise
from typing import Any, Protocol

import torch

from calibrate.measure import protocol as rules
from calibrate.measure.samples import summary

Replay = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Case:
    """One kernel at one size: ``launch(i)`` works on copy ``i`` of its buffers.

    ``graph``: it is captured where that is possible; whole eager steps are not. ``heat_s``:
    seconds that it runs before it is timed.
    """

    launch: Callable[[int], object]
    copies: int = 1
    graph: bool = True
    heat_s: float = 0.0


class Clock(Protocol):
    """How calls are put together to a replay, and how replays are timed.

    ``broken``: nothing more can be measured in this process.
    """

    captures: bool
    broken: bool

    def recorded(self, case: Case, calls: int) -> Replay:
        """Return what makes ``calls`` calls of ``case``, going round its copies."""
        ...

    def seconds(self, replay: Replay, times: int) -> list[float]:
        """Return the seconds of each of some replays in a row."""
        ...

    def settled(self) -> None:
        """Wait until everything that was launched is done."""
        ...

    def running(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which everything is launched."""
        ...

    def clear(self) -> None:
        """Give back the memory that replays left behind."""
        ...


def measured(case: Case, clock: Clock, protocol: rules.Protocol) -> dict[str, Any]:
    """Return the columns of ``case``: times, and how it was measured."""
    with clock.running():
        for call in range(protocol.warm_ups):
            case.launch(call % case.copies)
        clock.settled()
        calls = case.copies if clock.captures else 1
        replay = clock.recorded(case, calls)
        replay()
        call_s = clock.seconds(replay, 1)[0] / calls
        if protocol.calls(call_s, case.copies) > calls:
            calls = protocol.calls(call_s, case.copies)
            replay = clock.recorded(case, calls)
        _heat(case, clock, replay, call_s * calls)
        for _ in range(protocol.warm_ups):
            replay()
        times = clock.seconds(replay, protocol.replays_of(call_s * calls))
        clock.settled()
    return {
        **summary([one / calls for one in times]),
        "copies": case.copies,
        "calls": calls,
        "graph": int(clock.captures and case.graph),
    }


def _heat(case: Case, clock: Clock, replay: Replay, replay_s: float) -> None:
    done_s = 0.0
    while done_s < case.heat_s:
        done_s += sum(clock.seconds(replay, max(1, int(0.1 / replay_s))))


class ThreadClock:
    """CPU seconds of this thread: torch must run in it alone (``torch.set_num_threads(1)``)."""

    captures = False
    broken = False

    def recorded(self, case: Case, calls: int) -> Replay:
        """Return a loop over the calls."""
        return _loop(case, calls)

    def seconds(self, replay: Replay, times: int) -> list[float]:
        """Return CPU seconds."""
        found = []
        for _ in range(times):
            start = time.thread_time()
            replay()
            found.append(time.thread_time() - start)
        return found

    def settled(self) -> None:
        """Nothing is ever under way."""

    def running(self) -> contextlib.AbstractContextManager[Any]:
        """No gradients."""
        no_gradients: contextlib.AbstractContextManager[Any] = torch.inference_mode()
        return no_gradients

    def clear(self) -> None:
        """Nothing is left behind."""


class CudaClock:
    """Events around replays, which are queued behind one another: the host is never waited for.

    One stream of its own for everything: libraries keep a workspace per stream, and what they
    allocate for it in the warm-up is there when the graph is captured. And one pool of memory
    for what kernels allocate in a capture: with a pool each, thousands of graphs would fill the
    GPU, as memory of dead graphs is not given back while another one is captured.
    """

    captures = True

    def __init__(self) -> None:
        self.broken = False
        self._stream = torch.cuda.Stream()
        self._events: list[torch.cuda.Event] = []
        self._pool: Any = None
        self._keeper: Any = None  # a graph without nodes: a pool ends with its last graph

    def recorded(self, case: Case, calls: int) -> Replay:
        """Capture the calls; a case that is not to be captured is launched anew every time."""
        if not case.graph:
            return _loop(case, calls)
        if self._keeper is None:
            self._pool = torch.cuda.graph_pool_handle()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it is empty
                self._keeper = self._captured(lambda: None)
        replay: Replay = self._captured(_loop(case, calls)).replay
        return replay

    def _captured(self, launch: Callable[[], object]) -> torch.cuda.CUDAGraph:
        """Return the graph of what ``launch`` launches.

        Not by torch.cuda.graph: it empties the allocator's cache, which takes milliseconds.
        """
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
        try:
            launch()
        except BaseException:
            with contextlib.suppress(RuntimeError):
                self._end(graph)
            raise
        self._end(graph)
        return graph

    def _end(self, graph: torch.cuda.CUDAGraph) -> None:
        """End a capture. Where CUDA calls it invalid, torch's allocator still waits for its end."""
        try:
            graph.capture_end()
        except RuntimeError:
            self.broken = True
            raise

    def seconds(self, replay: Replay, times: int) -> list[float]:
        """Return GPU seconds between the events before and after each replay."""
        while len(self._events) <= times:
            event = torch.cuda.Event(enable_timing=True)
            self._events.append(event)
        events = self._events[: times + 1]
        events[0].record()
        for event in events[1:]:
            replay()
            event.record()
        events[-1].synchronize()
        return [before.elapsed_time(after) * 1e-3 for before, after in pairwise(events)]

    def settled(self) -> None:
        """Wait for the stream."""
        self._stream.synchronize()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Use the stream, without gradients."""
        self._stream.wait_stream(torch.cuda.default_stream())
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            yield

    def clear(self) -> None:
        """Let the pool go; the next capture begins another."""
        self._keeper = None


def _loop(case: Case, calls: int) -> Replay:
    """Return a loop of calls that goes on with the next copy each time."""
    launch, copies = case.launch, cycle(range(case.copies))

    def replay() -> None:
        for copy in islice(copies, calls):
            launch(copy)

    return replay
