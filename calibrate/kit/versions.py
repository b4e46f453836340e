"""``python -m calibrate.kit.versions``: what this host has, one fact a line."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator

_PACKAGES = (
    *("torch", "triton", "numpy", "pandas", "pyarrow"),
    *("pydantic", "typer", "simpy", "flashinfer-python"),
)


def facts() -> Iterator[str]:
    """Yield the versions of Python, packages, compiler and GPU; what is missing is said too."""
    yield f"python {platform.python_version()} on {platform.machine()}, {platform.system()}"
    for name in _PACKAGES:
        try:
            yield f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            yield f"{name}: not installed"
    yield f"nvcc: {_last_line_of('nvcc', '--version')}"
    query = "--query-gpu=name,driver_version,memory.total,power.limit,clocks.max.sm"
    yield f"GPU: {_last_line_of('nvidia-smi', query, '--format=csv,noheader')}"
    yield from _torch_facts()


def _torch_facts() -> Iterator[str]:
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as error:
        yield f"torch cannot be imported: {error}"
        return
    yield f"torch {torch.__version__}, CUDA {torch.version.cuda}, sees {_gpu(torch)}"
    from calibrate.kernels import registry

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for table in ("ATTENTION", "MLA"):
        for listed in registry.survey(getattr(registry, table), device):
            yield f"{table.lower()} {listed.name}: {listed.missing or 'ready'}"


def _gpu(torch: object) -> str:
    cuda = torch.cuda  # type: ignore[attr-defined]
    if not cuda.is_available():
        return "no GPU"
    facts = cuda.get_device_properties(0)
    return f"{facts.name}, {facts.multi_processor_count} SMs, {facts.L2_cache_size} B of L2"


def _last_line_of(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return "not installed"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"


if __name__ == "__main__":
    for line in facts():
        sys.stdout.write(f"{line}\n")
