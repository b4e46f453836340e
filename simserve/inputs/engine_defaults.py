"""What an engine does when a flag is not given, as dated data per engine version."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from simserve.errors import InputError
from simserve.inputs.data_files import CATALOGUE, find_name
from simserve.inputs.hardware_profile import GpuSpec
from simserve.inputs.sourced import (
    Provenance,
    Sourced,
    read_provenance,
    read_sourced,
    refuse_unknown_keys,
)
from simserve.inputs.units import BYTE_UNITS, parse_quantity
from simserve.inputs.yaml_reader import read_yaml

# Spelling → file in catalogue/engines.
_ENGINES = {"vllm": "vllm-0.33", "vllm-0.33": "vllm-0.33", "vllm-0.33.0": "vllm-0.33"}
_MEMORY_KEYS = (
    "sampler_bytes_per_logit",
    "sampler_state_bytes_per_logit",
    "context",
    "cuda_graph_pool",
    "nccl_buffers",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRow:
    """The defaults of devices with at least ``min_memory_bytes``, some families excepted."""

    min_memory_bytes: int
    except_families: tuple[str, ...]
    max_num_batched_tokens: int
    max_num_seqs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineDefaults:
    """The defaults of one engine version; ``memory`` is what it takes before the KV pool.

    ``earlier_memory`` has the same of earlier versions, whose block counts are on record.
    ``other_hardware`` says what serves devices that the engine itself does not run on, by how
    their families begin.
    """

    name: str
    version: str
    provenance: Provenance
    values: Mapping[str, Any]
    device_rows: tuple[DeviceRow, ...]
    memory: Mapping[str, Sourced]
    earlier_memory: Mapping[str, Mapping[str, Sourced]]
    other_hardware: Mapping[str, str]

    def with_memory_of(self, version: str) -> EngineDefaults:
        """Return these defaults with the memory that an earlier ``version`` took."""
        return replace(self, version=version, memory=self.earlier_memory[version])

    def source(self) -> str:
        """Return the phrase that stands beside a value taken from here."""
        return f"default of {self.name} {self.version}"

    def other_stack(self, gpu: str) -> str | None:
        """Return how the family of ``gpu`` begins if other software serves it, else None."""
        return next((stack for stack in self.other_hardware if gpu.startswith(stack)), None)

    def remark_on(self, gpu: str) -> str | None:
        """Return what has to be said of the engine on ``gpu``; None if it runs there."""
        stack = self.other_stack(gpu)
        if stack is None:
            return None
        served_by = self.other_hardware[stack]
        return (
            f"{self.name} {self.version} itself does not run on {gpu}: {served_by} does, whose "
            "defaults, memory and kernels may differ from what is simulated here"
        )

    def row_for(self, gpu: GpuSpec) -> DeviceRow:
        """Return the row of the memory class that ``gpu`` is in."""
        return next(
            row
            for row in self.device_rows
            if gpu.memory_bytes >= row.min_memory_bytes and gpu.family not in row.except_families
        )


def load_engine(
    name: str = "vllm", where: str = "--engine", which: str = "engine"
) -> EngineDefaults:
    """Return the defaults of the engine ``name`` (``vllm`` or ``vllm-0.33``).

    Raises:
        InputError: if there is none, naming the nearest.
    """
    return _read_engine(find_name(name, _ENGINES, where, which))


@functools.cache
def _read_engine(file_name: str) -> EngineDefaults:
    path = CATALOGUE / "engines" / f"{file_name}.yaml"
    return read_engine(read_yaml(path), str(path))


def read_engine(entry: Mapping[str, Any], where: str) -> EngineDefaults:
    """Return the defaults that a catalogue file's mapping states; refuse unsourced ones."""
    known = ("name", "version", "kind", "source", "date", "defaults", "by_device_memory", "memory")
    refuse_unknown_keys(entry, (*known, "earlier_memory", "other_hardware"), where)
    for key in known:
        if key not in entry:
            raise InputError(where, key, "nothing", "a value for this key")
    return EngineDefaults(
        name=entry["name"],
        version=entry["version"],
        provenance=read_provenance(entry, where, ""),
        values=entry["defaults"],
        device_rows=tuple(_device_row(row) for row in entry["by_device_memory"]),
        memory=_memory(entry["memory"], where, "memory"),
        earlier_memory={
            version: _memory(memory, where, f"earlier_memory.{version}")
            for version, memory in entry.get("earlier_memory", {}).items()
        },
        other_hardware=_other_hardware(entry.get("other_hardware"), where),
    )


def _other_hardware(section: Mapping[str, Any] | None, where: str) -> Mapping[str, str]:
    if section is None:
        return {}
    refuse_unknown_keys(section, ("kind", "source", "date", "served_by"), where, "other_hardware")
    read_provenance(section, where, "other_hardware")
    return dict(section["served_by"])


def _memory(section: Mapping[str, Any], where: str, which: str) -> dict[str, Sourced]:
    refuse_unknown_keys(section, _MEMORY_KEYS, where, which)
    return {
        key: read_sourced(section.get(key), where, f"{which}.{key}", _size) for key in _MEMORY_KEYS
    }


def _device_row(row: Mapping[str, Any]) -> DeviceRow:
    return DeviceRow(
        min_memory_bytes=round(_size(row["min_memory"])),
        except_families=tuple(row.get("except_families", ())),
        max_num_batched_tokens=row["max_num_batched_tokens"],
        max_num_seqs=row["max_num_seqs"],
    )


def _size(value: object) -> float:
    allowed = "a size of at least 0, such as 160GiB"
    size = parse_quantity(value, BYTE_UNITS, allowed)
    if size < 0:
        raise ValueError(allowed)
    return size
