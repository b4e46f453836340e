"""Samples clock, power and temperature of the GPU beside the measurements, at 20 Hz.

From the parent process: the worker's interpreter is left alone. Nothing is ever set.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from typing import Any

_HZ = 20.0
_MW_PER_W = 1000.0


class Sampler:
    """A thread that samples one GPU; without NVML it has nothing to say."""

    def __init__(self, uuid: str) -> None:
        self._times: list[float] = []
        self._samples: list[tuple[float, float, float]] = []
        self._done = threading.Event()
        self._handle: Any = None
        self.missing: str | None = None
        try:
            self._nvml: Any = importlib.import_module("pynvml")
            self._nvml.nvmlInit()
            self._handle = _find(self._nvml, uuid)
            _sampled(self._nvml, self._handle)  # a part of a GPU may have no power of its own
        except ImportError:
            self.missing = "no pynvml (package nvidia-ml-py)"
        except Exception as error:  # noqa: BLE001 (NVML's errors are made at run time)
            self.missing = f"NVML: {error}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        if self.missing is None:
            self._thread.start()

    def facts(self) -> dict[str, Any]:
        """Return the driver's version and the power limit, where they can be told."""
        facts: dict[str, Any] = {}
        if self._handle is None:
            return facts
        nvml = self._nvml
        with contextlib.suppress(nvml.NVMLError):
            facts["driver"] = _text(nvml.nvmlSystemGetDriverVersion())
        with contextlib.suppress(nvml.NVMLError):
            facts["cuda_driver"] = int(nvml.nvmlSystemGetCudaDriverVersion())
        with contextlib.suppress(nvml.NVMLError):
            limit = nvml.nvmlDeviceGetEnforcedPowerLimit(self._handle)
            facts["power_limit_w"] = round(limit / _MW_PER_W, 1)
        return facts

    def between(self, start: float, end: float) -> Mapping[str, float]:
        """Return the means of the samples from ``start`` to ``end``, in Unix seconds.

        A point that took less than a period has the sample nearest to its end.
        """
        times, samples = self._times[:], self._samples
        if not times:
            return {}
        first, last = bisect_left(times, start), bisect_right(times, end)
        if first >= last:
            first = max(0, last - 1)
            last = first + 1
        chosen = samples[first:last]
        clock, power, heat = (sum(column) / len(chosen) for column in zip(*chosen, strict=True))
        return {"sm_mhz": round(clock, 1), "power_w": round(power, 1), "temp_c": round(heat, 1)}

    def stop(self) -> None:
        """End the thread."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        nvml, handle = self._nvml, self._handle
        while not self._done.wait(1 / _HZ):
            with contextlib.suppress(nvml.NVMLError):
                sample = _sampled(nvml, handle)
                self._samples.append(sample)  # before its time: a reader sees both or neither
                self._times.append(time.time())


def _sampled(nvml: Any, handle: Any) -> tuple[float, float, float]:
    """Return clock in MHz, power in W, temperature in degrees Celsius."""
    return (
        float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
        nvml.nvmlDeviceGetPowerUsage(handle) / _MW_PER_W,
        float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
    )


def _find(nvml: Any, uuid: str) -> Any:
    """Return the GPU that torch uses: by its UUID, else the first."""
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        if uuid and uuid in _text(nvml.nvmlDeviceGetUUID(handle)):
            return handle
    return nvml.nvmlDeviceGetHandleByIndex(0)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
