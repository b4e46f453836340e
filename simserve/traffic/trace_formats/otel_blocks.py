"""The usual spans, many at a time: columns at once, if nothing is odd.

The usual is what a collector writes: OTLP JSON. The quick way reads nothing that the slow one
(``otel_requests``, span by span) would refuse, or read otherwise: at the slightest doubt it gives
up. Of a span it checks what it reads, and that the rest is JSON; a number there may be one that no
float holds (``1e400``).

What makes it quick is that spans of one writer have the same attributes in the same order. Such a
list of attributes is a *shape*: a type of its own, so that the decoder checks the names in passing
and builds nothing but the values that are wanted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import compress
from operator import attrgetter
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import UNSET, Meta, Raw, UnsetType, defstruct

from simserve.records.clock import PS_PER_NS, PS_PER_S
from simserve.records.requests import IntArray
from simserve.traffic.limits import MOST_TOKENS
from simserve.traffic.trace_formats.otel_requests import (
    CACHED,
    COLUMNS,
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
)
from simserve.traffic.trace_formats.otel_spans import NS_PER_S, Export
from simserve.traffic.trace_formats.text_lines import lines_in

# To learn a shape takes as long as to read hundreds of spans.
_MOST_SHAPES, _MOST_NAMES = 64, 4096

_WANTED: dict[str, tuple[Sequence[str], type]] = {
    "prompt": (PROMPT, int),
    "output": (OUTPUT, int),
    "cached": (CACHED, int),
    "ttft": (TTFT, float),
    "e2e": (E2E, float),
    "id": (IDS, str),
    "model": (MODELS, str),
    "operation": ((OPERATION,), str),
}
"""What is read of attributes: under which names, the first that is there, and as what."""

_HOLDERS: dict[type, tuple[str, ...]] = {
    int: ("intValue", "doubleValue"),
    float: ("intValue", "doubleValue"),
    str: ("stringValue",),
}
"""Where an attribute's value may stand."""

_ROLES = {key: role for role, (keys, _) in _WANTED.items() for key in keys}

_Attributes = TypeVar("_Attributes")
_Id = Annotated[str, Meta(min_length=1)]
_NO_ATTRIBUTES: Any = Raw(b"[]")


class _Span(msgspec.Struct, Generic[_Attributes], rename="camel", gc=False):
    trace_id: _Id
    span_id: _Id
    start_time_unix_nano: int
    end_time_unix_nano: int
    name: str = ""
    parent_span_id: str = ""
    attributes: _Attributes = _NO_ATTRIBUTES
    # Where other writers name a parent; a field of this type must not be there at all.
    snake_case_parent: UnsetType = msgspec.field(default=UNSET, name="parent_span_id")
    short_parent: UnsetType = msgspec.field(default=UNSET, name="parent_id")
    context: UnsetType = UNSET


class _Named(msgspec.Struct, gc=False):
    key: str
    value: dict[str, Raw]


_names = msgspec.json.Decoder(list[_Named]).decode
_EXPORT_MARK, _EXPORT_BEGINNING = b'"resourceSpans"', 32
Shape = Any  # a type
Shapes = dict[str, Shape]


class _OddError(Exception):
    """Something that is left to the slow way."""


def requests_of_block(text: bytes, learned: Shapes, *, lines: bool = True) -> RequestSpans | None:
    """Return what spans say of requests; None if that is not certain.

    They stand in exports, or alone, one on each of the ``lines``; or else in one document.
    ``learned`` is kept from one call to the next, and empty for the first.
    """
    try:
        text.decode()  # what is skipped is to be UTF-8 too
        return _requests_of(_spans(text, learned, lines))
    except (_OddError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _requests_of(spans: list[_Span[Any]]) -> RequestSpans:
    ids, parents = _ids(spans)
    shapes = [type(span.attributes) for span in spans]
    parts: list[Columns] = []
    order: list[int] = []
    for shape in dict.fromkeys(shapes):
        alike = [place for place, one in enumerate(shapes) if one is shape]
        asked = _are_requests(shape, [spans[place] for place in alike])
        if places := list(compress(alike, asked)):
            columns = _columns(shape, [spans[place] for place in places])
            parts.append(columns | {"span": ids[places], "parent": parents[places]})
            order += places
    requests = parts[0] if len(parts) == 1 else concatenated(parts)
    if len(parts) > 1:
        in_order = np.argsort(order)
        requests = {name: column[in_order] for name, column in requests.items()}
    below = np.flatnonzero(parents)
    links = np.stack((ids[below], parents[below]), axis=1)
    return RequestSpans(requests=requests, below=links, spans=len(spans))


def _spans(text: bytes, learned: Shapes, lines: bool) -> list[_Span[Any]]:
    """Return the spans of a block, their attributes in shapes."""
    exports = _EXPORT_MARK in text[:_EXPORT_BEGINNING]
    shapes = set(learned.values())
    try:
        found = _decoder(shapes.pop() if len(shapes) == 1 else Raw, exports).decode_lines(text)
    except msgspec.ValidationError:
        found = _decoder(Raw, exports).decode_lines(text)
    # The decoder would take two objects on a line, or half a one.
    _doubt(lines and len(found) != lines_in(text) + (not text.endswith(b"\n")))
    spans = found
    if exports:
        resources = [resource for export in found for resource in export.resource_spans]
        scopes = [scope for resource in resources for scope in resource.scope_spans]
        spans = [span for scope in scopes for span in scope.spans]
    for span in spans:
        if type(span.attributes) is Raw:
            span.attributes = _shaped(span, learned)
    return spans


@lru_cache(maxsize=_MOST_SHAPES)
def _decoder(shape: Shape, exports: bool) -> msgspec.json.Decoder[Any]:
    """Return what reads spans that all have attributes of this shape."""
    span_of: Any = _Span
    export_of: Any = Export
    kind = export_of[span_of[shape]] if exports else span_of[shape]
    return msgspec.json.Decoder(kind, strict=False)


def _shaped(span: _Span[Any], learned: Shapes) -> Any:
    """Return the attributes of a span; those of its name are mostly shaped as the last ones."""
    try:
        return _attributes(learned[span.name])(span.attributes)
    except (KeyError, msgspec.ValidationError):
        named = [(one.key, "/".join(one.value)) for one in _names(span.attributes)]
        wanted = tuple((key, holder if key in _ROLES else "") for key, holder in named)
        learned[span.name] = _shape(wanted)
        _doubt(len(learned) > _MOST_NAMES or len(set(learned.values())) > _MOST_SHAPES)
        return _attributes(learned[span.name])(span.attributes)


@lru_cache(maxsize=_MOST_SHAPES)
def _attributes(shape: Shape) -> Callable[[Raw], Any]:
    return msgspec.json.Decoder(shape, strict=False).decode


@lru_cache(maxsize=_MOST_SHAPES)
def _shape(named: tuple[tuple[str, str], ...]) -> Shape:
    """Return a type for lists of attributes with these names, and holders of the wanted values.

    Of an attribute that stands twice, the last counts; of several names for one thing, the first.
    """
    last = {key: place for place, (key, _) in enumerate(named)}
    places = {}
    for role, (keys, _) in _WANTED.items():
        if key := next((key for key in keys if key in last), None):
            places[last[key]] = role
    fields = []
    for place, (key, holder) in enumerate(named):
        held: list[tuple[str, Any]] = [("key", Literal[key])]
        if role := places.get(place, ""):
            kind = _WANTED[role][1]
            _doubt(holder not in _HOLDERS[kind])
            value = defstruct(
                "Value",
                [("held", kind)],
                rename={"held": holder},
                forbid_unknown_fields=True,
                gc=False,
            )
            held.append(("value", value))
        fields.append((role or f"other{place}", defstruct("Attribute", held, gc=False)))
    return defstruct("Shape", fields, array_like=True, forbid_unknown_fields=True, gc=False)


def _are_requests(shape: Shape, spans: list[_Span[Any]]) -> list[bool]:
    """Return of each span whether it is a request, as ``otel_requests`` decides it."""
    roles = shape.__struct_fields__
    if "operation" in roles:
        return [span.attributes.operation.value.held in GENERATING for span in spans]
    if "prompt" in roles or "output" in roles:
        return [True] * len(spans)
    return [span.name == VLLM_SPAN for span in spans]


def _columns(shape: Shape, spans: list[_Span[Any]]) -> Columns:
    """Return the columns of spans that are all requests, but for what names them."""
    held = [span.attributes for span in spans]

    def values(role: str, otherwise: object) -> list[Any]:
        if role not in shape.__struct_fields__:
            return [otherwise] * len(spans)
        return [one.value.held for one in map(attrgetter(role), held)]

    prompts, outputs, cached = (_whole(values(role, 0)) for role in ("prompt", "output", "cached"))
    _doubt(not (prompts.all() and outputs.all()))  # one is incomplete
    _doubt(max(prompts.max(), outputs.max(), cached.max()) > MOST_TOKENS)
    start_s, start_ps = _instants([span.start_time_unix_nano for span in spans])
    ttft_s, e2e_s = _seconds(values("ttft", None)), _seconds(values("e2e", None))
    if "e2e" not in shape.__struct_fields__:
        end_s, end_ps = _instants([span.end_time_unix_nano for span in spans])
        lasted_s = end_s - start_s + (end_ps - start_ps) / PS_PER_S
        e2e_s = np.where(lasted_s < 0, np.nan, lasted_s)
    names = zip(values("id", ""), spans, strict=True)
    columns = {
        "start_s": start_s,
        "start_ps": start_ps,
        "prompt_tokens": prompts,
        "output_tokens": outputs,
        "cached_tokens": cached,
        "ttft_s": ttft_s,
        "e2e_s": e2e_s,
        "request_id": [name or span.span_id for name, span in names],
        "model": list(map(sys.intern, values("model", ""))),  # the same few, a million times
    }
    return {name: np.asarray(column, COLUMNS[name]) for name, column in columns.items()}


def _ids(spans: list[_Span[Any]]) -> tuple[IntArray, IntArray]:
    """Return the identities of spans, and of those around them; 0 if there is none."""

    def identities(ids: list[str]) -> IntArray:
        found = np.fromiter(map(hash, zip(traces, ids, strict=True)), np.int64, len(spans))
        return found if all(ids) else np.where(list(map(bool, ids)), found, 0)

    traces = [span.trace_id for span in spans]
    around = [span.parent_span_id for span in spans]
    ids = identities([span.span_id for span in spans])
    return ids, identities(around) if any(around) else np.zeros(len(spans), np.int64)


def _instants(since_1970_ns: list[int]) -> tuple[IntArray, IntArray]:
    """Return seconds since 1970, and picoseconds after them."""
    ns = _whole(since_1970_ns)
    return ns // NS_PER_S, ns % NS_PER_S * PS_PER_NS


def _whole(values: list[int]) -> IntArray:
    """Return numbers of at least 0 as an array."""
    try:
        whole = np.array(values, dtype=np.int64)
    except OverflowError:
        raise _OddError from None
    _doubt(whole.min() < 0)
    return whole


def _seconds(values: list[float | None]) -> npt.NDArray[np.float64]:
    """Return durations, of which there may be none, as an array."""
    durations = np.array(values, dtype=np.float64)
    _doubt(values[0] is not None and not ((durations >= 0) & (durations < np.inf)).all())
    return durations


def _doubt(odd: bool | np.bool_) -> None:
    if odd:
        raise _OddError
