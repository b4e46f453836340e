"""Reads a layer profile of LLMServingSim: ``meta.yaml`` and CSV tables, plain or gzipped.

Its profiler runs one layer of a model in vLLM, eagerly and with random weights, and writes per
tensor-parallel size a folder ``tpN``: ``dense`` (layer, tokens), ``per_sequence`` (LM head and
sampler), ``attention`` (one call of a prefill chunk and equal decodes) and, where measured,
``skew`` (decodes of two histories). Times are microseconds.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, TextIO

from simserve.errors import InputError
from simserve.inputs.hardware_profile import GpuSpec, load_gpu
from simserve.inputs.model_catalogue import load_model
from simserve.inputs.model_spec import ModelSpec
from simserve.inputs.yaml_reader import read_yaml

COLUMNS = {
    "dense": ("layer", "tokens", "time_us"),
    "per_sequence": ("layer", "sequences", "time_us"),
    "attention": ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"),
    "skew": ("n", "nb", "pc", "kp", "kvs", "kv_big", "t_skew_us"),
}
"""The tables, and their columns that are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProfile:
    """A folder of tables for one model at one tensor-parallel size on one kind of GPU."""

    folder: Path
    meta: dict[str, Any]
    gpu: GpuSpec
    model: ModelSpec
    tp: int

    def table(self, name: str) -> Path | None:
        """Return the file of a table, None if there is none."""
        for suffix in (".csv", ".csv.gz"):
            path = self.folder / f"tp{self.tp}" / f"{name}{suffix}"
            if path.is_file():
                return path
        return None


def read_layer_profile(source: Path, tp: int | None = None, gpu: str | None = None) -> LayerProfile:
    """Return the profile in ``source`` for ``tp`` GPUs, or for the only number it has.

    ``gpu`` is our name of the GPU, for the case that the profile's own is not known here.
    """
    meta = read_yaml(source / "meta.yaml")
    sizes = sorted(
        int(path.name[2:])
        for path in source.glob("tp*")
        if path.is_dir() and path.name[2:].isdigit()
    )
    if tp is None and len(sizes) == 1:
        tp = sizes[0]
    if tp not in sizes:
        allowed = ", ".join(map(str, sizes)) or "a folder that has tp1, tp2, …"
        raise InputError(str(source), "--tp", "nothing" if tp is None else tp, allowed)
    name = meta.get("model")
    if not isinstance(name, str):
        raise InputError(str(source / "meta.yaml"), "model", name, "the name of a model, as text")
    model = load_model(name, str(source / "meta.yaml"), "model")
    if gpu is None:
        device = load_gpu(str(meta.get("hardware")), str(source / "meta.yaml"), "hardware")
    else:
        device = load_gpu(gpu)
    return LayerProfile(folder=source, meta=meta, gpu=device, model=model, tp=tp)


def repeats_of(profile: LayerProfile) -> int:
    """Return how often the profiler measured each point.

    Raises:
        InputError: if it does not say.
    """
    repeats = profile.meta.get("measurement_iterations")
    if not isinstance(repeats, int) or repeats < 1:
        where = str(profile.folder / "meta.yaml")
        raise InputError(where, "measurement_iterations", repeats, "an integer of at least 1")
    return repeats


def rows_of(profile: LayerProfile, name: str) -> Iterator[tuple[dict[str, str], str]]:
    """Yield the rows of a table and where each stands."""
    path = profile.table(name)
    if path is None:
        where = str(profile.folder / f"tp{profile.tp}")
        raise InputError(where, f"{name}.csv", "no such file", "a file, or one that ends with .gz")
    try:
        with _opened(path) as file:
            reader = csv.DictReader(file)
            for column in COLUMNS[name]:
                if column not in (reader.fieldnames or ()):
                    raise InputError(str(path), column, "no such column", ", ".join(COLUMNS[name]))
            for row in reader:
                yield row, f"{path}: line {reader.line_num}"
    except (EOFError, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise InputError(str(path), None, str(error), "a CSV table, plain or gzipped") from None


def _opened(path: Path) -> TextIO:
    opening: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    file: TextIO = opening(path, "rt", encoding="utf-8", newline="")
    return file


def count_in(row: dict[str, str], key: str, where: str, lowest: int = 1) -> int:
    """Return the count in a cell; refuse one below ``lowest``."""
    text = row[key] or ""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (isfinite(value) and value == int(value) and value >= lowest):
        raise InputError(where, key, text, f"an integer of at least {lowest}")
    return int(value)


def us_in(row: dict[str, str], key: str, where: str) -> float:
    """Return the microseconds in a cell; refuse any that are not above 0."""
    try:
        value = float(row[key] or "")
    except ValueError:
        value = -1.0
    if not (isfinite(value) and value > 0):
        raise InputError(where, key, row[key], "a duration above 0, in microseconds")
    return value
