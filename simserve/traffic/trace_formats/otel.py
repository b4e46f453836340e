"""Requests read from OpenTelemetry spans: vLLM's own, or any with the GenAI conventions' names.

vLLM writes a span ``llm_request`` for every finished request, which starts at its arrival, with
``gen_ai.usage.prompt_tokens``, ``gen_ai.usage.completion_tokens``, ``gen_ai.request.id`` and
latencies in seconds (vLLM 0.33, vllm/tracing/utils.py and vllm/v1/engine/output_processor.py).
The conventions call the counts ``gen_ai.usage.input_tokens`` and ``gen_ai.usage.output_tokens``
(https://github.com/open-telemetry/semantic-conventions-genai); both are read.

Where one request span stands around another (a client's around the server's), the inner one
counts. Spans say nothing of what prompts share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from simserve.errors import InputError, one_line, shortened
from simserve.traffic.trace_formats.column_kinds import TOKENS, TOKENS_OR_NONE
from simserve.traffic.trace_formats.columns import (
    EVERYTHING,
    Part,
    Times,
    TraceFile,
    arrivals_of,
    plain_requests,
    selected,
)
from simserve.traffic.trace_formats.otel_spans import Instant, Span, spans_of

VLLM_SPAN = "llm_request"
PROMPT = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
OUTPUT = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
_IDS = ("gen_ai.request.id", "gen_ai.response.id")
_MODELS = ("gen_ai.response.model", "gen_ai.request.model")
_OPERATION = "gen_ai.operation.name"
# Operations that generate tokens; others (embeddings, execute_tool, invoke_agent, ...) do not, or
# stand around those that do.
_GENERATING = ("chat", "text_completion", "generate_content")
_TTFT = ("gen_ai.latency.time_to_first_token", "gen_ai.server.time_to_first_token")
_E2E = ("gen_ai.latency.e2e",)
_CACHED = ("gen_ai.usage.cache_read.input_tokens",)
_MOST_NAMES, _LONGEST_NAME = 3, 60
_SKIPPING = "--skip-incomplete (of a run, --set skip_incomplete=true)"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    span: str | None
    parent: str | None
    start: Instant
    prompt_tokens: int
    output_tokens: int
    request_id: str
    model: str
    ttft_s: float
    e2e_s: float
    cached_tokens: int


class _Incomplete(NamedTuple):
    span: str | None
    which: str
    missing: str


@dataclass(slots=True)
class _Found:
    """What a file of spans holds, while it is read."""

    requests: list[_Request] = field(default_factory=list)
    incomplete: list[_Incomplete] = field(default_factory=list)
    parents: dict[str, str] = field(default_factory=dict)
    others: int = 0


def read_otel(path: Path, part: Part = EVERYTHING, *, skip_incomplete: bool = False) -> TraceFile:
    """Return the requests that a file of spans tells of, with the latencies it measured.

    A request span without both token counts is refused, and how many there are is said;
    ``skip_incomplete`` leaves them out. ``part.head`` counts requests in order of arrival.

    Raises:
        InputError: naming the row and the span that cannot be used.
    """
    found = _Found()
    for span in spans_of(path):
        _take(path, span, found)
    around = _around_others(found)
    incomplete = [one for one in found.incomplete if one.span not in around]
    if incomplete and not skip_incomplete:
        more = f", and so have {len(incomplete) - 1} more" if len(incomplete) > 1 else ""
        allowed = f"both token counts; {_SKIPPING} leaves such spans out"
        first = incomplete[0]
        raise InputError(str(path), first.which, f"no {first.missing}{more}", allowed)
    inner = [one for one in found.requests if one.span not in around]
    if not inner:
        got = f"no request among {found.others + len(incomplete)} spans"
        allowed = f"spans {VLLM_SPAN}, or with {PROMPT[0]} and {OUTPUT[0]}"
        raise InputError(str(path), None, got, allowed)
    notes = _notes(inner, found.others, len(incomplete), len(around))
    return _as_trace(path, inner, part, notes)


def _take(path: Path, span: Span, found: _Found) -> None:
    """Note what the span is."""
    given, span_id, parent = span.attributes(), span.id(), span.parent_id()
    if span_id is not None and parent is not None:
        found.parents[span_id] = parent
    if not _is_request(span, given):
        found.others += 1
        return
    where = (str(path), f"{span.place} ({span.name})" if span.name else span.place)
    prompt, output = (_tokens(where, given, names) for names in (PROMPT, OUTPUT))
    if not prompt or not output:
        missing = OUTPUT[0] if prompt else PROMPT[0]
        found.incomplete.append(_Incomplete(span_id, where[1], missing))
        return
    try:
        start = span.start()
    except ValueError:
        raise InputError(*where, "no start time", "startTimeUnixNano, in nanoseconds") from None
    e2e_s = _seconds(where, given, _E2E)
    lasted_s = span.seconds() if e2e_s is None else e2e_s
    ttft_s = _seconds(where, given, _TTFT)
    found.requests.append(
        _Request(
            span=span_id,
            parent=parent,
            start=start,
            prompt_tokens=prompt,
            output_tokens=output,
            request_id=str(_first(given, _IDS) or (span_id or "").rpartition("/")[2]),
            model=str(_first(given, _MODELS) or ""),
            ttft_s=np.nan if ttft_s is None else ttft_s,
            e2e_s=np.nan if lasted_s is None else lasted_s,
            cached_tokens=_tokens(where, given, _CACHED) or 0,
        )
    )


def _is_request(span: Span, given: Mapping[str, Any]) -> bool:
    operation = given.get(_OPERATION)
    if operation is not None:
        return operation in _GENERATING
    return span.name == VLLM_SPAN or any(name in given for name in (*PROMPT, *OUTPUT))


def _first(given: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((given[name] for name in names if given.get(name) is not None), None)


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


def _around_others(found: _Found) -> set[str]:
    """Return the request spans that stand around another one, which counts instead."""
    spans = {one.span for one in found.requests} | {one.span for one in found.incomplete}
    around: set[str] = set()
    for one in found.requests:
        above, seen = one.parent, {one.span}
        while above is not None and above not in seen and above not in around:
            if above in spans:
                around.add(above)
            seen.add(above)
            above = found.parents.get(above)
    return around


def _notes(inner: list[_Request], others: int, incomplete: int, around: int) -> tuple[str, ...]:
    """Return what has to be said about the spans, in words."""
    notes = []
    if others:
        notes.append(f"{_count(others, 'span')} without an LLM's request left out")
    if incomplete:
        notes.append(f"{_count(incomplete, 'request span')} without token counts left out")
    if around:
        notes.append(f"{_count(around, 'request span')} around others left out: inner ones count")
    models = Counter(one.model for one in inner)
    if len(models) > 1:
        named = [f"{_shown(name)} {count}" for name, count in models.most_common(_MOST_NAMES)]
        more = ", …" if len(models) > _MOST_NAMES else ""
        notes.append(f"requests to {len(models)} models: {', '.join(named)}{more}")
    cached = sum(one.cached_tokens for one in inner)
    if cached:
        share = cached / sum(one.prompt_tokens for one in inner)
        notes.append(f"{share:.1%} of prompt tokens came from a cache; spans do not say which")
    return tuple(notes)


def _shown(model: str) -> str:
    return shortened(one_line(model), _LONGEST_NAME) or "unnamed"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _as_trace(
    path: Path, requests: list[_Request], part: Part, notes: tuple[str, ...]
) -> TraceFile:
    # In order of arrival, so that a head is the first of them wherever they stand in the file.
    requests = sorted(requests, key=lambda one: one.start)
    starts = np.array([one.start for one in requests], dtype=np.int64)
    times = Times(whole_s=starts[:, 0].copy(), rest_ps=starts[:, 1].copy())
    table = replace(
        plain_requests(
            [one.prompt_tokens for one in requests], [one.output_tokens for one in requests]
        ),
        request_id=tuple(one.request_id for one in requests),
    )
    arrival_ps, kept = arrivals_of(path, "startTimeUnixNano", times, part)
    places: npt.NDArray[np.intp] = np.arange(len(requests)) if kept is None else kept
    places, arrival_ps = places[: part.head], arrival_ps[: part.head]
    measured = {
        "measured_ttft_s": np.array([one.ttft_s for one in requests])[places],
        "measured_e2e_s": np.array([one.e2e_s for one in requests])[places],
    }
    return TraceFile(
        requests=replace(selected(table, places), arrival_ps=arrival_ps),
        format="otel",
        notes=notes,
        measured={name: values for name, values in measured.items() if not np.isnan(values).all()},
    )
