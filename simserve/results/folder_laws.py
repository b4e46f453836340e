"""Whether a folder that ``run --out`` wrote still says one thing: laws, sums and labels."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from simserve.errors import InputError, reason_of
from simserve.results.frames import request_columns, step_frame_columns
from simserve.results.law_terms import Limits
from simserve.results.record_laws import LAWS, BrokenLaw, broken_laws
from simserve.results.result import REQUESTS_FILE, RUN_FILE, STEPS_FILE, Result

FOLDER_LAWS = {
    "well-formed": "every number that points somewhere points at something",
    "digest": "the settings in run.json are those that the digest was made of",
    "columns-agree": "columns in seconds, and sums, are those of the picoseconds and parts",
    "metrics-recomputed": "metrics computed from requests and steps are those of run.json",
}
"""The laws about files, beside those of the record."""

_LARGEST = 1 << 62  # of a setting: far beyond any, and an int64

ALL_LAWS = (*FOLDER_LAWS, *LAWS)


def check_folder(directory: str | Path) -> list[BrokenLaw]:
    """Return the laws that the result in ``directory`` breaks; none in a sound one.

    Raises:
        InputError: if the directory does not hold the three files of one run.
    """
    place = Path(directory)
    result = Result.load(place)
    broken = broken_laws(result.record, limits_of(result, place))
    if not any(one.law == "well-formed" for one in broken):
        broken += [*_digest(result), *_columns(result, place)]
    # Metrics of a record that contradicts itself would say nothing.
    return broken or [*_metrics(result, place)]


def limits_of(result: Result, place: Path) -> Limits:
    """Return the engine's limits that a result was made under.

    Raises:
        InputError: if run.json does not hold them.
    """
    try:
        settings = result.facts.resolved["deployment"]["engine"]["settings"]
        values = {name: one["value"] for name, one in settings.items()}
        return Limits(
            max_running=_count(values.get("max_num_active_seqs") or values["max_num_seqs"]),
            max_num_batched_tokens=_count(values["max_num_batched_tokens"]),
            max_model_len=_count(values["max_model_len"]),
            usable_blocks=_count(values["num_blocks"]) - 1,  # without the null block
            scheduled_ahead=bool(values["async_scheduling"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        where = str(place / RUN_FILE)
        allowed = "every setting of the engine"
        raise InputError(where, "facts.resolved", reason_of(error), allowed) from None


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _LARGEST:
        raise TypeError(f"{value!r:.60} as a count")
    return value


def _digest(result: Result) -> Iterator[BrokenLaw]:
    """Compare the digest with that of the settings, made as ``Scenario.digest`` makes it."""
    text = json.dumps(result.facts.resolved, sort_keys=True, separators=(",", ":"))
    found = hashlib.sha256(text.encode()).hexdigest()
    if found != result.facts.digest:
        yield BrokenLaw(
            "digest", f"settings give {found[:12]}…, run.json {result.facts.digest[:12]}…"
        )


def _columns(result: Result, place: Path) -> Iterator[BrokenLaw]:
    """Compare the columns that are made from others."""
    import pyarrow.parquet as pq

    made = {
        REQUESTS_FILE: request_columns(result.record),
        STEPS_FILE: step_frame_columns(result.record),
    }
    for name, columns in made.items():
        table = pq.read_table(place / name)
        for column, expected in columns.items():
            if column in table.column_names and column not in ("id", "status"):
                found = np.asarray(table[column].to_numpy())
                wrong = np.flatnonzero(~_same(found, np.asarray(expected)))
                if len(wrong):
                    at = int(wrong[0])
                    sides = f"{found[at]} in the file, {expected[at]} recomputed"
                    yield BrokenLaw("columns-agree", f"{name}: {column}, row {at}: {sides}")
                    return


def _same(found: Any, expected: Any) -> Any:
    if found.dtype.kind == "f" or expected.dtype.kind == "f":
        found, expected = found.astype(np.float64), expected.astype(np.float64)
        return (found == expected) | (np.isnan(found) & np.isnan(expected))
    return found == expected


def _metrics(result: Result, place: Path) -> Iterator[BrokenLaw]:
    """Compare the metrics of run.json with those that the tables give."""
    written = json.loads((place / RUN_FILE).read_text(encoding="utf-8")).get("bench")
    if not isinstance(written, Mapping):
        raise InputError(str(place / RUN_FILE), "bench", written, "the metrics of the run")
    found = _difference(written, result.bench_dict(), "bench")
    if found is not None:
        key, left, right = found
        yield BrokenLaw("metrics-recomputed", f"{key}: {left} in run.json, {right} recomputed")


def _difference(written: Any, made: Any, key: str) -> tuple[str, Any, Any] | None:
    """Return the first key under which two JSON values differ, and both."""
    if isinstance(made, Mapping) and isinstance(written, Mapping):
        for name in (*made, *(one for one in written if one not in made)):
            inner = f"{key}.{name}"
            if name not in made or name not in written:
                return inner, written.get(name, "nothing"), made.get(name, "nothing")
            found = _difference(written[name], made[name], inner)
            if found is not None:
                return found
        return None
    if isinstance(made, list | tuple) and isinstance(written, list):
        if len(made) != len(written):
            return key, f"{len(written)} entries", f"{len(made)} entries"
        pairs = enumerate(zip(written, made, strict=True))
        inner_ones = (_difference(a, b, f"{key}[{at}]") for at, (a, b) in pairs)
        return next((one for one in inner_ones if one is not None), None)
    same = written == made and isinstance(written, bool) == isinstance(made, bool)
    if not same and isinstance(made, float) and isinstance(written, int | float):
        same = math.isclose(written, made, rel_tol=_ROUNDING)
    return None if same else (key, written, made)


# Sums of floats in another order (a file is read step by step, a run stretch by stretch).
_ROUNDING = 1e-12
