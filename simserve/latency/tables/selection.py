"""Picks from a table the rows that a deployment runs, or says what the table has instead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from simserve.errors import InputError
from simserve.inputs.hardware_profile import GpuSpec
from simserve.inputs.model_spec import ModelSpec
from simserve.latency.tables.csv_file import Row, Table
from simserve.latency.tables.profile import HEAD, Profile

# Queries are kept in 16 bits unless the kernel takes 8; both may stand in one table.
_QUERY_DTYPES = ("bf16", "fp16", "")


@dataclass(frozen=True, slots=True)
class Setting:
    """A profile, and what is to be priced with it.

    ``allow_extrapolation``: shapes farther than two octaves may lend their utilisation, and
    what a table has not at all (a dtype, a size of heads) is answered by the roofline.
    """

    profile: Profile
    model: ModelSpec
    gpu: GpuSpec
    tp: int
    allow_extrapolation: bool = False

    def of_dtype(self, table: Table, key: str, *dtypes: str) -> list[Row]:
        """Return the rows of the first of ``dtypes`` that the table has.

        Raises:
            InputError: if it has none of them, unless extrapolation is allowed.
        """
        for dtype in dtypes:
            rows = [row for row in table.rows if row.keys[key] == dtype]
            if rows:
                return rows
        return self.nothing(table, key, dtypes[0], (row.text(key) for row in table.rows))

    def nothing(self, table: Table, key: str, wanted: object, has: Iterable[object]) -> list[Row]:
        """Refuse to price ``wanted`` from a table that ``has`` other things."""
        if self.allow_extrapolation:
            return []
        found = ", ".join(sorted({str(one) for one in has}))
        needed = f"{found}: what the table has; {self.model.name} at tp {self.tp} needs {wanted}"
        raise InputError(table.where, key, wanted, needed)

    def of_backend(self, table: Table, rows: list[Row]) -> list[Row]:
        """Return the rows of the backend that the profile says to use, if it says any.

        Raises:
            InputError: if two backends have the same point, and the profile names neither.
        """
        use = self.profile.use.get(table.name)
        if use is not None:
            chosen = [row for row in rows if row.keys["backend"] == use]
            if rows and not chosen:
                backends = ", ".join(sorted({row.text("backend") for row in rows}))
                where = str(Path(self.profile.where) / HEAD)
                raise InputError(where, f"use.{table.name}", use, backends)
            rows = chosen
        seen: dict[tuple[object, ...], Row] = {}
        for row in rows:
            key = tuple(value for name, value in row.keys.items() if name != "backend")
            other = seen.setdefault(key, row)
            if other is not row:
                got = f"{other.text('backend')} and {row.text('backend')} for one point"
                allowed = f"one backend, or use.{table.name} in {HEAD}"
                raise InputError(table.where, f"row {row.line}, backend", got, allowed)
        return rows

    def of_queries(self, rows: list[Row]) -> list[Row]:
        """Return the rows whose queries are in 16 bits, or all if none are."""
        for dtype in _QUERY_DTYPES:
            chosen = [row for row in rows if row.keys["q_dtype"] == dtype]
            if chosen:
                return chosen
        return rows


def check_match(setting: Setting) -> None:
    """Refuse a profile of another GPU, model or tensor-parallel size.

    Raises:
        InputError: naming what the profile is for.
    """
    profile, model = setting.profile, setting.model
    where = str(Path(profile.where) / HEAD)
    if profile.gpu != setting.gpu.name:
        allowed = f"{setting.gpu.name}: the GPU of the deployment"
        raise InputError(where, "device.gpu", profile.gpu, allowed)
    if profile.model is not None and not is_model(profile.model, model):
        raise InputError(where, "model", profile.model, f"{model.name}: the deployment's model")
    if profile.tp is not None and profile.tp != setting.tp:
        raise InputError(where, "tp", profile.tp, f"{setting.tp}: the deployment's tp")


def is_model(name: str, model: ModelSpec) -> bool:
    """Return whether ``name``, of a model, means ``model``."""
    normal = name.strip().lower().replace("_", "-")
    return normal in (model.name.lower().replace("_", "-"), model.hf_id.lower().replace("_", "-"))
