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
    return name.strip().lower().replace("_", "-")


def find_name(name: str, known: Mapping[str, str], where: str, which: str) -> str:
    """Return what ``name`` stands for in ``known`` (spelling → catalogue name).

    Raises:
        InputError: naming the catalogue's names and the nearest one.
    """
    normal = normal_name(name)
    if normal not in known:
        raise unknown_name(where, which, normal or repr(name), sorted(set(known.values())))
    return known[normal]
