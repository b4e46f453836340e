"""The kernel tables that the package ``aiconfigurator-core`` brings, found and read.

Apache-2.0, by NVIDIA; about 95 MB, so it is an extra (``simserve[kernels]``) and no table of it
stands in this repository. Tables lie at ``systems/data/<gpu>/<family>/<engine>/<version>/`` as
Parquet; their latencies are milliseconds, their message sizes elements.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simserve.errors import InputError, unknown_name
from simserve.inputs.data_files import normal_name

PACKAGE = "aiconfigurator-core"
LICENCE = f"{PACKAGE}: Apache-2.0, Copyright (c) NVIDIA CORPORATION & AFFILIATES"
_MODULE = "aiconfigurator_core"
_DATA = Path("systems") / "data"
# Our GPU names that are not the package's with hyphens for underscores.
_SYSTEMS = {
    "a100-80gb-sxm": "a100_sxm",
    "a100-80gb-pcie": "a100_pcie",
    "gb200-nvl72": "gb200",
    "gb300-nvl72": "gb300",
}
US_PER_MS = 1000.0
# All-reduce tables count 16-bit elements (checked: read as bytes, NVLink would run at half).
ELEMENT_BYTES = 2

Columns = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class KernelTable:
    """One Parquet file: where it is in the package, and its columns."""

    path: Path
    name: str
    version: str
    columns: Columns

    def where(self, **values: str | int) -> KernelTable:
        """Return the rows whose columns have these values."""
        keep = np.ones(len(self), dtype=bool)
        for key, value in values.items():
            keep &= self.columns[key] == value
        columns = {key: column[keep] for key, column in self.columns.items()}
        return KernelTable(self.path, self.name, self.version, columns)

    def __len__(self) -> int:
        return len(self.columns["latency"])


@dataclass(frozen=True, slots=True)
class KernelPackage:
    """The installed package."""

    root: Path
    version: str

    def system(self, gpu: str) -> str:
        """Return the package's name for a GPU of ours.

        Raises:
            InputError: if it has no tables of it, with the nearest that it has.
        """
        name = normal_name(gpu)
        system = _SYSTEMS.get(name, name.replace("-", "_"))
        known = sorted(path.name for path in (self.root / _DATA).iterdir() if path.is_dir())
        if system not in known:
            ours = {theirs: our for our, theirs in _SYSTEMS.items()}
            names = [ours.get(one, one.replace("_", "-")) for one in known]
            raise unknown_name(f"{PACKAGE} {self.version}", "gpu", gpu, names)
        return system

    def newest(self, system: str, family: str, engine: str, table: str) -> Path | None:
        """Return the newest version's file of a table, None if there is none."""
        found = (self.root / _DATA / system / family / engine).glob(f"*/{table}_perf.parquet")
        return max(found, key=lambda path: _version_key(path.parent.name), default=None)

    def at(self, system: str, family: str, engine: str, version: str, table: str) -> Path | None:
        """Return one version's file of a table, None if there is none."""
        path = self.root / _DATA / system / family / engine / version / f"{table}_perf.parquet"
        return path if path.is_file() else None

    def read(self, path: Path) -> KernelTable:
        """Read one table, in the package's own units and names."""
        from pyarrow import parquet

        table = parquet.read_table(path)  # type: ignore[no-untyped-call, unused-ignore]
        columns = {name: table.column(name).to_numpy() for name in table.column_names}
        name = str(path.relative_to(self.root / _DATA))
        return KernelTable(path, name, path.parent.name, columns)


def installed_package() -> KernelPackage:
    """Return the installed package.

    Raises:
        InputError: if it is not installed; the sentence has the command that installs it.
    """
    package = find_package()
    if package is None:
        allowed = "an environment with it: pip install 'simserve[kernels]'"
        raise InputError(PACKAGE, None, "not installed", allowed)
    return package


def find_package() -> KernelPackage | None:
    """Return the installed package, None if there is none; nothing of it is imported."""
    spec = importlib.util.find_spec(_MODULE)
    if spec is None or not spec.submodule_search_locations:
        return None
    root = Path(next(iter(spec.submodule_search_locations)))
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None
    return KernelPackage(root, version) if (root / _DATA).is_dir() else None


def _version_key(version: str) -> tuple[tuple[int, str], ...]:
    """Return what versions are ordered by: numbers as numbers, ``0.9`` before ``0.24``."""
    parts = version.replace("rc", ".-1.").split(".")
    return tuple((int(part), "") if part.lstrip("-").isdigit() else (-1, part) for part in parts)
