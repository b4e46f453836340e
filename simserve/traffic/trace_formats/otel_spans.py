"""Files of OpenTelemetry spans, taken apart: OTLP JSON, one export a line or all in one, or a list.

``{"resourceSpans": [{"scopeSpans": [{"spans": [...]}]}]}`` is what the collector's file exporter
writes, one such object per line. A span is read with the names of OTLP (``startTimeUnixNano``,
``attributes`` as a list of key and value) and of the Python SDK (``start_time`` as a date,
``attributes`` as a mapping).
Source: https://github.com/open-telemetry/opentelemetry-proto, trace.proto; JSON as in the OTLP
specification, section "JSON Protobuf Encoding": 64-bit integers are texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from simserve.errors import InputError
from simserve.records.clock import PS_PER_NS
from simserve.traffic.trace_formats.column_kinds import CALENDAR
from simserve.traffic.trace_formats.text_lines import (
    LONGEST_LINE_BYTES,
    beginning,
    line_blocks,
    whole_content,
)

RESOURCES = ("resourceSpans", "resource_spans", "batches")  # the last is Tempo's
_SCOPES = ("scopeSpans", "scope_spans", "instrumentationLibrarySpans")
_STARTS = ("startTimeUnixNano", "start_time_unix_nano", "start_time")
_ENDS = ("endTimeUnixNano", "end_time_unix_nano", "end_time")
_MARKS = tuple(f'"{name}"'.encode() for name in (*RESOURCES[:2], *_SCOPES[:2], *_STARTS[:2]))
_SPAN_MARK = b'"gen_ai.'
_ALLOWED = "OTLP JSON (resourceSpans) or a list of spans"
_TRACES = ("traceId", "trace_id")
NS_PER_S = 1_000_000_000
_END_OF_NS = 2**64  # trace.proto: fixed64
# The spans of so many bytes fit into a processor's cache; with more at a time, all takes longer.
_AT_A_TIME_BYTES = 1 << 19
# A document that is not cut into lines is held in memory whole; an unusual one, which cannot be
# taken apart before it is read, thirty times over.
_LARGEST_DOCUMENT_MIB, _LARGEST_UNUSUAL_MIB = 2048, 128
_LOOKED_AT_BYTES = 1 << 16
_EXPORT_OF = b'{"resourceSpans":[{"scopeSpans":[{"spans":[%b]}]}]}'
_OTHER_SIGNALS = ("resourceLogs", "resourceMetrics")  # a collector may write them beside
# Of a list of lists; an export's own nesting is fixed.
_DEEPEST = 4

_NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

Instant = tuple[int, int]
"""Seconds since 1970, and picoseconds after them."""


_Span = TypeVar("_Span")


class Scope(msgspec.Struct, Generic[_Span], gc=False):
    """Spans of one instrumentation."""

    spans: list[_Span] = []


class Resource(msgspec.Struct, Generic[_Span], rename="camel", gc=False):
    """Spans of one process. A field of the type unset must not be there at all."""

    scope_spans: list[Scope[_Span]]
    snake_case_scopes: UnsetType = msgspec.field(default=UNSET, name="scope_spans")
    older_scopes: UnsetType = msgspec.field(default=UNSET, name="instrumentationLibrarySpans")


class Export(msgspec.Struct, Generic[_Span], rename="camel", forbid_unknown_fields=True, gc=False):
    """What a collector writes, and nothing else."""

    resource_spans: list[Resource[_Span]]


@dataclass(frozen=True, slots=True)
class Span:
    """A span as it stands in the file; ``place`` says where, for complaints."""

    place: str
    content: dict[str, Any]

    @property
    def name(self) -> str:
        """What the span is called; empty if it has no name."""
        name = self.content.get("name")
        return name if isinstance(name, str) else ""

    def attributes(self) -> dict[str, Any]:
        """Return the attributes by name; the values are numbers, texts or whatever was there."""
        given = self.content.get("attributes")
        if isinstance(given, dict):
            return {str(key): value for key, value in given.items()}
        found: dict[str, Any] = {}
        for entry in given if isinstance(given, list) else ():
            if isinstance(entry, dict) and isinstance(entry.get("key"), str):
                found[entry["key"]] = _plain(entry.get("value"))
        return found

    @property
    def id(self) -> str:
        """Which span of its trace this is; empty if it does not say."""
        return self._named("spanId", "span_id")

    def identity(self) -> int:
        """Return what names this span among all; 0 without a name."""
        return identity(self._named(*_TRACES), self.id)

    def parent(self) -> int:
        """Return what names the span around this one; 0 if there is none."""
        around = self._named("parentSpanId", "parent_span_id", "parent_id")
        return identity(self._named(*_TRACES), around)

    def start(self) -> Instant:
        """Return when the span begins; raise ValueError if it does not say."""
        return self._instant(_STARTS)

    def seconds(self) -> float | None:
        """Return how long the span lasted; None if it does not say."""
        try:
            (from_s, from_ps), (to_s, to_ps) = self.start(), self._instant(_ENDS)
        except ValueError:
            return None
        lasted_s = to_s - from_s + (to_ps - from_ps) / (PS_PER_NS * NS_PER_S)
        return lasted_s if lasted_s >= 0 else None

    def _named(self, *names: str) -> str:
        context = self.content.get("context")
        holders = (self.content, context if isinstance(context, dict) else {})
        return str(next((one[name] for one in holders for name in names if one.get(name)), ""))

    def _instant(self, names: tuple[str, ...]) -> Instant:
        name = next((name for name in names if name in self.content), None)
        value = self.content.get(name) if name is not None else None
        if name in names[:2]:
            ns = _lax(value, int)
            if not isinstance(ns, int) or not 0 <= ns < _END_OF_NS:
                raise ValueError
            return ns // NS_PER_S, ns % NS_PER_S * PS_PER_NS
        return CALENDAR.one(value)


def identity(trace: str, span: str) -> int:
    """Return what names a span among all, as 64 bits; 0 if it has no name itself.

    Texts would take ten times the memory. That two of a million spans are mistaken for each
    other is as likely as that two of a trace got the same random 64 bits for an id.
    """
    return hash((trace, span)) if span else 0


def looks_like_spans(path: Path) -> bool:
    """Return whether the beginning of a file is that of spans in JSON."""
    text = beginning(path)
    if not text.startswith((b"[", b"{")):
        return False
    text = text[: max(_LOOKED_AT_BYTES, text.find(b"\n"))]
    named = any(mark in text for mark in _MARKS)
    return named or (_SPAN_MARK in text and b'"start_time"' in text)


def spans_in(path: Path, row: int | None, text: bytes, number: int = 0) -> Iterator[Span]:
    """Yield every span of some lines, the first of which is ``row``, or of a document.

    ``number`` spans stand before them.

    Raises:
        InputError: naming the row that is not JSON, or not of spans.
    """
    for place, document in _documents(path, row, text):
        try:
            for content in _contents(document):
                number += 1
                yield Span(f"{place}span {number}", content)
        except _NotSpans as error:
            where = f"{place}{error.where}".removesuffix(": ") or None
            raise InputError(str(path), where, error.got, _ALLOWED) from None


def span_blocks(path: Path) -> Iterator[tuple[int | None, bytes]]:
    """Yield lines with a JSON value each, some at a time, and the row of the first.

    Or else the file is one document, which comes in parts without a row.

    Raises:
        InputError: if the file cannot be read, or is too large a document.
    """
    line = beginning(path).partition(b"\n")[0]
    if len(line) < LONGEST_LINE_BYTES and _is_json(line):
        yield from line_blocks(path, _AT_A_TIME_BYTES)
    else:
        yield from ((None, part) for part in _taken_apart(path))


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text, type=Raw)
    except _NOT_JSON:
        return False
    return True


def _taken_apart(path: Path) -> Iterator[bytes]:
    """Yield a document as exports that hold some of its spans each; an unusual one as it is."""
    text = whole_content(path, _LARGEST_DOCUMENT_MIB << 20)
    if text is None:
        raise _too_large(path, _LARGEST_DOCUMENT_MIB)
    try:
        resources = msgspec.json.decode(text, type=Export[Raw]).resource_spans
    except _NOT_JSON:
        if len(text) > _LARGEST_UNUSUAL_MIB << 20:
            raise _too_large(path, _LARGEST_UNUSUAL_MIB) from None
        yield text
        return
    spans = [
        span for resource in resources for scope in resource.scope_spans for span in scope.spans
    ]
    if spans:
        step = 1 + _AT_A_TIME_BYTES * len(spans) // len(text)
        for begin in range(0, len(spans), step):
            yield _EXPORT_OF % b",".join(spans[begin : begin + step])


def _too_large(path: Path, most_mib: int) -> InputError:
    allowed = f"at most {most_mib} MiB, or one JSON object per line"
    return InputError(str(path), None, "a larger JSON document", allowed)


class _NotSpans(ValueError):
    """Something else stands where spans, or the groups around them, should."""

    def __init__(self, where: str, got: str) -> None:
        self.where, self.got = where, got
        super().__init__(where)


def _documents(path: Path, first_row: int | None, text: bytes) -> Iterator[tuple[str, Any]]:
    """Yield JSON values, and their rows for complaints."""
    if first_row is None:
        try:
            yield "", msgspec.json.decode(text)
        except _NOT_JSON as error:
            got = f"JSON that does not parse ({error})"
            raise InputError(str(path), None, got, _ALLOWED) from None
        return
    for row, line in enumerate(text.split(b"\n"), first_row):
        if not (content := line.strip()):
            continue
        try:
            yield f"row {row}: ", msgspec.json.decode(content)
        except _NOT_JSON:
            allowed = "one JSON object per line"
            raise InputError(str(path), f"row {row}", content, allowed) from None


def _contents(value: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the spans of an export, of a list of spans or exports, or a span."""
    if isinstance(value, list) and depth < _DEEPEST:
        for one in value:
            yield from _contents(one, depth + 1)
        return
    if not isinstance(value, dict):
        raise _NotSpans("", repr(value))
    if any(name in value for name in _STARTS) or ("attributes" in value and "name" in value):
        yield value
        return
    if not any(name in value for name in (*RESOURCES, *_OTHER_SIGNALS)):
        raise _NotSpans("", f"keys {', '.join(map(str, value))}")
    for resource in _listed(value, RESOURCES):
        for scope in _listed(resource, _SCOPES):
            yield from _listed(scope, ("spans",))


def _listed(value: dict[str, Any], names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield the objects that are listed under any of the names."""
    for name in names:
        entries = value.get(name)
        if not isinstance(entries, list | None):
            raise _NotSpans(name, repr(entries))
        for entry in entries or ():
            if not isinstance(entry, dict):
                raise _NotSpans(name, repr(entry))
            yield entry


def _plain(value: Any) -> Any:
    """Return what an attribute's value holds: ``{"intValue": "5"}`` is 5."""
    if not isinstance(value, dict):
        return value
    for name, kind in (("intValue", int), ("doubleValue", float), ("stringValue", str)):
        if name in value:
            return _lax(value[name], kind)
    return value.get("boolValue")


def _lax(value: object, kind: type) -> Any:
    """Return a number that may be a text, as ProtoJSON allows; anything else as it is.

    Source: https://protobuf.dev/programming-guides/json, the rows int64 and double.
    """
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError:
        return value
