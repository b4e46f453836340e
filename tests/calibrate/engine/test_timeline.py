"""The clock of a CPU replay: device time beside host time, idle time jumped over."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("torch")

from calibrate.engine.timeline import CpuTimeline
from simserve.records.clock import PS_PER_MS


class Thread:
    """Thread CPU time that only passes when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ns = 5_000_000
        monkeypatch.setattr(time, "thread_time_ns", lambda: self.ns)

    def work(self, ms: int) -> None:
        self.ns += ms * 1_000_000


@pytest.fixture
def thread(monkeypatch: pytest.MonkeyPatch) -> Thread:
    return Thread(monkeypatch)


def test_host_work_passes_and_device_work_only_when_waited_for(thread: Thread) -> None:
    clock = CpuTimeline()
    thread.work(3)
    assert clock.now_ps() == 3 * PS_PER_MS
    ticket = clock.launch(lambda: thread.work(20), lambda: None)
    assert clock.now_ps() == 3 * PS_PER_MS
    clock.wait(ticket)
    assert clock.now_ps() == 23 * PS_PER_MS
    assert ticket.device_s == pytest.approx(0.020)


@pytest.mark.parametrize(("host_ms", "ends_ms"), [(5, 20), (35, 35)])
def test_host_work_hides_behind_the_device_and_the_other_way_round(
    thread: Thread, host_ms: int, ends_ms: int
) -> None:
    clock = CpuTimeline()
    ticket = clock.launch(lambda: thread.work(20), lambda: None)
    thread.work(host_ms)
    clock.wait(ticket)
    assert clock.now_ps() == ends_ms * PS_PER_MS


def test_work_of_one_stream_runs_in_order(thread: Thread) -> None:
    clock = CpuTimeline()
    first = clock.launch(lambda: thread.work(20), lambda: None)
    thread.work(1)
    second = clock.launch(lambda: thread.work(7), lambda: None)
    clock.wait(first)
    assert clock.now_ps() == 20 * PS_PER_MS
    clock.wait(second)
    assert clock.now_ps() == 27 * PS_PER_MS


def test_idle_time_is_jumped_over_but_never_back(thread: Thread) -> None:
    clock = CpuTimeline()
    clock.idle_until(50 * PS_PER_MS)
    assert clock.now_ps() == 50 * PS_PER_MS
    thread.work(4)
    clock.idle_until(52 * PS_PER_MS)
    assert clock.now_ps() == 54 * PS_PER_MS
