"""Which datasheet belongs to a device: the name that CUDA gives, to that in hardware_profiles/."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simserve.errors import InputError
from simserve.inputs.hardware_profile import load_gpu

CPU = "cpu"
"""The ``device.gpu`` of a profile that was measured on a CPU: no deployment has it."""

# As nvidia-smi prints them (2026-11-20).
_NAMES = {
    "NVIDIA H200": "h200-sxm",
    "NVIDIA H100 80GB HBM3": "h100-sxm",
    "NVIDIA H100 PCIe": "h100-pcie",
    "NVIDIA H100 NVL": "h100-nvl",
    "NVIDIA B200": "b200-sxm",
    "NVIDIA A100-SXM4-80GB": "a100-80gb-sxm",
    "NVIDIA A100-SXM4-40GB": "a100-40gb-sxm",
    "NVIDIA A100 80GB PCIe": "a100-80gb-pcie",
    "NVIDIA A100-PCIE-40GB": "a100-40gb-pcie",
    "NVIDIA L4": "l4",
    "NVIDIA L40S": "l40s",
    "NVIDIA A10": "a10",
    "NVIDIA A10G": "a10g",
    "NVIDIA GeForce RTX 4090": "rtx-4090",
    "NVIDIA GeForce RTX 5090": "rtx-5090",
    "Tesla T4": "t4",
}


def gpu_of(device: Mapping[str, Any], given: str | None = None) -> str:
    """Return the datasheet's name of a measured device, or the one that was ``given``.

    Raises:
        InputError: if neither is known.
    """
    if device["type"] == CPU:
        return CPU
    if given:
        return load_gpu(given, "--gpu", "").name
    name = str(device["name"])
    if name not in _NAMES:
        allowed = "--gpu NAME, the datasheet that it has; see 'simserve list gpus'"
        raise InputError("calibrate", "device", name, allowed)
    return _NAMES[name]
