"""How many tokens: a fixed number, a lognormal by two quantiles, or a histogram."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from simserve.inputs.units import PositiveNumber, TokenCount, parse_count
from simserve.inputs.validation import KeyProblem, StrictModel
from simserve.inputs.workload_arrivals import as_tuple

_Weight = Annotated[float, Field(ge=0)]


def _as_floats(value: Any) -> Any:
    value = as_tuple(value)
    if not isinstance(value, tuple):
        return value
    return tuple(float(one) if isinstance(one, int) and one is not True else one for one in value)


class HistogramSpec(StrictModel):
    """Lengths by bucket: ``weights[i]`` of them are above ``upto[i - 1]`` and at most ``upto[i]``.

    Within a bucket every length is equally likely; the first begins above ``above`` (0).
    """

    upto: Annotated[tuple[TokenCount, ...], BeforeValidator(as_tuple)] = Field(
        description="a rising list of token counts: the upper ends of the buckets"
    )
    weights: Annotated[tuple[_Weight, ...], BeforeValidator(_as_floats)] = Field(
        description="a list of numbers of at least 0, one for each bucket"
    )
    above: Annotated[int, Field(ge=0)] = Field(
        default=0, description="tokens of at least 0: the first bucket begins above it"
    )

    @model_validator(mode="after")
    def _agrees(self) -> HistogramSpec:
        if len(self.upto) != len(self.weights):
            got = f"{len(self.weights)} weights for {len(self.upto)} buckets"
            raise KeyProblem("weights", got, "as many weights as ends in upto")
        lower = (self.above, *self.upto)
        for before, after in zip(lower, self.upto, strict=False):
            if after <= before:
                raise KeyProblem("upto", f"{after} after {before}", "a rising list")
        if not sum(self.weights) > 0:
            raise KeyProblem("weights", "no weight", "at least one number above 0")
        return self


class LengthSpec(StrictModel):
    """How many tokens: ``fixed``, lognormal with this ``median`` and ``p95``, or a ``histogram``.

    Draws outside ``min``..``max`` are cut to the nearer of the two.
    """

    fixed: TokenCount | None = Field(default=None, description="tokens, at least 1")
    median: PositiveNumber | None = Field(default=None, description="tokens, above 0")
    p95: PositiveNumber | None = Field(default=None, description="tokens, above the median")
    histogram: HistogramSpec | None = Field(
        default=None, description="a mapping with upto and weights"
    )
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
            self._alone("fixed", ("median", "p95", "histogram", "min", "max"))
            return self
        if self.histogram is not None:
            self._alone("histogram", ("median", "p95"))
        elif self.median is None:
            raise KeyProblem("", "nothing", "tokens: an integer, {median, p95} or {histogram}")
        elif self.p95 is None:
            raise KeyProblem("p95", "nothing", "tokens, beside median")
        elif self.p95 <= self.median:
            allowed = f"more than the median ({self.median:g}); use fixed for one length"
            raise KeyProblem("p95", self.p95, allowed)
        if self.min is not None and self.max is not None and self.max < self.min:
            raise KeyProblem("max", self.max, f"at least min ({self.min})")
        return self

    def _alone(self, key: str, others: tuple[str, ...]) -> None:
        for other in others:
            if getattr(self, other) is not None:
                raise KeyProblem(other, getattr(self, other), f"nothing beside {key}")
