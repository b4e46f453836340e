"""Cases and the records beside them, as files: ``NAME.case.json`` and ``NAME.expected.jsonl``.

The format is that of the recorded schedules of vLLM 0.33.0; either file may be gzipped.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from simserve.errors import InputError, reason_of
from simserve.parity.case import Case, CaseRequest, CaseStepTime, rows_of, table_of
from simserve.policy.limits import SchedulerLimits
from simserve.records.clock import PS_PER_NS, PS_PER_S, to_ps

Record = dict[str, Any]

CASE_SUFFIX = ".case.json"
NS_PER_S = PS_PER_S // PS_PER_NS

RENAMED = {"policy": "scheduling_policy"}
"""Case settings that bear another name here."""

_STEP_TIMES = ("base_s", "per_token_s", "per_ctx_token_s")
_TOO_LARGE = (OverflowError, RecursionError)  # an infinity, or deep nesting
_KINDS: dict[str, type | tuple[type, ...]] = {
    "int": int,
    "bool": bool,
    "float": (int, float),
    "str": str,
    "int | None": (int, type(None)),
}
"""What JSON may hold for a setting, by its annotation."""

KV_SETTINGS = ("num_blocks", "block_size", "enable_prefix_caching")


def load_case(path: Path) -> Case:
    """Read ``NAME.case.json[.gz]``.

    Raises:
        InputError: if the file is no case, or asks for a setting that is not modelled.
    """
    try:
        raw = json.loads(_read_text(path))
        limits = _limits(path, raw)
        times = [_number(raw["step_time"][key]) for key in _STEP_TIMES]
        step_time = CaseStepTime(*map(to_ps, times))
        rows = [_request(row) for row in raw["requests"]]
        description = str(raw.get("description", ""))
        return Case(str(raw["name"]), limits, step_time, table_of(rows), description)
    except (LookupError, TypeError, AttributeError, ValueError, *_TOO_LARGE) as error:
        got = reason_of(error)
        raise InputError(str(path), None, got, "a scheduler case of format 1") from None


def save_case(case: Case, path: Path) -> None:
    """Write a case, without the settings and fields that have their default value."""
    head = {"name": case.name, "format": 1, "description": case.description}
    settings = {
        name: {key: value for key, value in part.items() if key not in _defaults(part)}
        for name, part in settings_of(case.limits).items()
    }
    lines = [json.dumps(_row(row)) for row in rows_of(case.requests)]
    head_text = json.dumps({**head, **settings, "step_time": _step_time(case)}, indent=1)
    body = ",\n  ".join(lines)
    text = f'{head_text[:-2]},\n "requests": [\n  {body}\n ]\n}}\n'
    path.write_text(text, encoding="utf-8")


def settings_of(limits: SchedulerLimits) -> dict[str, dict[str, Any]]:
    """Return all settings as a case has them: under ``scheduler`` and ``kv``, in vLLM's names."""
    values = asdict(limits)
    names = {new: old for old, new in RENAMED.items()}
    return {
        "scheduler": {names.get(k, k): v for k, v in values.items() if k not in KV_SETTINGS},
        "kv": {name: values[name] for name in KV_SETTINGS},
    }


def expected_path(case_path: Path) -> Path:
    """Return where the records of a case are written."""
    return case_path.with_name(_stem(case_path) + ".expected.jsonl")


def load_expected(case_path: Path) -> list[Record]:
    """Read the records that lie beside a case as ``NAME.expected.jsonl[.gz]``."""
    plain = expected_path(case_path)
    for path in (plain.with_name(plain.name + ".gz"), plain):
        if path.exists():
            try:
                records: list[Record] = [json.loads(line) for line in _read_text(path).splitlines()]
                if all("type" in record for record in records):
                    return records
                raise ValueError
            except (TypeError, ValueError, *_TOO_LARGE):
                raise InputError(
                    str(path), None, "a broken line", "one JSON record a line"
                ) from None
    raise InputError(str(case_path), None, "no expected records", f"{plain.name}[.gz] beside it")


def save_expected(records: Iterable[Record], case_path: Path) -> Path:
    """Write records beside a case; return where they are."""
    path = expected_path(case_path)
    lines = [json.dumps(record, separators=(",", ":")) for record in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _stem(case_path: Path) -> str:
    return case_path.name.removesuffix(".gz").removesuffix(CASE_SUFFIX)


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(str(path), None, "bytes that are not UTF-8", "a readable file") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(str(path), None, reason, "a readable file") from None


def _limits(path: Path, raw: dict[str, Any]) -> SchedulerLimits:
    known = {field.name for field in fields(SchedulerLimits)}
    settings: dict[str, Any] = {}
    for key, value in {**raw["scheduler"], **raw["kv"]}.items():
        name = RENAMED.get(key, key)
        if name not in known:
            raise InputError(str(path), f"scheduler.{key}", value, "settings that are modelled")
        settings[name] = value
    limits = SchedulerLimits(**settings)
    for field in fields(limits):
        value, kinds = getattr(limits, field.name), _KINDS.get(str(field.type), object)
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            raise TypeError(f"{field.name} is {value!r:.40}")
    return limits


def _defaults(part: dict[str, Any]) -> set[str]:
    """Return the settings of ``part`` that have their default value."""
    defaults = {field.name: field.default for field in fields(SchedulerLimits)}
    always = ("block_size", "enable_prefix_caching")
    return {
        key
        for key, value in part.items()
        if key not in always and defaults[RENAMED.get(key, key)] == value
    }


def _request(raw: dict[str, Any]) -> CaseRequest:
    return CaseRequest(
        str(raw["id"]),
        round(_number(raw["arrival_s"]) * NS_PER_S),
        tuple((int(segment), int(tokens)) for segment, tokens in raw["prompt"]),
        int(raw["output_len"]),
        raw.get("out"),
        int(raw.get("priority", 0)),
        round(_number(raw["give_up_s"]) * NS_PER_S) if "give_up_s" in raw else None,
    )


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r:.40} is no number")
    return value


def _step_time(case: Case) -> dict[str, float]:
    """Return the step time in seconds, as a case has it: at most 9 decimals."""
    times = case.step_time
    return {
        "base_s": _seconds(times.base_ps // PS_PER_NS),
        "per_token_s": _seconds(times.per_token_ps // PS_PER_NS),
        "per_ctx_token_s": _seconds(times.per_context_ps // PS_PER_NS),
    }


def _row(row: CaseRequest) -> Record:
    written: Record = {
        "id": row.request_id,
        "arrival_s": _seconds(row.arrival_ns),
        "prompt": row.prompt,
        "output_len": row.output_tokens,
    }
    if row.output_segment is not None:
        written["out"] = row.output_segment
    if row.priority:
        written["priority"] = row.priority
    if row.give_up_ns is not None:
        written["give_up_s"] = _seconds(row.give_up_ns)
    return written


def _seconds(ns: int) -> float:
    """Return nanoseconds in seconds; the nearest float reads back as the same number."""
    return ns / NS_PER_S
