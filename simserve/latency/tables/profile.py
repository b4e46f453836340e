"""A profile: a folder of tables measured on one kind of GPU, with where they come from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simserve.errors import InputError, unknown_name
from simserve.inputs.data_files import data_dir, normal_name
from simserve.inputs.sourced import (
    Provenance,
    read_provenance,
    read_sourced,
    refuse_unknown_keys,
)
from simserve.inputs.units import parse_quantity
from simserve.inputs.yaml_reader import read_yaml
from simserve.latency.tables.csv_file import Table, read_table
from simserve.latency.tables.host_file import HostTerms, read_host
from simserve.latency.tables.schema import KEYS, NOT_READ, SCHEMA
from simserve.latency.tables.waves import Waves, parse_waves

HEAD = "profile.yaml"
_HOST = "host.yaml"
# Facts about the measuring, kept as they stand; nothing is priced from them.
_MIXED, _WAVES, _GPU_TIME = "mixed_added_frac", "waves", "gpu_time_factor"
# What waves are stated for: decodes alone whose KV is not split, and decodes beside a chunk.
WAVE_KINDS = ("decode", "mixed")
# The time of a mixed attention call without rows: the sum of its parts, unless the profile
# says otherwise.
_SUM_OF_PARTS = 1.0
# A factor beyond is no correction of a table, but another GPU.
MOST_GPU_TIME = 4.0
_FACTS = ("software", "ceilings", "memory", "run", "quality", "missing", "licence_notes", "notes")
_KEYS = (
    "schema",
    "kind",
    "source",
    "date",
    "device",
    "model",
    "tp",
    "use",
    "tables",
    "provenance",
    _MIXED,
    _WAVES,
    _GPU_TIME,
    *_FACTS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Everything in one folder.

    ``model`` and ``tp`` are set if the profile holds for them alone. ``use`` names, per table,
    the backend to price from where a table has several. ``origins`` has the provenance of
    every table. ``mixed_added_frac`` is the share of the smaller part, decodes or chunks, that
    attention of a mixed step without rows adds to the larger. ``waves`` tell, by
    ``WAVE_KINDS``, what uneven decodes cost; ``gpu_time_factor`` multiplies all of the GPU's time.
    ``digest`` is the SHA-256 of all files.
    """

    name: str
    where: str
    provenance: Provenance
    gpu: str
    sms: int | None
    model: str | None
    tp: int | None
    use: Mapping[str, str]
    tables: Mapping[str, Table]
    origins: Mapping[str, Provenance]
    host: HostTerms | None
    mixed_added_frac: float
    waves: Mapping[str, Waves]
    gpu_time_factor: float
    facts: Mapping[str, Any]
    digest: str


def list_profiles(gpu: str) -> tuple[str, ...]:
    """Return the names of the profiles of a GPU, sorted."""
    folder = data_dir("hardware_profiles") / gpu
    return tuple(sorted(head.parent.name for head in folder.glob(f"*/{HEAD}")))


def find_profile(name: str, gpu: str) -> Path | None:
    """Return the folder of the profile ``name``, a path or a name of ``gpu``'s; or None."""
    given = Path(name)
    try:
        if (given / HEAD).is_file():
            return given
        if given.name == HEAD and given.is_file():
            return given.parent
    except OSError:  # a name too long for the file system, a folder that may not be read
        return None
    known = {normal_name(one): one for one in list_profiles(gpu)}
    found = known.get(normal_name(name))
    return data_dir("hardware_profiles") / gpu / found if found else None


def read_profile(folder: Path) -> Profile:
    """Return the profile in ``folder``.

    Raises:
        InputError: for the first thing that is wrong with one of its files.
    """
    head = folder / HEAD
    entry, where = read_yaml(head), str(head)
    refuse_unknown_keys(entry, _KEYS, where)
    if entry.get("schema") != SCHEMA or isinstance(entry.get("schema"), bool):
        raise InputError(where, "schema", entry.get("schema", "nothing"), str(SCHEMA))
    provenance = read_provenance(entry, where, "")
    device = _mapping(entry, "device", where)
    tables = {path.stem: read_table(path) for path in _csv_files(folder)}
    _check_row_counts(_mapping(entry, "tables", where), tables, where)
    host = read_host(folder / _HOST) if (folder / _HOST).is_file() else None
    if not tables and host is None:
        raise InputError(str(folder), None, "no table", f"one of {', '.join(KEYS)} as CSV")
    return Profile(
        name=folder.resolve().name,
        where=str(folder),
        provenance=provenance,
        gpu=normal_name(_text(device, "gpu", where, "device.")),
        sms=_count(device, "sms", where, "device."),
        model=_text(entry, "model", where) if entry.get("model") is not None else None,
        tp=_count(entry, "tp", where),
        use=_uses(_mapping(entry, "use", where), where),
        tables=tables,
        origins=_origins(_mapping(entry, "provenance", where), tables, provenance, where),
        host=host,
        mixed_added_frac=read_sourced(entry[_MIXED], where, _MIXED, _parse_frac).value
        if _MIXED in entry
        else _SUM_OF_PARTS,
        waves=_waves(_mapping(entry, _WAVES, where), where),
        gpu_time_factor=read_sourced(entry[_GPU_TIME], where, _GPU_TIME, _parse_factor).value
        if _GPU_TIME in entry
        else 1.0,
        facts={key: entry[key] for key in _FACTS if key in entry},
        digest=_digest(folder),
    )


def _waves(entry: Mapping[str, Any], where: str) -> dict[str, Waves]:
    found = {}
    for name in entry:
        if name not in WAVE_KINDS:
            raise unknown_name(where, _WAVES, name, WAVE_KINDS)
        which = f"{_WAVES}.{name}"
        one = _mapping(entry, name, where, f"{_WAVES}.")
        refuse_unknown_keys(one, ("value", "kind", "source", "date"), where, which)
        read_provenance(one, where, which)
        try:
            found[name] = parse_waves(one.get("value"))
        except ValueError as error:
            got = one.get("value", "nothing")
            raise InputError(where, f"{which}.value", got, str(error)) from None
    return found


def _parse_factor(value: object) -> float:
    allowed = f"a number from {1 / MOST_GPU_TIME:g} to {MOST_GPU_TIME:g}"
    number = parse_quantity(value, {}, allowed)
    if not 1 / MOST_GPU_TIME <= number <= MOST_GPU_TIME:
        raise ValueError(allowed)
    return number


def _parse_frac(value: object) -> float:
    allowed = "a number from 0 (the smaller part costs nothing) to 1 (the sum of the parts)"
    number = parse_quantity(value, {}, allowed)
    if not 0 <= number <= 1:
        raise ValueError(allowed)
    return number


def _csv_files(folder: Path) -> list[Path]:
    found = []
    for path in sorted(folder.glob("*.csv")):
        if path.stem in KEYS:
            found.append(path)
        elif path.stem not in NOT_READ:
            raise unknown_name(str(folder), "table", path.stem, (*KEYS, *NOT_READ))
    return found


def _check_row_counts(counts: Mapping[str, Any], tables: Mapping[str, Table], where: str) -> None:
    """Refuse a table that has not the rows that the head says: a cut file, or a stale one."""
    for name, rows in counts.items():
        if name in NOT_READ:
            continue
        if name not in KEYS:
            raise unknown_name(where, "tables", name, KEYS)
        got = len(tables[name].rows) if name in tables else 0
        if got != rows:
            raise InputError(where, f"tables.{name}", rows, f"{got}, the rows of {name}.csv")


def _origins(
    entry: Mapping[str, Any], tables: Mapping[str, Table], default: Provenance, where: str
) -> dict[str, Provenance]:
    for name in entry:
        if name not in tables:
            raise unknown_name(where, "provenance", name, tables)
    return {
        name: read_provenance(_mapping(entry, name, where, "provenance."), where, name)
        if name in entry
        else default
        for name in tables
    }


def _uses(entry: Mapping[str, Any], where: str) -> dict[str, str]:
    for name in entry:
        if name not in KEYS:
            raise unknown_name(where, "use", name, KEYS)
    return {name: _text(entry, name, where, "use.") for name in entry}


def _mapping(entry: Mapping[str, Any], key: str, where: str, prefix: str = "") -> Mapping[str, Any]:
    value = entry.get(key, {})
    if not isinstance(value, dict):
        raise InputError(where, f"{prefix}{key}", value, "a mapping")
    return value


def _text(entry: Mapping[str, Any], key: str, where: str, prefix: str = "") -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise InputError(where, f"{prefix}{key}", "nothing" if value is None else value, "text")
    return value.strip()


def _count(entry: Mapping[str, Any], key: str, where: str, prefix: str = "") -> int | None:
    value = entry.get(key)
    if value is not None and (type(value) is not int or value < 1):
        raise InputError(where, f"{prefix}{key}", value, "an integer of at least 1")
    return value


def _digest(folder: Path) -> str:
    """Return the SHA-256 of the folder's files, their names included."""
    whole = hashlib.sha256()
    for path in sorted((*folder.glob("*.csv"), folder / HEAD, folder / _HOST)):
        if path.is_file():
            whole.update(path.name.encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()
