"""What spans say of requests: the attributes by name, and what is kept of them, as columns.

Spans are taken one by one here, which names whatever is wrong with one. ``otel_blocks`` gives the
same columns, of a block of lines at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from simserve.errors import InputError
from simserve.records.requests import IntArray
from simserve.traffic.trace_formats.column_kinds import TOKENS, TOKENS_OR_NONE
from simserve.traffic.trace_formats.otel_spans import Span

VLLM_SPAN = "llm_request"
PROMPT = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
OUTPUT = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
COUNTS = (*PROMPT, *OUTPUT)
CACHED = ("gen_ai.usage.cache_read.input_tokens",)
IDS = ("gen_ai.request.id", "gen_ai.response.id")
MODELS = ("gen_ai.response.model", "gen_ai.request.model")
TTFT = ("gen_ai.latency.time_to_first_token", "gen_ai.server.time_to_first_token")
E2E = ("gen_ai.latency.e2e",)
OPERATION = "gen_ai.operation.name"
# Operations that generate tokens; others (embeddings, execute_tool, invoke_agent, ...) do not, or
# stand around those that do.
GENERATING = ("chat", "text_completion", "generate_content")

COLUMNS: dict[str, type] = {
    "span": np.int64,  # its identity; 0: it has none
    "parent": np.int64,
    "start_s": np.int64,  # since 1970, and picoseconds after them
    "start_ps": np.int64,
    "prompt_tokens": np.int64,
    "output_tokens": np.int64,
    "cached_tokens": np.int64,
    "ttft_s": np.float64,  # NaN: not said
    "e2e_s": np.float64,
    "request_id": object,
    "model": object,
}
"""What is known of a request, and the type of its column."""

Columns = dict[str, npt.NDArray[Any]]


class Incomplete(NamedTuple):
    """A request span without a count of tokens, and where it stands."""

    span: int
    which: str
    missing: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSpans:
    """The requests among some spans, and what else the spans tell."""

    requests: Columns
    below: IntArray  # [:, 2]: the identity of any span that is inside another, and the other's
    spans: int  # requests or not
    incomplete: tuple[Incomplete, ...] = ()


def requests_of(path: Path, spans: Iterable[Span]) -> RequestSpans:
    """Return the requests among spans.

    Raises:
        InputError: naming the span that cannot be used.
    """
    rows: list[tuple[object, ...]] = []
    below: list[tuple[int, int]] = []
    incomplete: list[Incomplete] = []
    count = 0
    for span in spans:
        count += 1
        given, span_id, parent = span.attributes(), span.identity(), span.parent()
        if parent:
            below.append((span_id, parent))
        if not _is_request(span, given):
            continue
        where = (str(path), f"{span.place} ({span.name})" if span.name else span.place)
        prompt, output = _tokens(where, given, PROMPT), _tokens(where, given, OUTPUT)
        if prompt and output:
            rows.append((span_id, parent, *_times_and_tokens(where, span, given, prompt, output)))
        else:
            incomplete.append(Incomplete(span_id, where[1], (OUTPUT if prompt else PROMPT)[0]))
    values = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
    columns = zip(COLUMNS.items(), values, strict=True)
    return RequestSpans(
        requests={name: np.array(column, dtype=kind) for (name, kind), column in columns},
        below=np.array(below, dtype=np.int64).reshape(-1, 2),
        spans=count,
        incomplete=tuple(incomplete),
    )


def joined(parts: Iterable[RequestSpans]) -> RequestSpans:
    """Return what all the parts of a file tell, in its order."""
    parts = list(parts)
    return RequestSpans(
        requests=concatenated([part.requests for part in parts]),
        below=np.concatenate([np.empty((0, 2), np.int64), *(part.below for part in parts)]),
        spans=sum(part.spans for part in parts),
        incomplete=tuple(one for part in parts for one in part.incomplete),
    )


def concatenated(parts: Sequence[Columns]) -> Columns:
    """Return the requests of all parts, of which there may be none, as one."""
    nothing: Columns = {name: np.array((), dtype=kind) for name, kind in COLUMNS.items()}
    return {name: np.concatenate([part[name] for part in (nothing, *parts)]) for name in COLUMNS}


def _is_request(span: Span, given: Mapping[str, Any]) -> bool:
    operation = given.get(OPERATION)
    if operation is not None:
        return operation in GENERATING
    return span.name == VLLM_SPAN or any(name in given for name in COUNTS)


def _times_and_tokens(
    where: tuple[str, str], span: Span, given: Mapping[str, Any], prompt: int, output: int
) -> tuple[object, ...]:
    """Return the columns of a request after its ids."""
    try:
        start_s, start_ps = span.start()
    except ValueError:
        raise InputError(*where, "no start time", "startTimeUnixNano, in nanoseconds") from None
    e2e_s = _seconds(where, given, E2E)
    return (
        start_s,
        start_ps,
        prompt,
        output,
        _tokens(where, given, CACHED) or 0,
        _seconds(where, given, TTFT),  # None becomes NaN
        span.seconds() if e2e_s is None else e2e_s,
        str(_first(given, IDS) or span.id),
        str(_first(given, MODELS) or ""),
    )


def _first(given: Mapping[str, Any], names: Iterable[str]) -> Any:
    for name in names:
        if (value := given.get(name)) is not None:
            return value
    return None


def _tokens(where: tuple[str, str], given: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    """Return a count of tokens; None if there is none."""
    value = _first(given, names)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        return TOKENS_OR_NONE.one(value)
    except ValueError:
        raise InputError(where[0], f"{where[1]}: {names[0]}", value, TOKENS.allowed) from None


def _seconds(
    where: tuple[str, str], given: Mapping[str, Any], names: tuple[str, ...]
) -> float | None:
    """Return a measured latency; None if there is none."""
    value = _first(given, names)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < np.inf:
        raise InputError(where[0], f"{where[1]}: {names[0]}", value, "a duration in seconds")
    return float(value)
