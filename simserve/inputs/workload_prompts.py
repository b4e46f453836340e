"""What prompts have in common: shared segments, conversations, classes of requests."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

from simserve.errors import InputError
from simserve.inputs.slo import Slo, parse_slo, slo_schema
from simserve.inputs.units import PositiveCount, PositiveNumber, Seconds, TokenCount
from simserve.inputs.validation import KeyProblem, StrictModel
from simserve.inputs.workload_lengths import LengthSpec

Name = Annotated[str, Field(min_length=1)]


class PrefixSpec(StrictModel):
    """``count`` shared prefixes of ``tokens`` each.

    One of them, drawn uniformly, stands in front of every prompt; ``prompt_tokens`` counts
    what follows it.
    """

    count: PositiveCount = Field(description="an integer of at least 1: different prefixes")
    tokens: TokenCount = Field(description="an integer of at least 1: tokens of each prefix")


class SegmentGroupSpec(StrictModel):
    """A stock of shared texts: system prompts, tools, documents, retrieved chunks.

    ``per_request`` different ones of ``count`` stand in a prompt, in the order in which they
    were drawn. ``zipf`` makes the k-th most popular ``k ** -zipf`` times as likely as the
    first; without it all are equally likely. ``share_frac`` of the requests have the group at
    all. Each text has a length of its own, drawn once.
    """

    name: Name = Field(description="a text: what the group is called")
    count: PositiveCount = Field(description="an integer of at least 1: different texts")
    tokens: LengthSpec = Field(description="tokens of a text: an integer, or {median, p95}")
    per_request: PositiveCount | None = Field(
        default=None, description="an integer of at least 1: texts of the group in a prompt"
    )
    zipf: PositiveNumber | None = Field(
        default=None, description="a number above 0: the exponent of the popularity"
    )
    share_frac: float | None = Field(
        default=None, gt=0, le=1, description="a share above 0, at most 1, of the requests"
    )

    @model_validator(mode="after")
    def _agrees(self) -> SegmentGroupSpec:
        if self.per_request is not None and self.per_request > self.count:
            raise KeyProblem("per_request", self.per_request, f"at most count ({self.count})")
        return self


class SessionsSpec(StrictModel):
    """Conversations: a later prompt is the earlier one, its answer, and ``prompt_tokens`` more.

    ``arrivals`` are those of conversations, each with ``turns`` turns, or on average
    ``mean_turns`` (geometric, at least 1). With ``wait_for_answer`` a turn comes a think time
    after the answer to the turn before it. Else **it does not wait**: it comes a think time after
    that turn *arrived* (the load is open-loop), so choose think times that leave room for the
    answer. They are ``think_time_s`` long, or lognormal with that median if ``think_time_p95_s``
    is given. A conversation ends before the turn whose prompt and output would exceed
    ``max_context_tokens``. Of conversations that wait, ``num_requests`` takes whole ones in the
    order in which they begin, and ``duration_s`` all that begin by then.
    """

    turns: PositiveCount | None = Field(default=None, description="an integer of at least 1")
    mean_turns: PositiveNumber | None = Field(default=None, description="a number of at least 1")
    think_time_s: Seconds = Field(description="a duration above 0, in seconds")
    think_time_p95_s: Seconds | None = Field(
        default=None, description="a duration above think_time_s, in seconds"
    )
    max_context_tokens: TokenCount | None = Field(
        default=None, description="tokens, at least 1: of a prompt and its output"
    )
    wait_for_answer: bool | None = Field(
        default=None, description="true or false: think only once the answer is there"
    )

    @model_validator(mode="after")
    def _agrees(self) -> SessionsSpec:
        if (self.turns is None) == (self.mean_turns is None):
            got = "nothing" if self.turns is None else "both"
            raise KeyProblem("turns", got, "either turns or mean_turns")
        if self.mean_turns is not None and self.mean_turns < 1:
            raise KeyProblem("mean_turns", self.mean_turns, "a number of at least 1")
        if self.think_time_p95_s is not None and self.think_time_p95_s <= self.think_time_s:
            allowed = f"more than think_time_s ({self.think_time_s:g}), which is the median"
            raise KeyProblem("think_time_p95_s", self.think_time_p95_s, allowed)
        return self


def _as_slo(value: Any) -> Slo | None:
    try:
        return value if value is None or isinstance(value, Slo) else parse_slo(value)
    except InputError as error:
        raise KeyProblem("", error.got, error.allowed or "") from None


ClassObjectives = Annotated[
    Slo | None,
    PlainValidator(_as_slo),
    PlainSerializer(lambda slo: None if slo is None else slo.limits_ms()),
    WithJsonSchema(slo_schema()),
]


class ClassSpec(StrictModel):
    """A kind of request: how many there are of it, how urgent, and lengths of its own.

    ``weight`` is its share relative to the other classes. A smaller ``priority`` is better; it
    takes effect with the engine's priority scheduling. Lengths that are not given are those of
    the workload. ``slo`` is what the class is promised, in place of the scenario's objectives.
    All turns of a conversation are of one class.
    """

    name: Name = Field(description="a text: what the class is called")
    weight: PositiveNumber = Field(description="a number above 0: the share of the class")
    priority: int | None = Field(default=None, description="an integer; smaller is better")
    slo: ClassObjectives = Field(
        default=None, description="objectives of its own, such as 'ttft:500 tpot:50'"
    )
    prompt_tokens: LengthSpec | None = Field(
        default=None, description="tokens: an integer, or {median, p95}"
    )
    output_tokens: LengthSpec | None = Field(
        default=None, description="tokens: an integer, or {median, p95}"
    )
