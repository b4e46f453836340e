"""Turns a journal into a profile that ``simserve run --latency FOLDER`` prices steps from.

Nothing is estimated here: what was not measured is listed under ``missing``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from calibrate.ceilings import ceiling_facts, host_entries
from calibrate.device_names import gpu_of
from calibrate.measure.journal import Entry
from calibrate.quality import quality_facts
from calibrate.results import Results, read_results
from simserve.errors import InputError
from simserve.latency.importers.table_folder import write_folder
from simserve.latency.tables.schema import KEYS, MEASURES, TIMES

FOLDER = "profile"
"""The profile's place in the --out folder of a run."""
MEMORY = "memory.json"
"""What ``calibrate memory`` measured, beside the journal."""
# ``n`` is a key of this table, and cannot be the number of repeats too.
_N_IS_A_KEY = "gemm"
_BACKENDS = ("attn_decode", "attn_prefill", "attn_mixed")
_REPEATABILITY = ("table", "name", "us_first", "us_again", "error_pct")
_SENTINELS = ("t_unix", "name", "us_p50", "us_p10", "us_p90", "sm_mhz", "power_w", "temp_c")
_MIXTURE_LIMITS = "experts are measured in bf16 alone: there is no grouped kernel of 8 bits here"


def write_profile(out: Path, folder: Path | None = None, gpu: str | None = None) -> Path:
    """Write the profile of the journal in ``out``, by default beside it; return its folder.

    ``gpu`` names the datasheet in ``hardware_profiles/``, if the device's own name does not.

    Raises:
        InputError: if there is no journal, no row, or no datasheet for the device.
    """
    results = read_results(out)
    target = folder or out / FOLDER
    memory = out / MEMORY
    tables = {name: [_row(name, one) for one in results.measured(name)] for name in KEYS}
    if not any(tables.values()):
        raise InputError(results.where, None, "no finished row", "a run that measured something")
    name = gpu_of(results.device, gpu)
    head = _head(results, name, tables)
    if memory.is_file():
        head["memory"] = json.loads(memory.read_text(encoding="utf-8"))
    write_folder(target, head, tables, host_entries(results, name))
    _write_csv(target / "sentinels.csv", _SENTINELS, results.sentinels)
    _write_csv(target / "repeatability.csv", _REPEATABILITY, _repeated(results))
    return target


def _row(table: str, entry: Entry) -> dict[str, Any]:
    """Return a row: the keys, and of the rest what the schema knows."""
    measures = {key: entry[key] for key in MEASURES if key in entry and key not in KEYS[table]}
    if table == _N_IS_A_KEY:
        measures.pop("n", None)
    row = {key: value for key, value in entry["keys"].items() if key in KEYS[table]}
    return {**row, **measures, TIMES[table]: entry["us_p50"]}


def _head(results: Results, gpu: str, tables: Mapping[str, list[Any]]) -> dict[str, Any]:
    session, device = results.session, results.device
    date = str(session["started"])[: len("2026-11-20")]
    protocol = session["protocol"]
    head: dict[str, Any] = {
        "kind": "measured",
        "source": f"calibrate run --plan {session['plan']} on {device['name']}",
        "date": date,
        "device": {
            "gpu": gpu,
            **({"sms": device["sms"]} if device.get("sms") else {}),
            **{key: value for key, value in device.items() if key != "sms" and value is not None},
        },
    }
    used = _used(results, tables)
    if used:
        head["use"] = used
    return head | {
        "software": {
            key: value for key, value in session["facts"]["software"].items() if value is not None
        },
        "ceilings": ceiling_facts(results),
        "run": {
            "date": session["started"],
            "simserve": session["simserve"],
            "git_commit": session["git_commit"],
            "tree_dirty": session["tree_dirty"],
            "seconds": round(results.seconds, 1),
            "points": sum(len(rows) for rows in tables.values()),
            "seed": session["seed"],
            "order": "shuffled",
            "l2": f"cold: weights and KV rotate through {protocol['cold_caches']:g} caches' worth",
            "min_ms": protocol["min_s"] * 1e3,
            "min_repeats": protocol["fewest_replays"],
        },
        "quality": quality_facts(results),
        "missing": missing(results, tables),
    }


def _used(results: Results, tables: Mapping[str, list[Any]]) -> dict[str, str]:
    """Return, for tables with several backends, the one of the plan's own blocks."""
    used = {}
    for table in _BACKENDS:
        backends = {row["backend"] for row in tables[table]}
        own = [one for one in results.measured(table) if one["block"] != "backends"]
        if len(backends) > 1 and own:
            used[table] = str(own[0]["keys"]["backend"])
    return used


def missing(results: Results, tables: Mapping[str, list[Any]]) -> list[str]:
    """Return what a reader might expect and will not find, one sentence each."""
    found = [
        f"{block}: {many} points without a time ({reason})"
        for block, reason, many in results.unmeasured()
    ]
    found += [f"{block}: {many} points were not reached" for block, many in results.not_reached()]
    found += [
        f"only a part of the plan was asked for: {' '.join(asked['blocks'] + asked['models'])}"
        for asked in [results.session["asked"]]
        if len(results.sessions) == 1 and asked["blocks"] + asked["models"]
    ]
    gpus = {one["facts"]["device"]["uuid_hash"] for one in results.sessions}
    if len(gpus) > 1:
        name = results.device["name"]
        found.append(f"rows of a single GPU: they are of {len(gpus)}, each {name}")
    found += [f"{name}.csv: no row" for name in KEYS if not tables[name] and name != "comm"]
    found.append("comm.csv: collectives need several GPUs, one was measured")
    if tables["moe"]:
        found.append(_MIXTURE_LIMITS)
    found.append("host time of an engine: calibrate validate fits it")
    return found


def _repeated(results: Results) -> Iterable[dict[str, Any]]:
    for name, again in results.repeats.items():
        first = results.points.get(name)
        if first is not None and first["status"] == again["status"] == "ok":
            error = again["us_p50"] / first["us_p50"] - 1
            yield {
                "table": first["table"],
                "name": name,
                "us_first": first["us_p50"],
                "us_again": again["us_p50"],
                "error_pct": round(100 * error, 2),
            }


def _write_csv(path: Path, columns: tuple[str, ...], rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([row.get(column, "") for column in columns] for row in rows)
