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
from typing import Any

import msgspec

from simserve.errors import InputError
from simserve.records.clock import PS_PER_NS
from simserve.traffic.trace_formats.column_kinds import CALENDAR
from simserve.traffic.trace_formats.text_lines import line_blocks, numbered_lines, whole_content

RESOURCES = ("resourceSpans", "resource_spans", "batches")  # the last is Tempo's
_SCOPES = ("scopeSpans", "scope_spans", "instrumentationLibrarySpans")
_STARTS = ("startTimeUnixNano", "start_time_unix_nano", "start_time")
_ENDS = ("endTimeUnixNano", "end_time_unix_nano", "end_time")
_MARKS = tuple(f'"{name}"'.encode() for name in (*RESOURCES[:2], *_SCOPES[:2], *_STARTS[:2]))
_SPAN_MARK = b'"gen_ai.'
_ALLOWED = "OTLP JSON (resourceSpans) or a list of spans"
NS_PER_S = 1_000_000_000
# A document that is not cut into lines is held in memory whole, several times over.
_LARGEST_DOCUMENT_MIB = 128
_OTHER_SIGNALS = ("resourceLogs", "resourceMetrics")  # a collector may write them beside
# Of a list of lists; an export's own nesting is fixed.
_DEEPEST = 4

_NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

Instant = tuple[int, int]
"""Seconds since 1970, and picoseconds after them."""


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

    def id(self) -> str | None:
        """Return what names this span among all; None without a name."""
        return self._id("spanId", "span_id")

    def parent_id(self) -> str | None:
        """Return what names the span around this one; None if there is none."""
        return self._id("parentSpanId", "parent_span_id", "parent_id")

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

    def _id(self, *names: str) -> str | None:
        context = self.content.get("context")
        holders = (self.content, context if isinstance(context, dict) else {})
        span = next((one[name] for one in holders for name in names if one.get(name)), None)
        traces = (one.get(name) for one in holders for name in ("traceId", "trace_id"))
        trace = next(filter(None, traces), "")
        return f"{trace}/{span}" if span else None

    def _instant(self, names: tuple[str, ...]) -> Instant:
        name = next((name for name in names if name in self.content), None)
        value = self.content.get(name) if name is not None else None
        if name in names[:2]:
            digits = value if isinstance(value, str) else str(value)
            if isinstance(value, bool) or not (digits.isascii() and digits.isdecimal()):
                raise ValueError
            if len(digits) > len(str(2**63)):
                raise ValueError
            return int(digits) // NS_PER_S, int(digits) % NS_PER_S * PS_PER_NS
        return CALENDAR.one(value)


def looks_like_spans(path: Path) -> bool:
    """Return whether the beginning of a JSON file is that of spans."""
    beginning = next((block for _, block in line_blocks(path)), b"")
    named = any(mark in beginning for mark in _MARKS)
    return named or (_SPAN_MARK in beginning and b'"start_time"' in beginning)


def spans_in(path: Path, row: int | None, text: bytes, number: int = 0) -> Iterator[Span]:
    """Yield every span of some lines, the first of which is ``row``, or of one whole document.

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
    """Yield lines with a JSON object each, and the row of the first: or else the whole file.

    Raises:
        InputError: if the file cannot be read, or is a large document without lines.
    """
    first = next(numbered_lines(path), None)
    if first is None:
        return
    try:
        msgspec.json.decode(first[1])
    except _NOT_JSON:
        yield None, _whole(path)
        return
    yield from line_blocks(path)


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


def _whole(path: Path) -> bytes:
    size = 0
    for _, block in line_blocks(path):
        size += len(block)
        if size > _LARGEST_DOCUMENT_MIB << 20:
            allowed = f"at most {_LARGEST_DOCUMENT_MIB} MiB, or one JSON object per line"
            raise InputError(str(path), None, "a larger JSON document", allowed)
    return whole_content(path) or b""


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
    for name in ("intValue", "doubleValue", "stringValue", "boolValue"):
        if name in value:
            return value[name]
    return None
