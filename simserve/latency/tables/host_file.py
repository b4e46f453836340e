"""``host.yaml``: what a step costs beside its kernels, and the batches that graphs exist for.

The formulas are those of docs/profile-schema.md, section "Host time"; every number has its
kind, source and date.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from simserve.errors import InputError
from simserve.inputs.sourced import Sourced, read_provenance, read_sourced, refuse_unknown_keys
from simserve.inputs.units import SECOND_UNITS, parse_quantity
from simserve.inputs.yaml_reader import read_yaml

_ZERO = Sourced(0.0, "assumed", "not in host.yaml: taken as 0", "")
_REQUIRED = ("host_step", "host_per_seq")
_COUNTS = ("kernels_per_layer",)
_SIZES = "decode_graph_sizes"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTerms:
    """Seconds of the host, and ``decode_graph_sizes``: batches that a graph was captured for.

    ``launch_graph`` replays one graph, ``launch_kernel`` starts one kernel eagerly. The copy
    of a synchronous step's output is ``copy_out``; ``bubble`` is what an asynchronous engine
    leaves between two steps.
    """

    host_step: Sourced
    host_per_seq: Sourced
    host_per_prefill_token: Sourced = _ZERO
    launch_graph: Sourced = _ZERO
    launch_kernel: Sourced = _ZERO
    kernels_per_layer: Sourced = _ZERO
    copy_out: Sourced = _ZERO
    bubble: Sourced = _ZERO
    decode_graph_sizes: tuple[int, ...] = ()


def read_host(path: Path) -> HostTerms:
    """Return what the file ``path`` says.

    Raises:
        InputError: for a key that is unknown, or a number that is missing, out of range or
            without its source.
    """
    entry, where = read_yaml(path), str(path)
    names = tuple(field.name for field in fields(HostTerms))
    refuse_unknown_keys(entry, names, where)
    found: dict[str, Any] = {}
    for name in names:
        if name == _SIZES:
            if name in entry:
                found[name] = _sizes(entry[name], where)
        elif name in entry:
            found[name] = read_sourced(entry[name], where, name, _parser(name))
        elif name in _REQUIRED:
            raise InputError(where, name, "nothing", "a mapping with value, kind, source and date")
    return HostTerms(**found)


def _parser(name: str) -> Any:
    def parse(value: object) -> float:
        units = {} if name in _COUNTS else SECOND_UNITS
        allowed = "a number of at least 0"
        allowed += "" if name in _COUNTS else ", a duration such as 25us"
        number = parse_quantity(value, units, allowed)
        if number < 0:
            raise ValueError(allowed)
        return number

    return parse


def _sizes(entry: object, where: str) -> tuple[int, ...]:
    allowed = "integers of at least 1, each larger than the one before"
    if not isinstance(entry, dict):
        raise InputError(where, _SIZES, entry, "a mapping with value, kind, source and date")
    refuse_unknown_keys(entry, ("value", "kind", "source", "date"), where, _SIZES)
    read_provenance(entry, where, _SIZES)
    sizes = entry.get("value")
    if not isinstance(sizes, list) or not sizes:
        raise InputError(where, f"{_SIZES}.value", sizes or "nothing", allowed)
    before = 0
    for size in sizes:
        if type(size) is not int or size <= before:
            raise InputError(where, f"{_SIZES}.value", size, allowed)
        before = size
    return tuple(sizes)
