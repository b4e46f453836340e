"""The ``plan`` section of a scenario: what a planner may vary, and how many people will ask.

``simserve plan`` reads it; a run does not depend on it. Who asks is given as people do: users,
requests of each per day, and the share of a day's requests that falls into its busiest hour, each
with the range that it may be in.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from simserve.inputs.sourced import KINDS
from simserve.inputs.units import PositiveCount, PositiveNumber
from simserve.inputs.validation import KeyProblem, StrictModel
from simserve.inputs.workload_arrivals import as_tuple

S_PER_HOUR = 3600
_DATE = "a date such as 2026-11-20"


def _kind(value: Any) -> Any:
    if value not in KINDS:
        raise ValueError("one of " + ", ".join(KINDS))
    return value


def _date(value: Any) -> Any:
    try:
        dt.date.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError(_DATE) from None
    return value


class RangedNumber(StrictModel):
    """A number, the range it may lie in, and who says so."""

    value: PositiveNumber = Field(description="a number above 0")
    low: PositiveNumber = Field(description="a number above 0, at most value")
    high: PositiveNumber = Field(description="a number of at least value")
    kind: Annotated[str, BeforeValidator(_kind)] = Field(description="one of " + ", ".join(KINDS))
    source: Annotated[str, Field(min_length=1)] = Field(
        description="where the number comes from, as text"
    )
    date: Annotated[str, BeforeValidator(_date)] = Field(description=_DATE)

    @model_validator(mode="after")
    def _agrees(self) -> RangedNumber:
        if not self.low <= self.value <= self.high:
            raise KeyProblem("value", self.value, f"from low ({self.low}) to high ({self.high})")
        return self


class AudienceSpec(StrictModel):
    """How many people ask how often; the load of the busiest hour follows."""

    daily_users: PositiveCount = Field(description="an integer of at least 1")
    requests_per_user_per_day: RangedNumber = Field(
        description="a mapping with value, low, high, kind, source and date"
    )
    peak_hour_share: RangedNumber = Field(
        description="the share of a day's requests in its busiest hour: value, low, high, …"
    )

    @model_validator(mode="after")
    def _agrees(self) -> AudienceSpec:
        if self.peak_hour_share.high > 1:
            raise KeyProblem("peak_hour_share.high", self.peak_hour_share.high, "at most 1")
        return self

    def peak_rate_per_s(
        self, requests_per_user: float | None = None, share: float | None = None
    ) -> float:
        """Return the requests per second of the busiest hour, with other values if given."""
        each = (
            self.requests_per_user_per_day.value
            if requests_per_user is None
            else (requests_per_user)
        )
        frac = self.peak_hour_share.value if share is None else share
        return self.daily_users * each * frac / S_PER_HOUR


Value = bool | int | float | str | None
Values = Annotated[tuple[Value, ...], BeforeValidator(as_tuple)]


class PlanSpec(StrictModel):
    """What may be varied, and what is asked beside the scenario."""

    audience: AudienceSpec | None = Field(
        default=None,
        description="a mapping with daily_users, requests_per_user_per_day, peak_hour_share",
    )
    prompt_factor: RangedNumber | None = Field(
        default=None, description="times the prompt lengths: value 1, low, high, kind, source, date"
    )
    output_factor: RangedNumber | None = Field(
        default=None, description="times the output lengths: value 1, low, high, kind, source, date"
    )
    vary: dict[str, Values] = Field(
        default_factory=dict, description="a mapping of keys of the deployment to lists of values"
    )
    limits: Annotated[tuple[dict[str, Value], ...], BeforeValidator(as_tuple)] | None = Field(
        default=None, description="a list of mappings: engine limits that go together"
    )
    max_gpus: PositiveCount | None = Field(
        default=None, description="an integer of at least 1: GPUs of all replicas together"
    )
    users: Annotated[tuple[PositiveCount, ...], BeforeValidator(as_tuple)] | None = Field(
        default=None, description="a list of numbers of users who ask at the same time"
    )

    @model_validator(mode="after")
    def _agrees(self) -> PlanSpec:
        for key, values in self.vary.items():
            if not values:
                raise KeyProblem(f"vary.{key}", "an empty list", "at least one value")
        for name in ("prompt_factor", "output_factor"):
            factor = getattr(self, name)
            if factor is not None and factor.value != 1:
                raise KeyProblem(f"{name}.value", factor.value, "1: the lengths as they stand")
        return self
