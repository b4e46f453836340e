"""The datasheet of a measured device; of a CPU rates that nothing reaches."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from calibrate.device_names import CPU
from simserve.inputs.hardware_profile import EFFICIENCY_KEYS, GpuSpec, load_gpu
from simserve.inputs.sourced import Sourced


def spec_of(gpu: str) -> GpuSpec:
    """Return the datasheet of ``gpu``, or one CPU thread as a device.

    Raises:
        InputError: if there is none.
    """
    return _ONE_THREAD if gpu == CPU else load_gpu(gpu, "device.gpu", "")


def _one_thread() -> GpuSpec:
    """Return a device whose rates are so high that they never bound a measured row."""
    source = "above what one thread of any CPU reaches"
    efficiency: Mapping[str, Sourced] = MappingProxyType(
        {
            name: Sourced(0.0 if name.endswith("_s") else 1.0, "assumed", source, "2026-11-20")
            for name in EFFICIENCY_KEYS
        }
    )
    return GpuSpec(
        name=CPU,
        family=CPU,
        memory_bytes=1 << 34,
        cuda_reserved_bytes=0,
        hbm_bytes_per_s=1e12,
        flops_per_s=MappingProxyType({"bf16": 1e13}),
        link_bytes_per_s=0.0,
        link_domain=1,
        compute_capability=None,
        efficiency=efficiency,
        sources=efficiency,
    )


_ONE_THREAD = _one_thread()
