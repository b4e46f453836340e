"""An accelerator: what the datasheet promises, and which share of it kernels reach.

One folder per part stands in ``hardware_profiles/``; every number in its ``device.yaml`` has
a kind, a source and a date.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple

from simserve.errors import InputError, unknown_name
from simserve.inputs.data_files import data_dir, find_name, normal_name
from simserve.inputs.sourced import Sourced, read_sourced, refuse_unknown_keys
from simserve.inputs.units import (
    BYTE_RATE_UNITS,
    BYTE_UNITS,
    FLOP_UNITS,
    SECOND_UNITS,
    parse_quantity,
)
from simserve.inputs.yaml_reader import read_yaml

_FILE = "device.yaml"
# ``unstated`` is a rate whose precision the vendor does not say: no step is priced from it.
DTYPES = ("bf16", "fp16", "fp8", "int8", "fp4", "unstated")

# Key in the file → key in ``GpuSpec.efficiency``; a duration gets its unit into its name.
_SHARES = {
    key: key
    for key in (
        "hbm_efficiency",
        "gemm_efficiency",
        "expert_gemm_efficiency",
        "attention_prefill_efficiency",
        "attention_decode_efficiency",
        "link_efficiency",
    )
}
_DURATIONS = {
    key: f"{key}_s"
    for key in (
        "kernel_launch",
        "expert_launch",
        "latent_launch",
        "host_step",
        "host_per_seq",
        "collective_latency",
    )
}
EFFICIENCY_KEYS = (*_SHARES.values(), *_DURATIONS.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSpec:
    """One GPU.

    ``memory_bytes`` is the total that ``nvidia-smi`` shows; CUDA, and so vLLM, sees
    ``cuda_reserved_bytes`` less. FLOP rates are dense, ``link_bytes_per_s`` is one way, and 0
    for a part that has no other beside it. The link joins ``link_domain`` of them (the NVLink
    domain of a board or a rack, the cards in a server): beyond it is a network, which is not
    modelled. ``compute_capability`` is NVIDIA's, None for other parts. ``efficiency`` has
    exactly the keys ``EFFICIENCY_KEYS``; ``sources`` has every number of the profile by its
    dotted name.
    """

    name: str
    family: str
    memory_bytes: int
    cuda_reserved_bytes: int
    hbm_bytes_per_s: float
    flops_per_s: Mapping[str, float]
    link_bytes_per_s: float
    link_domain: int
    compute_capability: float | None
    efficiency: Mapping[str, Sourced]
    sources: Mapping[str, Sourced]


class ProfileKeys(NamedTuple):
    """What may stand in a ``device.yaml``: for every number its units, and what it is."""

    required: tuple[str, ...]
    numbers: Mapping[str, tuple[Mapping[str, Decimal], str]]
    flops: tuple[Mapping[str, Decimal], str]
    efficiency: Mapping[str, tuple[Mapping[str, Decimal], str]]


def profile_keys() -> ProfileKeys:
    """Return the keys of a profile, for those who describe the file."""
    share = "a fraction above 0, at most 1"
    duration = "a duration of at least 0, such as 25us"
    return ProfileKeys(
        required=("memory", "cuda_reserved", "hbm_bandwidth"),
        numbers={
            "memory": (BYTE_UNITS, "the total that nvidia-smi shows, such as 81559MiB"),
            "cuda_reserved": (BYTE_UNITS, "how much less of it CUDA sees, such as 483MiB"),
            "compute_capability": ({}, "of CUDA, such as 9.0; none for parts of others"),
            "hbm_bandwidth": (BYTE_RATE_UNITS, "memory bandwidth, such as 3.35TB/s"),
            "link_bandwidth": (BYTE_RATE_UNITS, "one way, such as 450GB/s; none if it is alone"),
            "link_domain": ({}, "how many parts that link joins, such as 8; with link_bandwidth"),
        },
        flops=(FLOP_UNITS, "a dense rate above 0, such as 989TFLOPS"),
        efficiency=dict.fromkeys(_SHARES, ({}, share))
        | dict.fromkeys(_DURATIONS, (SECOND_UNITS, duration)),
    )


def list_gpus() -> tuple[str, ...]:
    """Return the names of the GPUs that have a profile, sorted."""
    return tuple(
        sorted(path.parent.name for path in data_dir("hardware_profiles").glob(f"*/{_FILE}"))
    )


def load_gpu(name: str, where: str = "--gpu", which: str = "gpu") -> GpuSpec:
    """Return the GPU ``name``: a profile's own name or one of its aliases.

    Raises:
        InputError: if there is none, naming the nearest; or if its file is not right.
    """
    return _read_profile(find_name(name, _spellings(), where, which))


@functools.cache
def _read_profile(name: str) -> GpuSpec:
    path = data_dir("hardware_profiles") / name / _FILE
    return read_gpu(read_yaml(path), str(path))


@functools.cache
def _spellings() -> Mapping[str, str]:
    spellings: dict[str, str] = {}
    for name in list_gpus():
        path = data_dir("hardware_profiles") / name / _FILE
        for spelling in (name, *read_yaml(path).get("aliases", ())):
            other = spellings.setdefault(normal_name(spelling), name)
            if other != name:
                raise InputError(str(path), "aliases", spelling, f"a name that {other} has not")
    return MappingProxyType(spellings)


def read_gpu(entry: Mapping[str, Any], where: str) -> GpuSpec:
    """Return the GPU that a profile's mapping describes; refuse a number without a source."""
    numbers = tuple(profile_keys().numbers)
    refuse_unknown_keys(
        entry, ("name", "family", "aliases", "flops", "efficiency", *numbers), where
    )
    for key in ("name", "family"):
        if not isinstance(entry.get(key), str):
            raise InputError(where, key, entry.get(key, "nothing"), "text")
    sources = {
        "memory_bytes": read_sourced(entry.get("memory"), where, "memory", _size),
        "cuda_reserved_bytes": read_sourced(
            entry.get("cuda_reserved"), where, "cuda_reserved", _size
        ),
        "hbm_bytes_per_s": read_sourced(
            entry.get("hbm_bandwidth"), where, "hbm_bandwidth", _byte_rate
        ),
    }
    sources |= _read_link(entry, where)
    if "compute_capability" in entry:
        sources["compute_capability"] = read_sourced(
            entry["compute_capability"], where, "compute_capability", _capability
        )
    capability = sources.get("compute_capability")
    flops = _section(entry, "flops", where)
    for dtype, row in flops.items():
        if dtype not in DTYPES:
            raise unknown_name(where, "flops", dtype, DTYPES)
        sources[f"flops_per_s.{dtype}"] = read_sourced(row, where, f"flops.{dtype}", _flop_rate)
    efficiency = _read_efficiency(_section(entry, "efficiency", where), where)
    sources |= {f"efficiency.{key}": value for key, value in efficiency.items()}
    return GpuSpec(
        name=entry["name"],
        family=entry["family"],
        memory_bytes=round(sources["memory_bytes"].value),
        cuda_reserved_bytes=round(sources["cuda_reserved_bytes"].value),
        hbm_bytes_per_s=sources["hbm_bytes_per_s"].value,
        flops_per_s={dtype: sources[f"flops_per_s.{dtype}"].value for dtype in flops},
        link_bytes_per_s=sources["link_bytes_per_s"].value if "link_domain" in sources else 0.0,
        link_domain=round(sources["link_domain"].value) if "link_domain" in sources else 1,
        compute_capability=None if capability is None else capability.value,
        efficiency=efficiency,
        sources=sources,
    )


def _read_link(entry: Mapping[str, Any], where: str) -> dict[str, Sourced]:
    """Return the link's rate and how many parts it joins; neither of a part that is alone."""
    if not {"link_bandwidth", "link_domain"} & set(entry):
        return {}
    rate = read_sourced(entry.get("link_bandwidth"), where, "link_bandwidth", _byte_rate)
    domain = read_sourced(entry.get("link_domain"), where, "link_domain", _parts)
    return {"link_bytes_per_s": rate, "link_domain": domain}


def _read_efficiency(section: Mapping[str, Any], where: str) -> dict[str, Sourced]:
    refuse_unknown_keys(section, (*_SHARES, *_DURATIONS), where, "efficiency")
    efficiency: dict[str, Sourced] = {}
    for key, name in _SHARES.items():
        efficiency[name] = read_sourced(section.get(key), where, f"efficiency.{key}", _share)
    for key, name in _DURATIONS.items():
        efficiency[name] = read_sourced(section.get(key), where, f"efficiency.{key}", _duration)
    return efficiency


def _section(entry: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    section = entry.get(key)
    if not isinstance(section, dict) or not section:
        raise InputError(where, key, "nothing" if section is None else section, "a mapping")
    return section


def _above_zero(
    units: Mapping[str, Decimal], allowed: str, zero: bool = False
) -> Callable[[object], float]:
    def parse(value: object) -> float:
        number = parse_quantity(value, units, allowed)
        if number < 0 or (number == 0 and not zero):
            raise ValueError(allowed)
        return number

    return parse


_size = _above_zero(BYTE_UNITS, "a size above 0, such as 80GB or 81559MiB")
_byte_rate = _above_zero(BYTE_RATE_UNITS, "a bandwidth above 0, such as 3.35TB/s")
_flop_rate = _above_zero(FLOP_UNITS, "a dense rate above 0, such as 989TFLOPS")
_duration = _above_zero(SECOND_UNITS, "a duration of at least 0, such as 25us", zero=True)


def _capability(value: object) -> float:
    allowed = "a compute capability such as 9.0"
    number = parse_quantity(value, {}, allowed)
    if number < 1:
        raise ValueError(allowed)
    return number


def _parts(value: object) -> float:
    allowed = "an integer of at least 1: parts that the link joins"
    number = parse_quantity(value, {}, allowed)
    if number < 1 or number != round(number):
        raise ValueError(allowed)
    return number


def _share(value: object) -> float:
    allowed = "a fraction above 0, at most 1"
    number = parse_quantity(value, {}, allowed)
    if not 0 < number <= 1:
        raise ValueError(allowed)
    return number
