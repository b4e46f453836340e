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
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from simserve.errors import InputError, one_line, shortened
from simserve.records.requests import IntArray
from simserve.traffic.trace_formats.columns import (
    EVERYTHING,
    Part,
    Times,
    TraceFile,
    arrivals_of,
    plain_requests,
)
from simserve.traffic.trace_formats.otel_blocks import Shapes, requests_of_block
from simserve.traffic.trace_formats.otel_requests import (
    OUTPUT,
    PROMPT,
    VLLM_SPAN,
    Columns,
    RequestSpans,
    joined,
    requests_of,
)
from simserve.traffic.trace_formats.otel_spans import span_blocks, spans_in

_MOST_NAMES, _LONGEST_NAME = 3, 60
_SKIPPING = "--skip-incomplete (of a run, --set skip_incomplete=true)"


def read_otel(path: Path, part: Part = EVERYTHING, *, skip_incomplete: bool = False) -> TraceFile:
    """Return the requests that a file of spans tells of, with the latencies it measured.

    A request span without both token counts is refused, and how many there are is said;
    ``skip_incomplete`` leaves them out. ``part.head`` counts requests in order of arrival.

    Raises:
        InputError: naming the row and the span that cannot be used.
    """
    found = joined(_parts(path))
    around = _around_others(found)
    incomplete = [one for one in found.incomplete if one.span not in around]
    if incomplete and not skip_incomplete:
        more = f", and so have {len(incomplete) - 1} more" if len(incomplete) > 1 else ""
        allowed = f"both token counts; {_SKIPPING} leaves such spans out"
        first = incomplete[0]
        raise InputError(str(path), first.which, f"no {first.missing}{more}", allowed)
    requests = found.requests
    others = found.spans - len(requests["span"]) - len(found.incomplete)
    if around:
        inner = ~np.isin(requests["span"], list(around))
        requests = {name: column[inner] for name, column in requests.items()}
    if not len(requests["span"]):
        got = f"no request among {others + len(incomplete)} spans"
        allowed = f"spans {VLLM_SPAN}, or with {PROMPT[0]} and {OUTPUT[0]}"
        raise InputError(str(path), None, got, allowed)
    twice = _twice(requests["span"])
    if twice.any():
        requests = {name: column[~twice] for name, column in requests.items()}
    notes = _notes(requests, others, len(incomplete), len(around), int(twice.sum()))
    return _as_trace(path, requests, part, notes)


def _parts(path: Path) -> Iterator[RequestSpans]:
    """Yield what the file tells, block by block: at once where nothing is odd."""
    spans = 0
    learned: Shapes = {}
    for row, text in span_blocks(path):
        part = requests_of_block(text, learned, lines=row is not None)
        yield (part := part or requests_of(path, spans_in(path, row, text, spans)))
        spans += part.spans


def _around_others(found: RequestSpans) -> set[int]:
    """Return the request spans that stand around another one, which counts instead."""
    requests = found.requests
    spans = np.append(requests["span"], np.array([one.span for one in found.incomplete], np.int64))
    around: set[int] = set()
    if not _any_in(found.below[:, 1], spans):
        return around
    asked, parents = set(spans.tolist()), dict(found.below.tolist())
    for span, parent in zip(requests["span"].tolist(), requests["parent"].tolist(), strict=True):
        above, seen = parent, {span}
        while above and above not in seen and above not in around:
            if above in asked:
                around.add(above)
            seen.add(above)
            above = parents.get(above, 0)
    return around


def _any_in(these: IntArray, those: IntArray) -> bool:
    """Return whether two arrays have a number in common; sets would take ten times as long."""
    these, those = np.sort(these), np.sort(those)
    places = np.searchsorted(those, these).clip(max=len(those) - 1)
    return bool(len(those)) and bool((those[places] == these).any())


def _twice(spans: IntArray) -> npt.NDArray[np.bool_]:
    """Return which spans have stood before: exports that fail on the way are sent again."""
    again = np.zeros(len(spans), dtype=bool)
    in_order = np.sort(spans)
    if (in_order[1:] == in_order[:-1]).any():
        again[:] = spans != 0
        again[np.unique(spans, return_index=True)[1]] = False
    return again


def _notes(
    requests: Columns, others: int, incomplete: int, around: int, twice: int
) -> tuple[str, ...]:
    """Return what has to be said about the spans, in words."""
    notes = []
    if others:
        notes.append(f"{_count(others, 'span')} without an LLM's request left out")
    if incomplete:
        notes.append(f"{_count(incomplete, 'request span')} without token counts left out")
    if around:
        notes.append(f"{_count(around, 'request span')} around others left out: inner ones count")
    if twice:
        notes.append(f"{_count(twice, 'request span')} exported twice left out")
    models = Counter(requests["model"].tolist())
    if len(models) > 1:
        named = [f"{_shown(name)} {count}" for name, count in models.most_common(_MOST_NAMES)]
        more = ", …" if len(models) > _MOST_NAMES else ""
        notes.append(f"requests to {len(models)} models: {', '.join(named)}{more}")
    cached = requests["cached_tokens"].sum()
    if cached:
        share = cached / requests["prompt_tokens"].sum()
        notes.append(f"{share:.1%} of prompt tokens came from a cache; spans do not say which")
    return tuple(notes)


def _shown(model: str) -> str:
    return shortened(one_line(model), _LONGEST_NAME) or "unnamed"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _as_trace(path: Path, requests: Columns, part: Part, notes: tuple[str, ...]) -> TraceFile:
    # In order of arrival, so that a head is the first of them wherever they stand in the file.
    places = np.lexsort((requests["start_ps"], requests["start_s"]))
    times = Times(whole_s=requests["start_s"][places], rest_ps=requests["start_ps"][places])
    arrival_ps, kept = arrivals_of(path, "startTimeUnixNano", times, part)
    places = (places if kept is None else places[kept])[: part.head]
    table = plain_requests(requests["prompt_tokens"][places], requests["output_tokens"][places])
    measured = {f"measured_{name}": requests[name][places] for name in ("ttft_s", "e2e_s")}
    return TraceFile(
        requests=replace(
            table,
            arrival_ps=arrival_ps[: part.head],
            request_id=tuple(requests["request_id"][places].tolist()),
        ),
        format="otel",
        notes=notes,
        measured={name: values for name, values in measured.items() if not np.isnan(values).all()},
    )
