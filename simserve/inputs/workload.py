"""What is asked of a deployment: synthetic traffic described by a few numbers, or a trace.

This module only reads and checks the description; ``simserve.traffic`` draws the requests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from simserve.errors import InputError
from simserve.inputs.units import PositiveCount, Seconds
from simserve.inputs.validation import KeyProblem, Origins, StrictModel, validate
from simserve.inputs.workload_arrivals import ArrivalProcess, ArrivalsSpec, RateStep, as_tuple
from simserve.inputs.workload_lengths import HistogramSpec, LengthSpec
from simserve.inputs.workload_patience import CancellationsSpec
from simserve.inputs.workload_prompts import ClassSpec, PrefixSpec, SegmentGroupSpec, SessionsSpec
from simserve.inputs.workload_trace import TABLE_ROLES, TraceFormat, TraceSpec

__all__ = [
    "TABLE_ROLES",
    "ArrivalProcess",
    "ArrivalsSpec",
    "CancellationsSpec",
    "ClassSpec",
    "HistogramSpec",
    "LengthSpec",
    "PrefixSpec",
    "RateStep",
    "SegmentGroupSpec",
    "SessionsSpec",
    "TraceFormat",
    "TraceSpec",
    "WorkloadSpec",
    "read_workload",
]

_BESIDE_TRACE = ("trace", "arrivals", "timeout_s", "cancellations")
_SYNTHETIC = ("arrivals", "prompt_tokens", "output_tokens")


class WorkloadSpec(StrictModel):
    """Either synthetic traffic or a trace (with arrivals if the trace has lengths only)."""

    arrivals: ArrivalsSpec | None = Field(
        default=None, description="a mapping with process, rate_per_s, burstiness"
    )
    prompt_tokens: LengthSpec | None = Field(
        default=None, description="tokens: an integer, or {median, p95}"
    )
    output_tokens: LengthSpec | None = Field(
        default=None, description="tokens: an integer, or {median, p95}"
    )
    num_requests: PositiveCount | None = Field(default=None, description="an integer of at least 1")
    duration_s: Seconds | None = Field(
        default=None, description="a duration above 0, in seconds: how long requests arrive"
    )
    prefix: PrefixSpec | None = Field(default=None, description="a mapping with count and tokens")
    segments: Annotated[tuple[SegmentGroupSpec, ...], BeforeValidator(as_tuple)] | None = Field(
        default=None, description="a list of {name, count, tokens}, in the order of the prompt"
    )
    sessions: SessionsSpec | None = Field(
        default=None, description="a mapping with turns or mean_turns, and think_time_s"
    )
    classes: Annotated[tuple[ClassSpec, ...], BeforeValidator(as_tuple)] | None = Field(
        default=None, description="a list of {name, weight, priority}"
    )
    timeout_s: Seconds | None = Field(
        default=None,
        description="a duration above 0, in seconds: without a whole answer clients give up",
    )
    cancellations: CancellationsSpec | None = Field(
        default=None, description="a mapping with frac and mean_after_s"
    )
    trace: TraceSpec | None = Field(
        default=None, description="a mapping with file, format and head"
    )

    @model_validator(mode="after")
    def _agrees(self) -> WorkloadSpec:
        if self.trace is not None:
            for key in type(self).model_fields:
                if key not in _BESIDE_TRACE and getattr(self, key) is not None:
                    raise KeyProblem(key, "a value", "nothing beside trace")
            return self
        for key in _SYNTHETIC:
            if getattr(self, key) is None and not self._every_class_has(key):
                raise KeyProblem(key, "nothing", f"{', '.join(_SYNTHETIC)} (or a trace)")
        self._check_how_many()
        closed = self.arrivals is not None and self.arrivals.process == "closed-loop"
        if closed and self.sessions is not None:
            raise KeyProblem("sessions", "a value", "no sessions for process closed-loop")
        if self.prefix is not None and self.segments is not None:
            raise KeyProblem("prefix", "a value", "either prefix or segments")
        _refuse_twice("segments", self.segments)
        _refuse_twice("classes", self.classes)
        return self

    def _check_how_many(self) -> None:
        if self.num_requests is not None and self.duration_s is not None:
            raise KeyProblem("duration_s", self.duration_s, "either num_requests or duration_s")
        if self.num_requests is None and self.duration_s is None:
            raise KeyProblem("num_requests", "nothing", "num_requests or duration_s")
        if self.duration_s is not None and self.arrivals is not None:
            process = self.arrivals.process
            if process in ("all-at-once", "vllm-bench", "closed-loop"):
                raise KeyProblem("duration_s", self.duration_s, f"num_requests for {process}")

    def _every_class_has(self, key: str) -> bool:
        if key == "arrivals" or not self.classes:
            return False
        return all(getattr(one, key) is not None for one in self.classes)


def _refuse_twice(
    which: str, named: tuple[SegmentGroupSpec, ...] | tuple[ClassSpec, ...] | None
) -> None:
    if named is None:
        return
    if not named:
        raise KeyProblem(which, "an empty list", "at least one entry, or no such key")
    names = [one.name for one in named]
    for name in names:
        if names.count(name) > 1:
            raise KeyProblem(which, f"{name} twice", "every name once")


def read_workload(entry: object, origins: Origins | None = None) -> WorkloadSpec:
    """Return the workload that the mapping ``entry`` describes.

    Raises:
        InputError: for the first thing that is wrong with it, a missing trace file included.
    """
    origins = origins or Origins("workload")
    spec = validate(WorkloadSpec, entry, origins, "workload")
    if spec.trace is not None:
        _refuse_missing(Path(spec.trace.file), origins.where("workload.trace.file"))
    return spec


def _refuse_missing(file: Path, where: str) -> None:
    try:
        found = "a folder" if file.is_dir() else None if file.exists() else "no such file"
    except (OSError, ValueError):
        found = "a name that no file can have"
    if found:
        raise InputError(where, "workload.trace.file", f"{file} ({found})", "a trace file")
