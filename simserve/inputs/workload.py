"""What is asked of a deployment: synthetic traffic described by a few numbers, or a trace.

This module only reads and checks the description; ``simserve.traffic`` draws the requests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from simserve.errors import InputError
from simserve.inputs.units import (
    PositiveCount,
    PositiveNumber,
    RatePerS,
    Seconds,
    TokenCount,
    parse_count,
)
from simserve.inputs.validation import KeyProblem, Origins, StrictModel, validate

ArrivalProcess = Literal["poisson", "constant", "gamma", "all-at-once"]
TraceFormat = Literal["azure", "mooncake", "timed-trace"]


def _hyphenated(value: Any) -> Any:
    return value.replace("_", "-") if isinstance(value, str) else value


class ArrivalsSpec(StrictModel):
    """When requests come.

    ``burstiness`` is vLLM's: the shape of the gamma distribution of the gaps (1 is Poisson,
    less is burstier).
    """

    process: Annotated[ArrivalProcess, BeforeValidator(_hyphenated)] = Field(
        default="poisson", description="poisson, constant, gamma or all-at-once"
    )
    rate_per_s: RatePerS | None = Field(
        default=None, description="a number above 0, in requests per second"
    )
    burstiness: PositiveNumber | None = Field(
        default=None, description="a number above 0: the shape of the gamma distribution"
    )

    @model_validator(mode="after")
    def _agrees(self) -> ArrivalsSpec:
        if self.process == "all-at-once":
            if self.rate_per_s is not None:
                raise KeyProblem("rate_per_s", self.rate_per_s, "no rate for all-at-once")
        elif self.rate_per_s is None:
            allowed = f"a number above 0, in requests per second, for process {self.process}"
            raise KeyProblem("rate_per_s", "nothing", allowed)
        if self.process == "gamma" and self.burstiness is None:
            raise KeyProblem("burstiness", "nothing", "a number above 0, for process gamma")
        if self.process != "gamma" and self.burstiness is not None:
            allowed = f"no burstiness for process {self.process}; use process gamma"
            raise KeyProblem("burstiness", self.burstiness, allowed)
        return self


class LengthSpec(StrictModel):
    """How many tokens: always ``fixed``, or lognormal with this ``median`` and ``p95``.

    Draws outside ``min``..``max`` are cut to the nearer of the two.
    """

    fixed: TokenCount | None = Field(default=None, description="tokens, at least 1")
    median: PositiveNumber | None = Field(default=None, description="tokens, above 0")
    p95: PositiveNumber | None = Field(default=None, description="tokens, above the median")
    min: TokenCount | None = Field(default=None, description="tokens, at least 1")
    max: TokenCount | None = Field(default=None, description="tokens, at least min")

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        """Read a bare ``512`` (or ``2k``) as ``{fixed: 512}``."""
        if isinstance(value, (dict, LengthSpec)):
            return value
        try:
            fixed = parse_count(value, "")
        except ValueError:
            fixed = 0
        if fixed < 1:
            raise KeyProblem("", value, "tokens: an integer of at least 1, or {median, p95}")
        return {"fixed": fixed}

    @model_validator(mode="after")
    def _agrees(self) -> LengthSpec:
        if self.fixed is not None:
            for key in ("median", "p95", "min", "max"):
                if getattr(self, key) is not None:
                    raise KeyProblem(key, getattr(self, key), "nothing beside fixed")
            return self
        if self.median is None:
            raise KeyProblem("", "nothing", "tokens: an integer, or {median, p95}")
        if self.p95 is None:
            raise KeyProblem("p95", "nothing", "tokens, beside median")
        if self.p95 <= self.median:
            allowed = f"more than the median ({self.median:g}); use fixed for one length"
            raise KeyProblem("p95", self.p95, allowed)
        if self.min is not None and self.max is not None and self.max < self.min:
            raise KeyProblem("max", self.max, f"at least min ({self.min})")
        return self


class PrefixSpec(StrictModel):
    """``count`` shared prefixes of ``tokens`` each.

    One of them, drawn uniformly, stands in front of every prompt; ``prompt_tokens`` counts
    what follows it.
    """

    count: PositiveCount = Field(description="an integer of at least 1: different prefixes")
    tokens: TokenCount = Field(description="an integer of at least 1: tokens of each prefix")


class TraceSpec(StrictModel):
    """A file of requests; ``head`` keeps only the first so many."""

    file: Annotated[str, Field(min_length=1)] = Field(description="the name of a trace file")
    format: Annotated[TraceFormat, BeforeValidator(_hyphenated)] | None = Field(
        default=None, description="azure, mooncake or timed-trace"
    )
    head: PositiveCount | None = Field(
        default=None, description="an integer of at least 1: keep the first so many requests"
    )


class WorkloadSpec(StrictModel):
    """Either synthetic traffic or a trace."""

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
    trace: TraceSpec | None = Field(
        default=None, description="a mapping with file, format and head"
    )

    @model_validator(mode="after")
    def _agrees(self) -> WorkloadSpec:
        synthetic = ("arrivals", "prompt_tokens", "output_tokens")
        if self.trace is not None:
            for key in (*synthetic, "num_requests", "duration_s", "prefix"):
                if getattr(self, key) is not None:
                    raise KeyProblem(key, "a value", "nothing beside trace")
            return self
        for key in synthetic:
            if getattr(self, key) is None:
                raise KeyProblem(key, "nothing", f"{', '.join(synthetic)} (or a trace)")
        if self.num_requests is not None and self.duration_s is not None:
            raise KeyProblem("duration_s", self.duration_s, "either num_requests or duration_s")
        if self.num_requests is None and self.duration_s is None:
            raise KeyProblem("num_requests", "nothing", "num_requests or duration_s")
        if self.duration_s is not None and self.arrivals and self.arrivals.rate_per_s is None:
            raise KeyProblem("duration_s", self.duration_s, "num_requests for all-at-once")
        return self


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
