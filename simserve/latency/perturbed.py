"""A profile as another measurement might have found it: its tables, each faster or slower.

How much is what the profile itself records. ``repeatability.csv`` has points that were measured
again at the end of the session; without it there are the 10th and 90th percentiles of the
repeats of every row. All rows of a table move together: what differs between two measurements
is mostly clocks and temperature, and errors of their own would average out over the hundreds of
kernels of a step. So this errs on the wide side. Host times have no recorded scatter and stay.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist, median
from typing import TYPE_CHECKING

import numpy as np

from simserve.latency.tables.profile import Profile, find_profile, read_profile
from simserve.latency.tables.table_model import TableModel

if TYPE_CHECKING:
    from simserve.inputs.deployment import Deployment

_AGAIN = "repeatability.csv"
# From the 10th to the 90th percentile a normal distribution spans so many standard deviations.
_P10_TO_P90_SDS = 2 * NormalDist().inv_cdf(0.9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    """How far each table may be off: standard deviation of its logarithm, by table.

    ``source`` says what of the profile tells so.
    """

    log_sd: Mapping[str, float]
    source: str


def recorded_scatter(profile: Profile) -> Scatter | None:
    """Return the scatter that a profile records; None if it records none."""
    folder = Path(profile.where)
    again = _of_repeats(folder / _AGAIN, profile)
    if again:
        return Scatter(log_sd=again, source="points that the profile measured twice")
    spread = {name: sd for name in profile.tables if (sd := _of_rows(folder / f"{name}.csv"))}
    if not spread:
        return None
    return Scatter(log_sd=spread, source="the repeats behind each row of the profile")


def perturbed(profile: Profile, scatter: Scatter, rng: np.random.Generator) -> Profile:
    """Return the profile with every table of ``scatter`` times a lognormal factor of its own."""
    tables = dict(profile.tables)
    for name, sd in sorted(scatter.log_sd.items()):
        factor = math.exp(sd * float(rng.standard_normal()))
        rows = tuple(replace(row, seconds=row.seconds * factor) for row in tables[name].rows)
        tables[name] = replace(tables[name], rows=rows)
    return replace(profile, tables=tables)


def deployment_scatter(deployment: Deployment) -> Scatter | None:
    """Return the scatter of what prices a deployment; None for the roofline, which has none."""
    folder = find_profile(deployment.latency, deployment.gpu.name)
    return recorded_scatter(read_profile(folder)) if folder is not None else None


def perturbed_model(deployment: Deployment, rng: np.random.Generator) -> TableModel:
    """Return the deployment's latency model, built from a perturbed profile.

    Raises:
        ValueError: if its profile records no scatter.
    """
    folder = find_profile(deployment.latency, deployment.gpu.name)
    profile = read_profile(folder) if folder is not None else None
    scatter = recorded_scatter(profile) if profile is not None else None
    if profile is None or scatter is None:
        raise ValueError(f"{deployment.latency} records no scatter")
    return TableModel(
        perturbed(profile, scatter, rng),
        deployment.model,
        deployment.gpu,
        deployment.tp,
        async_scheduling=deployment.engine.async_scheduling,
        allow_extrapolation=deployment.allow_extrapolation,
    )


def _of_repeats(path: Path, profile: Profile) -> dict[str, float]:
    """Return, by table, by how much one measurement of a point scatters.

    Two measurements differ by the root of two as much.
    """
    logs: dict[str, list[float]] = {}
    for row in _rows(path):
        first, again = _number(row.get("us_first")), _number(row.get("us_again"))
        if first > 0 and again > 0 and row.get("table") in profile.tables:
            logs.setdefault(str(row["table"]), []).append(math.log(again / first))
    return {
        name: math.sqrt(sum(one * one for one in found) / len(found) / 2)
        for name, found in logs.items()
    }


def _of_rows(path: Path) -> float:
    """Return the scatter of the median row of a table; 0 if its rows have no percentiles."""
    found = []
    for row in _rows(path):
        low, high = _number(row.get("us_p10")), _number(row.get("us_p90"))
        if 0 < low <= high:
            found.append(math.log(high / low) / _P10_TO_P90_SDS)
    return median(found) if found else 0.0


def _rows(path: Path) -> list[dict[str, str | None]]:
    """Return the rows of a file; none if there is no such file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [
            {key.strip(): cell for key, cell in row.items() if key} for row in csv.DictReader(file)
        ]


def _number(text: str | None) -> float:
    """Return a cell as a number; 0 for an empty one or text."""
    try:
        number = float(text or 0)
    except ValueError:
        return 0.0
    return number if math.isfinite(number) else 0.0
