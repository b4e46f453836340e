"""What a case is built from: the device, its buffers, and kernels by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from calibrate.kernels import registry
from calibrate.measure.arena import Arena
from calibrate.measure.protocol import Protocol

DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8": torch.float8_e4m3fn,
}
# Weights that a kernel keeps in its own format are kept up to this share of the memory.
_PACKED_FRAC = 0.3


class RefusedError(Exception):
    """A kernel that cannot serve the point, or is not there; nothing is wrong with the machine."""


@dataclass(frozen=True, slots=True)
class Request:
    """A point, as the worker was asked for it."""

    table: str
    keys: Mapping[str, Any]
    how: Mapping[str, Any]
    cold_bytes: float


@dataclass(slots=True)
class Setting:
    """One device in one process."""

    device: torch.device
    protocol: Protocol
    arena: Arena
    kernels: dict[tuple[str, str], Any] = field(default_factory=dict)
    refused: dict[tuple[str, str], str] = field(default_factory=dict)
    packed: dict[tuple[Any, ...], tuple[list[Any], float]] = field(default_factory=dict)
    held: dict[str, Any] = field(default_factory=dict)

    def kernel(self, kind: str, name: str) -> Any:
        """Return the kernel ``name`` of ``registry``'s table ``kind``, made once.

        Raises:
            RefusedError: if it is unknown, not for this device, or missing.
        """
        known = self.kernels.get((kind, name))
        if known is not None:
            return known
        if (kind, name) in self.refused:
            raise RefusedError(self.refused[kind, name])
        try:
            made = self._made(kind, name)
        except RefusedError as error:
            self.refused[kind, name] = str(error)
            raise
        self.kernels[kind, name] = made
        return made

    def _made(self, kind: str, name: str) -> Any:
        table: Mapping[str, registry.Entry[Any]] = getattr(registry, kind)
        entry = table.get(name)
        if entry is None or self.device.type not in entry.devices:
            raise RefusedError(f"no {kind.lower()} kernel {name} for {self.device.type}")
        try:
            made = entry()
        except (ImportError, AttributeError, OSError) as error:
            raise RefusedError(f"{name} is not installed: {error}") from error
        reason = made.missing()
        if reason:
            raise RefusedError(f"{name}: {reason}")
        return made

    def copies(self, request: Request) -> int:
        """Return how many buffers a point rotates through."""
        return self.protocol.copies(request.cold_bytes)

    def keep_packed(self, key: tuple[Any, ...], made: list[Any], size: float) -> None:
        """Keep weights in a kernel's own format for the points of the same shape."""
        room = _PACKED_FRAC * memory_bytes(self.device)
        self.packed[key] = made, size
        while len(self.packed) > 1 and sum(one for _, one in self.packed.values()) > room:
            self.packed.pop(next(iter(self.packed)))  # the oldest

    def clear(self) -> None:
        """Give back all memory that can be made again."""
        self.arena.clear()
        self.packed.clear()
        self.held.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def memory_bytes(device: torch.device) -> float:
    """Return the memory of a device; a CPU counts as having 8 GB to spare."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return 8e9


def refuse(reason: str | None) -> None:
    """Raise if a kernel gave a reason not to serve a call."""
    if reason:
        raise RefusedError(reason)
