"""The usual file of spans, many lines at a time: columns at once, if nothing is odd.

The usual is what a collector writes: an OTLP JSON export on every line, with counts as integers
and latencies as doubles. The quick way reads nothing that the slow one (``otel_requests``, span
by span) would refuse, or read otherwise: at the slightest doubt it gives up.

What makes it quick is that spans of one writer have the same attributes in the same order: of
such spans, an attribute is a column, found once for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import attrgetter
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import UNSET, Meta, UnsetType

from simserve.records.clock import PS_PER_NS, PS_PER_S
from simserve.records.requests import IntArray
from simserve.traffic.limits import MOST_TOKENS
from simserve.traffic.trace_formats.otel_requests import (
    CACHED,
    COLUMNS,
    COUNTS,
    E2E,
    GENERATING,
    IDS,
    MODELS,
    OPERATION,
    OUTPUT,
    PROMPT,
    TTFT,
    VLLM_SPAN,
    Columns,
    RequestSpans,
    concatenated,
    joined,
)
from simserve.traffic.trace_formats.otel_spans import NS_PER_S

# The spans of so many bytes fit into a processor's cache; with larger parts, all takes longer.
_AT_A_TIME_BYTES = 1 << 18
_LONGEST_NS = len(str(np.iinfo(np.int64).max))


class _Value(msgspec.Struct, rename="camel", gc=False):
    int_value: str | int | UnsetType = UNSET
    double_value: float | UnsetType = UNSET
    string_value: str | UnsetType = UNSET


_KINDS = _Value.__struct_fields__


class _Attribute(msgspec.Struct, gc=False):
    key: str
    value: _Value


_Id = Annotated[str, Meta(min_length=1)]
_Nanoseconds = Annotated[str, Meta(min_length=1, max_length=_LONGEST_NS)]


class _Span(msgspec.Struct, rename="camel", gc=False):
    trace_id: _Id
    span_id: _Id
    start_time_unix_nano: _Nanoseconds
    end_time_unix_nano: _Nanoseconds
    name: str = ""
    parent_span_id: str = ""
    attributes: list[_Attribute] = []
    # Where other writers name a parent; a field of this type must not be there at all.
    snake_case_parent: UnsetType = msgspec.field(default=UNSET, name="parent_span_id")
    short_parent: UnsetType = msgspec.field(default=UNSET, name="parent_id")
    context: UnsetType = UNSET


class _Scope(msgspec.Struct, gc=False):
    spans: list[_Span] = []


class _Resource(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    scope_spans: list[_Scope]
    resource: msgspec.Raw = msgspec.Raw()
    schema_url: msgspec.Raw = msgspec.Raw()


class _Export(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    resource_spans: list[_Resource]


_decode = msgspec.json.Decoder(_Export).decode
_name = attrgetter("key")


class _OddError(Exception):
    """Something that is left to the slow way."""


def requests_of_block(block: bytes) -> RequestSpans | None:
    """Return what the spans in some lines say of requests; None if that is not certain."""
    try:
        return joined(_requests_of(lines) for lines in _parts(block))
    except (_OddError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _parts(block: bytes) -> Iterator[bytes]:
    begin = 0
    while begin < len(block):
        end = block.find(b"\n", begin + _AT_A_TIME_BYTES) + 1 or len(block)
        yield block[begin:end]
        begin = end


def _requests_of(lines: bytes) -> RequestSpans:
    spans = [
        span
        for export in [_decode(line) for line in lines.split(b"\n") if line]
        for resource in export.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    order: list[int] = []
    parts: list[Columns] = []
    for names, places in _alike(spans).items():
        asked = _Alike(names, [spans[place] for place in places]).requests()
        found = list(compress(places, asked))
        if found:
            order += found
            parts.append(_columns(_Alike(names, [spans[place] for place in found])))
    in_order = np.argsort(np.array(order, dtype=np.int64))
    return RequestSpans(
        requests={name: column[in_order] for name, column in concatenated(parts).items()},
        parents={_id(span): parent for span in spans if (parent := _parent(span)) is not None},
        spans=len(spans),
    )


def _alike(spans: list[_Span]) -> dict[tuple[str, ...], list[int]]:
    """Return the places of spans by the names of their attributes."""
    alike: dict[tuple[str, ...], list[int]] = {}
    last: tuple[str, ...] = ()
    places = alike.setdefault(last, [])
    for place, span in enumerate(spans):
        names = tuple(map(_name, span.attributes))
        if names != last:  # to compare is quicker than to hash, and mostly enough
            last, places = names, alike.setdefault(names, [])
        places.append(place)
    return alike


@dataclass(frozen=True, slots=True)
class _Alike:
    """Spans whose attributes have the same names, in the same order."""

    names: tuple[str, ...]
    spans: list[_Span]

    def requests(self) -> list[bool]:
        """Return of each span whether it is a request, as ``otel_requests`` decides it."""
        if OPERATION in self.names:
            return [operation in GENERATING for operation in self.texts((OPERATION,))]
        if any(name in self.names for name in COUNTS):
            return [True] * len(self.spans)
        return [span.name == VLLM_SPAN for span in self.spans]

    def tokens(self, names: Sequence[str]) -> IntArray:
        """Return counts of tokens; 0 if there are none."""
        counts = _whole(self._values(names, "int_value") or [0] * len(self.spans))
        _doubt(counts.min() < 0 or counts.max() > MOST_TOKENS)
        return counts

    def seconds(self, names: Sequence[str]) -> npt.NDArray[np.float64] | None:
        """Return latencies; None if there are none."""
        values = self._values(names, "double_value")
        if values is None:
            return None
        _doubt(set(map(type, values)) != {float} or min(values) < 0)
        return np.array(values)

    def texts(self, names: Sequence[str]) -> list[str]:
        """Return texts; empty ones if there are none."""
        texts = self._values(names, "string_value") or [""] * len(self.spans)
        _doubt(set(map(type, texts)) != {str})
        return texts

    def _values(self, names: Sequence[str], kind: str) -> list[Any] | None:
        """Return what the first of some attributes holds; None if none of them is there."""
        name = next((name for name in names if name in self.names), None)
        if name is None:
            return None
        _doubt(self.names.count(name) > 1)
        place = self.names.index(name)
        held = [span.attributes[place].value for span in self.spans]
        for other in _KINDS[: _KINDS.index(kind)]:
            _doubt(set(map(attrgetter(other), held)) != {UNSET})
        return list(map(attrgetter(kind), held))


def _columns(alike: _Alike) -> Columns:
    """Return the columns of spans that are all requests."""
    spans = alike.spans
    prompts, outputs = alike.tokens(PROMPT), alike.tokens(OUTPUT)
    _doubt(not (prompts.all() and outputs.all()))  # one is incomplete
    start_s, start_ps = _instants([span.start_time_unix_nano for span in spans])
    e2e_s, ttft_s = alike.seconds(E2E), alike.seconds(TTFT)
    if e2e_s is None:
        end_s, end_ps = _instants([span.end_time_unix_nano for span in spans])
        lasted_s = end_s - start_s + (end_ps - start_ps) / PS_PER_S
        e2e_s = np.where(lasted_s < 0, np.nan, lasted_s)
    names = zip(alike.texts(IDS), spans, strict=True)
    columns = {
        "span": [_id(span) for span in spans],
        "parent": [_parent(span) for span in spans],
        "start_s": start_s,
        "start_ps": start_ps,
        "prompt_tokens": prompts,
        "output_tokens": outputs,
        "cached_tokens": alike.tokens(CACHED),
        "ttft_s": np.full(len(spans), np.nan) if ttft_s is None else ttft_s,
        "e2e_s": e2e_s,
        "request_id": [name or span.span_id.rpartition("/")[2] for name, span in names],
        "model": alike.texts(MODELS),
    }
    return {name: np.asarray(columns[name], kind) for name, kind in COLUMNS.items()}


def _id(span: _Span) -> str:
    return f"{span.trace_id}/{span.span_id}"


def _parent(span: _Span) -> str | None:
    return f"{span.trace_id}/{span.parent_span_id}" if span.parent_span_id else None


def _instants(texts: list[str]) -> tuple[IntArray, IntArray]:
    """Return seconds since 1970, and picoseconds after them, of texts in nanoseconds."""
    ns = _whole(texts)
    return ns // NS_PER_S, ns % NS_PER_S * PS_PER_NS


def _whole(values: list[Any]) -> IntArray:
    """Return integers, or else texts of digits, as numbers."""
    kinds = set(map(type, values))
    if kinds == {str}:
        digits = "".join(values)
        _doubt(not (digits.isascii() and digits.isdecimal()))
    else:
        _doubt(kinds != {int})
    try:
        return np.array(list(map(int, values)), dtype=np.int64)
    except (ValueError, OverflowError):  # an empty text, a very large number
        raise _OddError from None


def _doubt(odd: bool | np.bool_) -> None:
    if odd:
        raise _OddError
