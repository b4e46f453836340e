"""Clock, power and temperature beside the measurements, from a driver that a test makes up."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace

import pytest

from calibrate.measure.nvml import Sampler


class NVMLError(Exception):
    """What a driver says no with."""


def driver(*, power: bool = True) -> SimpleNamespace:
    """A machine of two GPUs; parts of GPUs may have no power of their own."""

    def watts(handle: int) -> int:
        if not power:
            raise NVMLError("Not Supported")
        return 100_000 + 1000 * handle

    return SimpleNamespace(
        NVMLError=NVMLError,
        NVML_CLOCK_SM=1,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUUID=lambda handle: f"GPU-{handle}-of-two",
        nvmlDeviceGetClockInfo=lambda handle, _: 1980 + handle,
        nvmlDeviceGetPowerUsage=watts,
        nvmlDeviceGetTemperature=lambda handle, _: 40 + handle,
        nvmlDeviceGetEnforcedPowerLimit=lambda _: 700_000,
        nvmlSystemGetDriverVersion=lambda: b"580.159",
        nvmlSystemGetCudaDriverVersion=lambda: 13_000,
    )


def test_samples_are_of_the_gpu_that_torch_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver())
    sampler = Sampler("1-of-two")
    try:
        while not sampler.between(0.0, time.time()):
            time.sleep(0.01)
        told = sampler.between(0.0, time.time())
    finally:
        sampler.stop()
    assert (told["sm_mhz"], told["power_w"], told["temp_c"]) == (1981.0, 101.0, 41.0)
    assert sampler.facts() == {"driver": "580.159", "cuda_driver": 13_000, "power_limit_w": 700.0}
    assert sampler.missing is None


def test_a_device_that_tells_no_power_is_said_to_have_no_telemetry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver(power=False))
    sampler = Sampler("1-of-two")
    sampler.stop()
    assert sampler.missing == "NVML: Not Supported"
    assert sampler.between(0.0, 1.0) == {}
    assert sampler.facts()["driver"] == "580.159"


def test_without_the_package_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    sampler = Sampler("any")
    sampler.stop()
    assert sampler.missing == "no pynvml (package nvidia-ml-py)"


def test_every_name_that_is_asked_for_is_in_the_package() -> None:
    real = pytest.importorskip("pynvml")
    assert [name for name in vars(driver()) if not hasattr(real, name)] == []
