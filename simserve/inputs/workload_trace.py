"""A recorded file of requests, and which part of it is replayed how fast."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from simserve.errors import nearest_name
from simserve.inputs.units import PositiveCount, PositiveNumber, RatePerS, Seconds, TokenCount
from simserve.inputs.validation import KeyProblem, StrictModel
from simserve.inputs.workload_arrivals import SecondsOrZero, hyphenated

TraceFormat = Literal[
    "azure",
    "mooncake",
    "timed-trace",
    "burstgpt",
    "bailian",
    "servegen",
    "otel",
    "lengths",
    "table",
]

TABLE_ROLES = {
    "arrival_s": "seconds",
    "arrival_ms": "milliseconds",
    "arrival_time": "calendar time, such as 2024-05-10 12:00:00.5",
    "prompt_tokens": "tokens",
    "output_tokens": "tokens",
    "priority": "integer, smaller is better",
    "request_id": "text",
    "segments": "shared segments of the prompt, as id:tokens with blanks between",
    "output_segment": "id of the segment that the output is",
}
"""What a column of a table can mean; a column of that name needs no ``columns`` entry."""


class TraceSpec(StrictModel):
    """A file of requests, or the part of it from ``from_s`` to (not including) ``to_s``.

    Times count from the file's first request; what is kept starts at 0 again. ``head`` keeps
    the first so many requests of that. ``time_scale`` multiplies all times, and ``rate_per_s``
    picks the time scale that gives this mean rate: bursts stay bursts, only faster. Of a pool
    of clients (format servegen) ``rate_per_s`` scales the rates of the clients instead, and of
    a file without times it is the rate of Poisson arrivals.
    """

    file: Annotated[str, Field(min_length=1)] = Field(description="the name of a trace file")
    format: Annotated[TraceFormat, BeforeValidator(hyphenated)] | None = Field(
        default=None,
        description="azure, mooncake, timed-trace, burstgpt, bailian, servegen, otel, lengths or "
        "table",
    )
    head: PositiveCount | None = Field(
        default=None, description="an integer of at least 1: keep the first so many requests"
    )
    columns: dict[str, str] | None = Field(
        default=None, description="a mapping from meaning (arrival_s, ...) to column name"
    )
    block_tokens: TokenCount | None = Field(
        default=None, description="tokens, at least 1, of a block of hash_ids (timed-trace)"
    )
    rate_per_s: RatePerS | None = Field(
        default=None, description="a number above 0, in requests per second"
    )
    time_scale: PositiveNumber | None = Field(
        default=None, description="a number above 0: 2 is half as fast"
    )
    from_s: SecondsOrZero | None = Field(
        default=None, description="a time of at least 0, in seconds or such as 6h"
    )
    to_s: Seconds | None = Field(
        default=None, description="a time above from_s, in seconds or such as 7h"
    )

    skip_incomplete: bool | None = Field(
        default=None, description="true or false: leave out spans (otel) without token counts"
    )

    @model_validator(mode="after")
    def _agrees(self) -> TraceSpec:
        if self.rate_per_s is not None and self.time_scale is not None:
            raise KeyProblem("time_scale", self.time_scale, "either rate_per_s or time_scale")
        if self.to_s is not None and self.from_s is not None and self.to_s <= self.from_s:
            raise KeyProblem("to_s", self.to_s, f"a time above from_s ({self.from_s:g})")
        if self.columns is not None:
            self._check_columns(self.columns)
        return self

    def _check_columns(self, columns: dict[str, str]) -> None:
        if self.format not in (None, "table"):
            raise KeyProblem("columns", "a value", f"no columns for format {self.format}")
        for role in columns:
            if role not in TABLE_ROLES:
                near = nearest_name(role, TABLE_ROLES)
                hint = f"; did you mean {near}?" if near else ""
                raise KeyProblem("columns", role, ", ".join(TABLE_ROLES) + hint)
