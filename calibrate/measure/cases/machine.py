"""The machine itself: copies, reads, square products; and what it costs the host to launch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from calibrate.measure.cases.products import product
from calibrate.measure.cases.setting import Request, Setting, refuse
from calibrate.measure.samples import summary
from calibrate.measure.timing import Case

# Launches in a row that are timed as one: fewer than a stream queues up (1,024).
_LAUNCHES, _ROUNDS = 200, 20
_REPLAYS = 20


def ceiling(setting: Setting, request: Request) -> Case:
    """Return a copy, a read (a sum), or a product of two square matrices."""
    what = str(request.keys["what"])
    if what in ("copy", "read"):
        dtype = torch.float32
        values = int(request.keys["bytes"]) // dtype.itemsize
        copies = setting.copies(request)
        sources = setting.arena.views("weights", dtype, (values,), copies)
        if what == "read":
            total = torch.zeros((), dtype=dtype, device=setting.device)
            return Case(lambda copy: torch.sum(sources[copy], dim=0, out=total), copies)
        targets = setting.arena.views("downs", dtype, (values,), copies)
        return Case(lambda copy: targets[copy].copy_(sources[copy]), copies)
    size = int(request.keys["size"])
    heat_s = float(request.how.get("run_s", 0.0))
    return product(
        setting, str(request.how["kernel"]), (size, size, size), setting.copies(request), heat_s
    )


def launch_cost(setting: Setting, request: Request) -> dict[str, Any]:
    """Return the host's microseconds for one eager kernel, or for one replay of a graph.

    The kernel adds one number; a graph's GPU time (``us_gpu``) is then all nodes and gaps.
    """
    nodes = int(request.keys["nodes"])
    number = torch.zeros(1, device=setting.device)
    if setting.device.type == "cpu":
        if nodes:
            refuse("a CPU has no graphs")
        return {**summary(_host_s(lambda: number.add_(1), time.thread_time, _LAUNCHES)), "graph": 0}
    if not nodes:
        times = _host_s(lambda: number.add_(1), time.perf_counter, _LAUNCHES)
        return {**summary(times), "graph": 0}
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        number.add_(1)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin(capture_error_mode="thread_local")
        for _ in range(nodes):
            number.add_(1)
        graph.capture_end()
        graph.replay()
        stream.synchronize()
        host = _host_s(graph.replay, time.perf_counter, 1)
        start, end = _event(), _event()
        start.record()
        for _ in range(_REPLAYS):
            graph.replay()
        end.record()
        end.synchronize()
    us_gpu = start.elapsed_time(end) * 1e3 / _REPLAYS
    return {**summary(host), "graph": 1, "us_gpu": us_gpu}


def _host_s(launch: Callable[[], object], clock: Callable[[], float], times: int) -> list[float]:
    """Return the host's seconds per launch, the device idle at every start."""
    found = []
    for _ in range(_ROUNDS):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = clock()
        for _ in range(times):
            launch()
        found.append((clock() - start) / times)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return found


def _event() -> torch.cuda.Event:
    event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)
    return event
