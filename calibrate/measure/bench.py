"""Measures points on one device with torch: the heart of the worker process."""

from __future__ import annotations

import gc
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch

from calibrate.measure.arena import Arena
from calibrate.measure.cases import attention, machine, products, small, steps
from calibrate.measure.cases.setting import RefusedError, Request, Setting
from calibrate.measure.facts import device_facts, kernel_names, software_facts
from calibrate.measure.protocol import Protocol
from calibrate.measure.timing import Clock, CudaClock, ThreadClock, measured
from calibrate.plans.point import CEILING, LAUNCH

_CASES = {
    "gemm": products.gemm,
    "moe": products.moe,
    "attn_decode": attention.attention,
    "attn_prefill": attention.attention,
    "attn_mixed": attention.attention,
    "mla": attention.latent,
    "pointwise": small.pointwise,
    "step": steps.step,
    CEILING: machine.ceiling,
}
# MKL and oneDNN choose their kernels in the first calls of a process.
_WARM_CUBE, _WARM_CALLS = 256, 20
_COLLECT_EVERY = 50


class TorchBench:
    """One device, one clock; ``measure`` answers one point after the other."""

    def __init__(
        self, device: str, protocol: Protocol, seed: int, without: Collection[str] = ()
    ) -> None:
        self._device, self._without = torch.device(device), without
        self._clock: Clock
        if self._device.type == "cuda":
            cache = float(torch.cuda.get_device_properties(0).L2_cache_size)
            protocol = replace(protocol, cache_bytes=cache)
            self._clock = CudaClock()
        else:
            torch.set_num_threads(1)
            self._clock = ThreadClock()
        self._protocol = protocol
        self._setting = Setting(self._device, protocol, Arena(self._device, seed))
        self._points = 0
        square = torch.randn(_WARM_CUBE, _WARM_CUBE, device=self._device)
        for _ in range(_WARM_CALLS):
            square @ square

    def facts(self) -> dict[str, Any]:
        """Return the device, the software, and the kernels that there are."""
        return {
            "device": device_facts(self._device),
            "software": software_facts(self._device),
            "kernels": kernel_names(self._device, self._without),
        }

    def measure(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns of a point, or ``status`` and ``error`` if there are none.

        All of it without gradients: what one capture allocates for random numbers the next one
        writes to, and torch forbids to write outside of this mode to what was made in it.
        """
        request = Request(asked["table"], asked["keys"], asked["how"], asked["cold_bytes"])
        self._points += 1
        if self._points % _COLLECT_EVERY == 0:
            gc.collect()
        with torch.inference_mode():
            return self._answer(request)

    def _answer(self, request: Request) -> dict[str, Any]:
        for alone in (False, True):
            if alone:  # the points before it held the memory
                self._clear()
            try:
                return self._timed(request)
            except RefusedError as error:
                return {"status": "refused", "error": str(error)}
            except torch.OutOfMemoryError as error:
                reason = str(error).splitlines()[0]
        self._clear()
        return {"status": "failed", "error": f"out of memory: {reason}"}

    def _clear(self) -> None:
        """Give back all memory; graphs first, as the caches are emptied at the end."""
        self._clock.clear()
        gc.collect()
        self._setting.clear()

    def healthy(self) -> bool:
        """Return whether the device still works: some errors of a kernel end its context."""
        if self._clock.broken:
            return False
        if self._device.type != "cuda":
            return True
        try:
            torch.cuda.synchronize()
        except RuntimeError:
            return False
        return True

    def _timed(self, request: Request) -> dict[str, Any]:
        start, start_unix = time.perf_counter(), time.time()
        if request.table == LAUNCH:
            columns = machine.launch_cost(self._setting, request)
        else:
            columns = measured(
                _CASES[request.table](self._setting, request), self._clock, self._protocol
            )
        took_s = time.perf_counter() - start
        timed_s = columns["us_mean"] * 1e-6 * columns["n"] * columns.get("calls", 1)
        return {
            "status": "ok",
            **columns,
            "setup_s": max(0.0, took_s - timed_s),
            "t_start": start_unix,
            "t_end": time.time(),
        }


def open_bench(config: Mapping[str, Any]) -> TorchBench:
    """Return the bench that a worker's configuration describes; from now on it collects garbage."""
    protocol = Protocol(**config["protocol"])
    bench = TorchBench(config["device"], protocol, int(config["seed"]), config["without"])
    gc.disable()  # a collection in the middle of a replay is a spike
    gc.freeze()
    return bench
