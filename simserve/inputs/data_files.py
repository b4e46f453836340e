"""Finds the data that travels with simserve, and matches the names people type to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from simserve.errors import unknown_name

_PACKAGE = Path(__file__).resolve().parents[1]
CATALOGUE = Path(__file__).resolve().parent / "catalogue"


def data_dir(name: str) -> Path:
    """Return the folder ``name`` (hardware_profiles, workloads) of a wheel or of a checkout."""
    packed = _PACKAGE / "_data" / name
    return packed if packed.is_dir() else _PACKAGE.parent / name


def normal_name(name: str) -> str:
    """Return ``name`` as the catalogues spell it: lower case, hyphens."""
    return "-".join(name.lower().replace("_", "-").split())


def find_name(name: str, known: Mapping[str, str], where: str, which: str) -> str:
    """Return what ``name`` stands for in ``known`` (spelling → catalogue name).

    Raises:
        InputError: naming the nearest one, and the names of the family that was named, or all.
    """
    normal = normal_name(name)
    if normal not in known:
        names, words = sorted(set(known.values())), normal.split("-")
        # A shared memory size is less of a likeness than a shared family: H100 80GB is no A100.
        family = [one for one in names if one.partition("-")[0] in words]
        raise unknown_name(where, which, normal or repr(name), family or names)
    return known[normal]
