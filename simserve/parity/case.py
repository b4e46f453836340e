"""Scheduler cases: a scenario in virtual time, and what a real scheduler did with it."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from simserve.errors import InputError
from simserve.latency.model import UNLIMITED_CONTEXT, DecodeLine
from simserve.policy.limits import SchedulerLimits
from simserve.records.clock import PS_PER_NS, PS_PER_S, to_ps
from simserve.records.requests import RequestTable, SegmentTable
from simserve.records.step import StepShape

RENAMED = {"policy": "scheduling_policy"}
"""Case settings that bear another name here."""

NOT_MODELLED = {"prefill_schedule_interval": 1}
"""Settings that a case may only have at this value."""


@dataclass(frozen=True, slots=True)
class CaseStepTime:
    """A step time linear in tokens and in context: the latency model of a case."""

    base_ps: int
    per_token_ps: int
    per_context_ps: int

    def step_s(self, shape: StepShape) -> float:
        """Return the duration of a step in seconds."""
        duration_ps = (
            self.base_ps
            + self.per_token_ps * shape.tokens
            + self.per_context_ps * shape.context_tokens
        )
        return duration_ps / PS_PER_S

    def decode_line(self, decode_seqs: int, decode_context_tokens: int) -> DecodeLine:
        """Return the line on which decode-only steps of ``decode_seqs`` lie."""
        base_ps = self.base_ps + self.per_token_ps * decode_seqs
        return DecodeLine(base_ps, self.per_context_ps, UNLIMITED_CONTEXT)


@dataclass(frozen=True, slots=True)
class Case:
    """One scenario: settings, step time, requests."""

    name: str
    limits: SchedulerLimits
    step_time: CaseStepTime
    requests: RequestTable


def load_case(path: Path) -> Case:
    """Read ``NAME.case.json[.gz]``.

    Raises:
        InputError: if the file is no case, or asks for a setting that is not modelled.
    """
    try:
        raw = json.loads(_read_text(path))
        limits = _limits(path, raw)
        times = raw["step_time"]
        step_time = CaseStepTime(
            to_ps(times["base_s"]), to_ps(times["per_token_s"]), to_ps(times["per_ctx_token_s"])
        )
        requests = _requests(raw["requests"])
        return Case(str(raw["name"]), limits, step_time, requests)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(str(path), None, repr(error), "a scheduler case of format 1") from None


def load_expected(case_path: Path) -> list[dict[str, Any]]:
    """Read the records that lie beside a case as ``NAME.expected.jsonl[.gz]``."""
    stem = case_path.name.removesuffix(".gz").removesuffix(".case.json")
    for suffix in (".expected.jsonl.gz", ".expected.jsonl"):
        path = case_path.with_name(stem + suffix)
        if path.exists():
            try:
                return [json.loads(line) for line in _read_text(path).splitlines()]
            except ValueError:
                raise InputError(
                    str(path), None, "a broken line", "one JSON record a line"
                ) from None
    raise InputError(
        str(case_path), None, "no expected records", f"{stem}.expected.jsonl[.gz] beside it"
    )


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        return data.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(str(path), None, reason, "a readable file") from None


def _limits(path: Path, raw: dict[str, Any]) -> SchedulerLimits:
    known = {field.name for field in fields(SchedulerLimits)}
    settings: dict[str, Any] = {}
    for key, value in {**raw["scheduler"], **raw["kv"]}.items():
        name = RENAMED.get(key, key)
        if key in NOT_MODELLED:
            if value != NOT_MODELLED[key]:
                raise InputError(
                    str(path), f"scheduler.{key}", value, f"{NOT_MODELLED[key]} for now"
                )
        elif name not in known:
            raise InputError(str(path), f"scheduler.{key}", value, "settings that are modelled")
        else:
            settings[name] = value
    return SchedulerLimits(**settings)


def _requests(rows: list[dict[str, Any]]) -> RequestTable:
    prompts = [row["prompt"] for row in rows]
    entries = [entry for prompt in prompts for entry in prompt]
    last = max([entry[0] for entry in entries] + [row.get("out", -1) for row in rows], default=-1)
    outputs = [row.get("out", last + 1 + i) for i, row in enumerate(rows)]
    sizes = [len(prompt) for prompt in prompts]
    arrival_ns = [round(row["arrival_s"] * (PS_PER_S // PS_PER_NS)) for row in rows]
    return RequestTable(
        arrival_ps=_ints(arrival_ns) * PS_PER_NS,
        prompt_tokens=_ints([sum(entry[1] for entry in prompt) for prompt in prompts]),
        output_tokens=_ints([row["output_len"] for row in rows]),
        segments=SegmentTable(
            offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            segment=_ints([entry[0] for entry in entries]),
            tokens=_ints([entry[1] for entry in entries]),
        ),
        output_segment=_ints(outputs),
        priority=_ints([row.get("priority", 0) for row in rows]),
        request_id=tuple(str(row["id"]) for row in rows),
    )


def _ints(values: list[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)
