"""When requests come: the processes that a workload can ask for, each with its own keys."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from simserve.inputs.units import (
    RATE_UNITS,
    SECOND_UNITS,
    PositiveCount,
    PositiveNumber,
    RatePerS,
    Seconds,
    parse_quantity,
    quantity_schema,
)
from simserve.inputs.validation import KeyProblem, StrictModel

ArrivalProcess = Literal[
    "poisson",
    "constant",
    "gamma",
    "all-at-once",
    "vllm-bench",
    "piecewise",
    "diurnal",
    "on-off",
    "closed-loop",
]

# For every process: the keys it cannot do without, and those it takes besides.
_KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "poisson": (("rate_per_s",), ()),
    "constant": (("rate_per_s",), ()),
    "gamma": (("rate_per_s", "burstiness"), ()),
    "all-at-once": ((), ()),
    "vllm-bench": (("rate_per_s",), ("burstiness",)),
    "piecewise": (("steps",), ("rate_per_s", "burstiness")),
    "diurnal": (("rate_per_s", "peak_to_mean"), ("period_s", "peak_at_s", "burstiness")),
    "on-off": (("rate_per_s", "on_s", "off_s"), ("off_rate_frac", "burstiness")),
    "closed-loop": (("users",), ("think_time_s",)),
}
_RAMP_KEYS = ("ramp_up", "start_rate_per_s", "end_rate_per_s")
_WANTED = {
    "rate_per_s": "a number above 0, in requests per second",
    "burstiness": "a number above 0",
    "steps": "a list of {duration_s, rate_per_s}",
    "peak_to_mean": "a number from 1 to 2",
    "on_s": "a mean duration above 0, in seconds",
    "off_s": "a mean duration above 0, in seconds",
    "users": "how many, an integer of at least 1",
}
_HIGHEST_PEAK_TO_MEAN = 2.0  # of a sine that never goes below 0


def hyphenated(value: Any) -> Any:
    """Return a name as the catalogues spell it: hyphens for underscores."""
    return value.replace("_", "-") if isinstance(value, str) else value


def as_tuple(value: Any) -> Any:
    """Return a list, as files have it, as the tuple that a frozen model holds."""
    return tuple(value) if isinstance(value, list) else value


def _rate_or_zero(value: Any) -> float:
    allowed = "a number of at least 0, in requests per second"
    rate = parse_quantity(value, RATE_UNITS, allowed)
    if rate < 0:
        raise ValueError(allowed)
    return rate


def _seconds_or_zero(value: Any) -> float:
    allowed = "a duration of at least 0, in seconds or such as 6h"
    duration_s = parse_quantity(value, SECOND_UNITS, allowed)
    if duration_s < 0:
        raise ValueError(allowed)
    return duration_s


RateOrZero = Annotated[
    float,
    BeforeValidator(_rate_or_zero),
    WithJsonSchema(quantity_schema(RATE_UNITS, lowest=0)),
]
SecondsOrZero = Annotated[
    float,
    BeforeValidator(_seconds_or_zero),
    WithJsonSchema(quantity_schema(SECOND_UNITS, lowest=0)),
]


class RateStep(StrictModel):
    """A stretch of time at one rate, or with a rate that changes evenly to another."""

    duration_s: Seconds = Field(description="a duration above 0, in seconds or such as 10min")
    rate_per_s: RateOrZero = Field(description="a number of at least 0, in requests per second")
    to_rate_per_s: RateOrZero | None = Field(
        default=None, description="the rate at the step's end, in requests per second"
    )

    @property
    def requests(self) -> float:
        """How many requests are expected in the step."""
        end = self.rate_per_s if self.to_rate_per_s is None else self.to_rate_per_s
        return self.duration_s * (self.rate_per_s + end) / 2


class ArrivalsSpec(StrictModel):
    """When requests come; ``rate_per_s`` is the mean over time for every process.

    ``burstiness`` is vLLM's: the shape of the gamma distribution of the gaps (1 is Poisson,
    less is burstier). Where the rate changes, gaps are counted in expected requests.

    - ``vllm-bench``: as ``vllm bench serve`` does it: the times are stretched so that the last
      is exactly requests / rate. Or a ``ramp_up`` from ``start_rate_per_s`` to
      ``end_rate_per_s``, by request number, which is not stretched.
    - ``piecewise``: ``steps`` of {duration_s, rate_per_s, to_rate_per_s}, over and over;
      ``rate_per_s`` rescales them to that mean.
    - ``diurnal``: a sine around ``rate_per_s`` of ``period_s`` (a day), with its peak at
      ``peak_at_s`` (half a period) and ``peak_to_mean`` times as high.
    - ``on-off``: bursts of mean ``on_s`` and pauses of mean ``off_s`` seconds, both
      exponential; during a pause the rate is ``off_rate_frac`` (0) of that in a burst.
    - ``closed-loop``: ``users`` who think, ask, and wait for the answer before they think
      again; ``think_time_s`` (0) is the mean of exponential times.
    """

    KEY_HINTS: ClassVar[dict[str, str]] = dict.fromkeys(
        ("concurrency", "max_concurrency"), "users, with process closed-loop"
    )

    process: Annotated[ArrivalProcess, BeforeValidator(hyphenated)] = Field(
        default="poisson",
        description="poisson, constant, gamma, all-at-once, vllm-bench, piecewise, diurnal, "
        "on-off or closed-loop",
    )
    rate_per_s: RatePerS | None = Field(
        default=None, description="a number above 0, in requests per second"
    )
    burstiness: PositiveNumber | None = Field(
        default=None, description="a number above 0: the shape of the gamma distribution"
    )
    ramp_up: Literal["linear", "exponential"] | None = Field(
        default=None, description="linear or exponential"
    )
    start_rate_per_s: RatePerS | None = Field(
        default=None, description="a number above 0, in requests per second"
    )
    end_rate_per_s: RatePerS | None = Field(
        default=None, description="a number above 0, in requests per second"
    )
    steps: Annotated[tuple[RateStep, ...], BeforeValidator(as_tuple)] | None = Field(
        default=None, description="a list of {duration_s, rate_per_s, to_rate_per_s}"
    )
    peak_to_mean: PositiveNumber | None = Field(default=None, description="a number from 1 to 2")
    period_s: Seconds | None = Field(
        default=None, description="a duration above 0, in seconds or such as 24h"
    )
    peak_at_s: SecondsOrZero | None = Field(
        default=None, description="a time of at least 0, in seconds or such as 14h"
    )
    on_s: Seconds | None = Field(default=None, description="a mean duration above 0, in seconds")
    off_s: Seconds | None = Field(default=None, description="a mean duration above 0, in seconds")
    off_rate_frac: float | None = Field(
        default=None, ge=0, le=1, description="a share from 0 to 1 of the rate of a burst"
    )

    users: PositiveCount | None = Field(
        default=None, description="how many, an integer of at least 1"
    )
    think_time_s: SecondsOrZero | None = Field(
        default=None, description="a mean time of at least 0, in seconds or such as 30s"
    )

    @model_validator(mode="after")
    def _agrees(self) -> ArrivalsSpec:
        needed, others = _KEYS[self.process]
        if self.process == "vllm-bench" and self._ramps():
            needed, others = _RAMP_KEYS, ("burstiness",)
        for key in needed:
            if getattr(self, key) is None:
                allowed = f"{_WANTED.get(key, 'a value')}, for process {self.process}"
                raise KeyProblem(key, "nothing", allowed)
        for key in type(self).model_fields:
            if key != "process" and key not in (*needed, *others):
                self._refuse(key)
        if self.steps is not None and not any(step.requests for step in self.steps):
            raise KeyProblem("steps", "no request in any step", "a rate above 0 in one of them")
        if self.peak_to_mean is not None and not 1 <= self.peak_to_mean <= _HIGHEST_PEAK_TO_MEAN:
            raise KeyProblem("peak_to_mean", self.peak_to_mean, "a number from 1 to 2")
        return self

    def _ramps(self) -> bool:
        return any(getattr(self, key) is not None for key in _RAMP_KEYS)

    def _refuse(self, key: str) -> None:
        value = getattr(self, key)
        if value is None:
            return
        if key == "rate_per_s":
            raise KeyProblem(key, value, f"no rate for {self.process}{self._ramp_hint()}")
        hint = "; use process gamma" if key == "burstiness" else ""
        raise KeyProblem(key, value, f"no {key} for process {self.process}{hint}")

    def _ramp_hint(self) -> str:
        return " with a ramp_up" if self.process == "vllm-bench" else ""
