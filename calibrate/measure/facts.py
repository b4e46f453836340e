"""What a row is worth nothing without: the device, the software, the kernels' fingerprints."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import re
import shutil
import subprocess
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from calibrate.kernels import registry


def device_facts(device: torch.device) -> dict[str, Any]:
    """Return name, size and identity of a device; its serial number only as a hash."""
    if device.type != "cuda":
        return {"type": "cpu", "name": _cpu_name(), "sms": None, "uuid_hash": _hash(_cpu_name())}
    found = torch.cuda.get_device_properties(device)
    uuid = str(getattr(found, "uuid", ""))
    return {
        "type": "cuda",
        "name": found.name,
        "uuid": uuid,  # for NVML in the parent process; only its hash is written
        "uuid_hash": _hash(uuid or found.name),
        "sms": found.multi_processor_count,
        "l2_bytes": found.L2_cache_size,
        "mem_bytes": found.total_memory,
        "capability": f"{found.major}.{found.minor}",
        "clocks_locked": False,
    }


def software_facts(device: torch.device) -> dict[str, Any]:
    """Return the versions of everything between the harness and the device."""
    facts: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__}
    with contextlib.suppress(metadata.PackageNotFoundError):
        facts["triton"] = metadata.version("triton")
    if device.type == "cuda":
        facts["cuda"] = torch.version.cuda
        facts["cudnn"] = torch.backends.cudnn.version()
        nvcc = _nvcc_version()
        if nvcc:
            facts["nvcc"] = nvcc
        facts["kernels"] = _libraries()
    return facts


def kernel_names(device: torch.device, without: Collection[str] = ()) -> dict[str, dict[str, str]]:
    """Return, by kind, every kernel of the device: nothing if it is there, else what it lacks.

    ``without`` names kernels as family/name that are left out.
    """
    found = {}
    for kind in ("ATTENTION", "MLA", "GEMM", "MOE", "OPS"):
        table = getattr(registry, kind)
        left_out = [name for name in table if f"{kind.lower()}/{name}" in without]
        listed = registry.survey(table, device, left_out)
        found[kind] = {one.name: one.missing or "" for one in listed}
    return found


def _libraries() -> list[dict[str, str]]:
    """Return the compiled kernels of others that are here: file, source, SHA-256."""
    from calibrate.kernels import libraries

    found = []
    for library in (libraries.FLASH_ATTENTION_3, libraries.FLASH_MLA):
        path = library.path()
        if path is not None:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found.append({"name": library.file, "sha256": digest, "source": "vLLM's wheel"})
    return found


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or "cpu"


def _nvcc_version() -> str | None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return None
    try:
        told = subprocess.run(
            [nvcc, "--version"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"release ([\d.]+)", told.stdout)
    return found[1] if found else None
