"""Compile what a launch would, for an H200 and without one, and read the binary's needs.

The very calls of the harness are made, with tensors in the memory of the host; instead of being
launched, each Triton kernel is compiled as its arguments ask.
"""

# mypy: disable-error-code="import-untyped"
from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

SHARED_BYTES_OF_A_BLOCK = 227 * 1024  # CUDA programming guide, compute capability 9.0
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True, slots=True)
class Compiled:
    name: str
    registers: int
    stack_bytes: int  # spills lie here
    local_bytes: int
    shared_bytes: int
    warps: int
    cubin: bytes

    def sass(self) -> str:
        """Return the machine code as text."""
        return read_with("nvdisasm", [], self.cubin)


class AbsentH200:
    """What Triton asks of a driver before it compiles."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return device

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


def read_with(tool: str, options: list[str], cubin: bytes) -> str:
    """Return what one of the CUDA tools that come with Triton says of a binary."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(TOOLS / tool), *options, file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout


def needs_of(kernel: Any) -> Compiled:
    cubin: bytes = kernel.asm["cubin"]
    usage = read_with("cuobjdump", ["--dump-resource-usage"], cubin)
    used = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", usage)}
    data = kernel.metadata
    return Compiled(
        data.name, used["REG"], used["STACK"], used["LOCAL"], data.shared, data.num_warps, cubin
    )


@contextmanager
def launches_compiled() -> Iterator[list[Compiled]]:
    """Within, collect what each launch would run; nothing is launched."""
    collected: list[Compiled] = []
    run, active = JITFunction.run, driver._active

    def compile_only(self: Any, *args: Any, warmup: bool = False, **kwargs: Any) -> None:
        collected.append(needs_of(run(self, *args, warmup=True, **kwargs)))

    driver.set_active(AbsentH200())
    JITFunction.run = compile_only
    try:
        yield collected
    finally:
        JITFunction.run = run
        driver._active = active
