"""OpenTelemetry spans as requests: vLLM's and others', in every wrapping, none lost in silence."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from simserve.cli import app
from simserve.errors import InputError
from simserve.records.clock import PS_PER_S
from simserve.traffic.trace_formats import (
    Part,
    TraceFile,
    detect_format,
    otel_spans,
    read_trace,
    text_lines,
)
from simserve.traffic.trace_formats.otel_blocks import Shapes, requests_of_block
from simserve.traffic.trace_formats.otel_requests import (
    CACHED,
    COLUMNS,
    COUNTS,
    E2E,
    IDS,
    MODELS,
    OPERATION,
    TTFT,
    RequestSpans,
    requests_of,
)
from simserve.traffic.trace_formats.otel_spans import spans_in

START_S = 1_763_640_000


def value(content: object) -> dict[str, object]:
    """Return an attribute's value as OTLP JSON has it: 64-bit integers are texts."""
    if isinstance(content, bool):
        return {"boolValue": content}
    if isinstance(content, int):
        return {"intValue": str(content)}
    return {"doubleValue" if isinstance(content, float) else "stringValue": content}


def span(name: str, at_s: float, number: int, parent: int | None = None, **given: Any) -> Any:
    """Return a span that lasts a second; underscores in the names of attributes are dots."""
    ns = START_S * 10**9 + round(at_s * 1000) * 10**6
    made = {
        "traceId": "5b8efff798038103d269b633813fc60c",
        "spanId": f"{number:016x}",
        "name": name,
        "kind": 2,
        "startTimeUnixNano": str(ns),
        "endTimeUnixNano": str(ns + 10**9),
        "attributes": [
            {"key": "gen_ai." + key.replace("__", "."), "value": value(one)}
            for key, one in given.items()
        ],
    }
    return made if parent is None else made | {"parentSpanId": f"{parent:016x}"}


def vllm(at_s: float, number: int, prompt: int = 100, output: int = 20, **more: Any) -> Any:
    return span(
        "llm_request", at_s, number, usage__prompt_tokens=prompt, usage__completion_tokens=output,
        latency__time_to_first_token=0.25, latency__e2e=0.75, request__id=f"cmpl-{number}", **more,
    )  # fmt: skip


def generic(at_s: float, number: int, **more: Any) -> Any:
    counts = {"usage__input_tokens": 300, "usage__output_tokens": 40}
    return span("chat llama", at_s, number, operation__name="chat", **{**counts, **more})


def export(*spans: Any) -> dict[str, Any]:
    scope = {"scope": {"name": "vllm.llm_engine"}, "spans": list(spans)}
    return {"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [scope]}]}


def written(folder: Path, *documents: Any, name: str = "spans.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(one) + "\n" for one in documents))
    return path


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read_trace(path, **options)
    return str(caught.value)


SPANS = [vllm(3.5, 1), vllm(0, 2, prompt=7, output=5), vllm(1.25, 3)]


def sdk(one: Any) -> dict[str, Any]:
    """Return a span as the Python SDK writes it."""
    start_s = (int(one["startTimeUnixNano"]) // 10**6 - START_S * 1000) / 1000
    stamp = np.datetime64(START_S * 1000 + round(start_s * 1000), "ms")
    held = {e["key"]: next(iter(e["value"].values())) for e in one["attributes"]}
    return {
        "name": one["name"],
        "context": {"trace_id": "0x5b8e", "span_id": "0x" + one["spanId"]},
        "start_time": f"{stamp}Z",
        "end_time": f"{stamp + np.timedelta64(1, 's')}Z",
        "attributes": held,
    }


WRAPPINGS = {
    "one export a line": lambda: "\n".join(json.dumps(export(one)) for one in SPANS),
    "one export": lambda: json.dumps(export(*SPANS)),
    "an export over many lines": lambda: json.dumps(export(*SPANS), indent=1),
    "a list of spans": lambda: json.dumps(SPANS, indent=2),
    "a list of exports": lambda: json.dumps([export(one) for one in SPANS]),
    "a span a line": lambda: "\n".join(map(json.dumps, SPANS)),
    "the SDK's spans": lambda: json.dumps([sdk(one) for one in SPANS]),
    "snake case": lambda: json.dumps(export(*SPANS))
    .replace("resourceSpans", "resource_spans")
    .replace("scopeSpans", "scope_spans")
    .replace("UnixNano", "_unix_nano").replace("Time_", "_time_"),
    "an older collector": lambda: json.dumps(export(*SPANS)).replace(
        "scopeSpans", "instrumentationLibrarySpans"
    ),
    "Tempo's": lambda: json.dumps(export(*SPANS)).replace("resourceSpans", "batches"),
}  # fmt: skip


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("packed", [False, True])
def test_spans_are_the_same_in_every_wrapping(wrapping: str, packed: bool, tmp_path: Path) -> None:
    path = tmp_path / "spans.json"
    text = WRAPPINGS[wrapping]().encode()
    path.write_bytes(gzip.compress(text) if packed else text)
    assert detect_format(path) == "otel"
    trace = read_trace(path)
    assert (trace.requests.arrival_ps / PS_PER_S).tolist() == [0, 1.25, 3.5]
    assert trace.requests.prompt_tokens.tolist() == [7, 100, 100]
    assert trace.requests.output_tokens.tolist() == [5, 20, 20]
    assert trace.requests.request_id == ("cmpl-2", "cmpl-3", "cmpl-1")
    assert trace.notes == ()
    assert measured(trace, "measured_ttft_s") == [0.25] * 3
    assert measured(trace, "measured_e2e_s") == [0.75] * 3


def measured(trace: TraceFile, name: str) -> list[float | None]:
    values = (trace.measured or {})[name].tolist()
    return [None if np.isnan(one) else one for one in values]


def test_names_of_the_conventions_are_read_and_the_span_is_its_own_clock(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, export(generic(0, 1), vllm(2, 2))))
    assert trace.requests.prompt_tokens.tolist() == [300, 100]
    assert trace.requests.request_id == (f"{1:016x}", "cmpl-2")
    assert measured(trace, "measured_ttft_s") == [None, 0.25]
    assert measured(trace, "measured_e2e_s") == [1.0, 0.75]


def test_spans_that_are_no_requests_are_left_out_and_counted(tmp_path: Path) -> None:
    others = [
        span("POST /v1/chat/completions", 0, 10),
        span("embeddings", 0, 11, operation__name="embeddings", usage__input_tokens=9),
        span("agent", 0, 12, operation__name="invoke_agent", usage__input_tokens=900,
             usage__output_tokens=80),
    ]  # fmt: skip
    logs: dict[str, Any] = {"resourceLogs": [{"scopeLogs": []}]}
    trace = read_trace(written(tmp_path, export(*others, vllm(5, 1)), logs))
    assert len(trace.requests) == 1
    assert trace.notes == ("3 spans without an LLM's request left out",)


def test_of_nested_request_spans_the_inner_one_counts(tmp_path: Path) -> None:
    client = generic(0, 1)
    proxy = span("proxy", 0.1, 2, parent=1)
    server = vllm(0.2, 3) | {"parentSpanId": f"{2:016x}"}
    # A client that streams may not know its tokens: what it stands around does.
    unaware = span("chat", 5, 4, operation__name="chat")
    served = vllm(5.1, 5) | {"parentSpanId": f"{4:016x}"}
    trace = read_trace(written(tmp_path, export(served, unaware, client), export(proxy, server)))
    assert trace.requests.prompt_tokens.tolist() == [100, 100]
    assert "2 request spans around others left out: inner ones count" in trace.notes


def test_spans_in_a_ring_end(tmp_path: Path) -> None:
    ring = [vllm(k, k + 1) | {"parentSpanId": f"{(k + 1) % 3 + 1:016x}"} for k in range(3)]
    assert "no request" in refusal(written(tmp_path, export(*ring)))
    assert len(read_trace(written(tmp_path, export(*ring, vllm(9, 9)))).requests) == 1


INCOMPLETE = [
    span("llm_request", 1, 7, usage__prompt_tokens=5),
    generic(2, 8, usage__output_tokens=0),
    span("chat", 3, 9, operation__name="chat"),
]


def test_spans_without_token_counts_are_refused_or_counted(tmp_path: Path) -> None:
    path = written(tmp_path, export(vllm(0, 1)), export(*INCOMPLETE))
    expected = (
        "row 2: span 2 (llm_request): got no gen_ai.usage.output_tokens, and so have 2 more, "
        "allowed: both token counts; --skip-incomplete"
    )
    assert expected in refusal(path)
    trace = read_trace(path, skip_incomplete=True)
    assert len(trace.requests) == 1
    assert trace.notes == ("3 request spans without token counts left out",)
    only = written(tmp_path, export(*INCOMPLETE), name="only")
    assert "no request among 3 spans" in refusal(only, skip_incomplete=True)


def test_skipping_is_refused_where_there_are_no_spans(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n0,5,5\n")
    assert "skip_incomplete: got True, allowed: nothing" in refusal(path, skip_incomplete=True)


def test_models_and_caches_are_noted(tmp_path: Path) -> None:
    spans = [
        generic(k, k + 1, response__model=f"m{k % 2}", usage__cache_read__input_tokens=150)
        for k in range(4)
    ]
    notes = read_trace(written(tmp_path, export(*spans))).notes
    assert notes[0] == "requests to 2 models: m0 2, m1 2"
    assert notes[1].startswith("50.0% of prompt tokens came from a cache")


def test_a_part_is_taken_in_order_of_arrival_with_its_measurements(tmp_path: Path) -> None:
    times_s = [9, 1, 7, 3, 5]
    spans = [
        generic(at, at, latency__time_to_first_token=at / 10, usage__input_tokens=at)
        for at in times_s
    ]
    path = written(tmp_path, export(*spans))
    for part, expected in (
        (Part(head=2), [1, 3]),
        (Part(from_s=3), [5, 7, 9]),
        (Part(from_s=2, to_s=7, head=2), [3, 5]),
    ):
        trace = read_trace(path, part=part)
        assert trace.requests.prompt_tokens.tolist() == expected
        assert measured(trace, "measured_ttft_s") == [at / 10 for at in expected]
        assert trace.requests.arrival_ps[0] == 0


BAD = [
    ([export(vllm(0, 1)), "x"], "row 2: got 'x', allowed: OTLP JSON"),
    ([export(vllm(0, 1)), {"spans": []}], "row 2: got keys spans, allowed: OTLP JSON"),
    ([{"resourceSpans": 5}], "row 1: resourceSpans: got 5"),
    ([{"resourceSpans": [{"scopeSpans": [{"spans": [7]}]}]}], "row 1: spans: got 7"),
    ([export()], "no request among 0 spans"),
    ([export(vllm(0, 1) | {"startTimeUnixNano": "-5"})], "span 1 (llm_request): got no start time"),
    ([export(vllm(0, 1) | {"startTimeUnixNano": None})], "got no start time"),
    ([export(vllm(0, 1, prompt=-5))], "gen_ai.usage.input_tokens: got -5"),
    ([export(vllm(0, 1, prompt=2**40))], "got 1099511627776"),
    ([export(generic(0, 1, usage__output_tokens="many"))], "got many"),
    ([export(generic(0, 1, usage__output_tokens=1.5))], "got 1.5"),
    ([export(generic(0, 1, latency__e2e=-1.0))], "gen_ai.latency.e2e: got -1.0"),
]


@pytest.mark.parametrize(("documents", "expected"), BAD, ids=[row[1] for row in BAD])
def test_a_faulty_span_is_named(documents: list[Any], expected: str, tmp_path: Path) -> None:
    assert expected in refusal(written(tmp_path, *documents), format="otel")


def test_a_row_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "spans"
    path.write_text(json.dumps(export(vllm(0, 1))) + '\n{"resourceSpans": [\n')
    assert 'row 2: got {"resourceSpans": [, allowed: one JSON object per line' in refusal(path)
    path.write_text('{\n"resourceSpans": [\n')
    assert "JSON that does not parse" in refusal(path)


# --- many spans at once, or one by one ---

NUMBERS = ["5", "0", 7, -7, "-5", "007", "", "9" * 19, "9" * 30, "٣", "1_000", 2**40, "5.0", "1e2",
           "-0", 5.0, 5.5, "5.5", "NaN", "Infinity", 0.25, 1e300, None, True]  # fmt: skip
numbers = st.tuples(
    st.sampled_from(["intValue", "doubleValue", "stringValue"]), st.sampled_from(NUMBERS)
).map(lambda one: {one[0]: one[1]})
texts = st.sampled_from(["chat", "", "embeddings", "a/b", '\u00e9"\n\\']).map(
    lambda one: {"stringValue": one}
)
oddities: st.SearchStrategy[object] = st.sampled_from(
    [{}, {"arrayValue": {}}, {"intValue": "5", "doubleValue": 0.5}, None, 5, {"boolValue": True},
     {"stringValue": "x", "intValue": "5"}, {"stringValue": "x", "doubleValue": 0.5}]
)  # fmt: skip
NAMES = [*COUNTS, *CACHED, *E2E, *TTFT]
attributes = st.one_of(
    st.tuples(st.sampled_from(NAMES), numbers),
    st.tuples(st.sampled_from([*IDS, *MODELS, OPERATION]), texts),
    st.tuples(st.sampled_from([*NAMES, IDS[0], OPERATION, "other"]), oddities),
)
fields: st.SearchStrategy[tuple[str, object]] = st.one_of(
    st.tuples(st.sampled_from(["parentSpanId", "spanId", "name"]), st.sampled_from(["", "a/b"])),
    st.tuples(
        st.sampled_from(["parent_id", "context", "kind"]),
        st.sampled_from(["b1", {"parent_id": "b1"}]),
    ),
    st.tuples(
        st.sampled_from(["startTimeUnixNano", "endTimeUnixNano", "start_time"]),
        st.sampled_from(
            [f"{START_S + 1}234567891", "-1", "9" * 20, "0" * 22 + "5", 5, None, "5.0", "1e9", 2.5]
        ),
    ),
    st.tuples(st.just("attributes"), st.sampled_from([[], None, {"a": 1}])),
)
entries = st.tuples(
    st.sampled_from([vllm, generic]),
    st.lists(attributes, max_size=2),
    st.lists(fields, max_size=1),
    st.integers(0, 8),
)
Entry = tuple[Callable[..., Any], list[tuple[str, object]], list[tuple[str, object]], int]


def as_json(content: Any, escaped: int) -> str:
    """Return JSON, in which some texts begin with a letter's number instead of the letter."""
    text = json.dumps(content, ensure_ascii=False)
    return re.sub(f'(?<=")[_{"gskltno"[:escaped]}]', lambda at: f"\\u{ord(at[0]):04x}", text)


@settings(max_examples=800)
@given(
    drawn=st.lists(entries, min_size=1, max_size=3),
    plain=st.integers(0, 3),
    end=st.sampled_from(["\n", "\r\n", "\n\n", ""]),
    wrapping=st.sampled_from(["spans", "exports", "export", "backwards"]),
    escaped=st.integers(0, 7),
)
def test_spans_are_the_same_one_by_one_and_at_once(
    drawn: list[Entry], plain: int, end: str, wrapping: str, escaped: int
) -> None:
    spans = [vllm(9, 90 + number) for number in range(plain)]
    for number, (kind, attributes, fields, dropped) in enumerate(drawn, start=1):
        made = kind(number, number)
        del made["attributes"][dropped : dropped + 1]
        made["attributes"] += [{"key": key, "value": one} for key, one in attributes]
        spans.insert(number % (plain + 1), made | dict(fields))
    lines = {"spans": spans, "export": [export(*spans)]}.get(
        wrapping, [export(one) for one in spans]
    )
    if wrapping == "backwards":
        lines = [
            json.loads(json.dumps(one), object_pairs_hook=lambda p: dict(p[::-1])) for one in lines
        ]
    text = "".join(as_json(one, escaped) + end for one in lines)
    slow: RequestSpans | None
    try:
        slow = requests_of(Path("f"), spans_in(Path("f"), 1, text.encode()))
    except InputError:
        slow = None
    learned: Shapes = {}
    for _ in range(2):  # what is learned makes no difference
        quick = requests_of_block(text.encode(), learned)
        if quick is not None:
            assert slow is not None and (quick.spans, slow.incomplete) == (slow.spans, ())
            np.testing.assert_array_equal(quick.below, slow.below)
            for name in COLUMNS:
                np.testing.assert_array_equal(quick.requests[name], slow.requests[name])


def test_what_a_collector_writes_is_read_at_once() -> None:
    others = [span("GET /", 0, 10, status=200), span("embed", 0, 11, operation__name="embeddings")]
    below = vllm(0.5, 12) | {"parentSpanId": f"{10:016x}"}
    lines = [export(*SPANS, *others, below), export(generic(1, 9, response__model="m")), export()]
    block = "\n".join(map(json.dumps, lines)).encode()
    quick = requests_of_block(block, {})
    assert quick is not None and quick.spans == 7
    assert quick.requests["prompt_tokens"].tolist() == [100, 7, 100, 100, 300]
    assert quick.below[:, 1].tolist() == [quick.requests["parent"][3]]


def test_two_objects_on_a_line_are_not_read_at_once() -> None:
    line = json.dumps(export(vllm(0, 1)))
    assert requests_of_block(f"{line}\n{line}\n".encode(), {}) is not None
    for text in (f"{line}{line}\n", f"{line} {line}", f"{line}{line[:5]}\n{line[5:]}\n{line}\n"):
        assert requests_of_block(text.encode(), {}) is None


def test_a_request_that_was_exported_twice_counts_once(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, export(*SPANS), export(SPANS[0], vllm(7, 4))))
    assert trace.requests.request_id == ("cmpl-2", "cmpl-3", "cmpl-1", "cmpl-4")
    assert trace.notes == ("1 request span exported twice left out",)


def test_a_large_document_on_one_line_is_taken_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otel_spans, "LONGEST_LINE_BYTES", 1000)
    monkeypatch.setattr(otel_spans, "_AT_A_TIME_BYTES", 1000)
    path = written(tmp_path, export(*SPANS, *(vllm(4 + n, 10 + n) for n in range(20))))
    assert path.stat().st_size > 5000
    assert len([*otel_spans.span_blocks(path)]) > 3
    assert read_trace(path).requests.prompt_tokens.tolist() == [7] + [100] * 22
    written(tmp_path, export(*SPANS, INCOMPLETE[0]))
    assert "spans.jsonl: span 4 (llm_request): got no gen_ai.usage.output_tokens" in refusal(path)
    monkeypatch.setattr(otel_spans, "_LARGEST_UNUSUAL_MIB", 0)
    written(tmp_path, SPANS)
    assert "got a larger JSON document, allowed: at most 0 MiB, or one" in refusal(path)


@pytest.mark.parametrize("count", ["5.0", "1e2", 7, 5.0])
def test_a_number_may_be_written_as_protojson_allows(count: object, tmp_path: Path) -> None:
    odd = vllm(0, 1)
    odd["attributes"][0]["value"] = {"intValue": count}
    odd["attributes"][2]["value"] = {"doubleValue": "0.125"}
    trace = read_trace(written(tmp_path, export(odd)))
    assert trace.requests.prompt_tokens.tolist() == [int(float(str(count)))]
    assert measured(trace, "measured_ttft_s") == [0.125]


@pytest.mark.parametrize("size", [1, 700, 1 << 20])
def test_spans_do_not_depend_on_the_blocks_that_they_are_read_in(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_lines, "_FIRST_BLOCK_BYTES", size)
    monkeypatch.setattr(otel_spans, "_AT_A_TIME_BYTES", size)
    odd = generic(3, 9, usage__output_tokens=40.0)
    path = written(tmp_path, *(export(one) for one in [*SPANS, odd, vllm(9, 5)]), export())
    trace = read_trace(path)
    assert trace.requests.prompt_tokens.tolist() == [7, 100, 300, 100, 100]
    written(tmp_path, *(export(one) for one in SPANS), export(INCOMPLETE[0]))
    assert "row 4: span 4 (llm_request)" in refusal(path)
    written(tmp_path, *(export(one) for one in SPANS), 5)
    assert "row 4: got 5" in refusal(path)


# --- the command ---


def simserve(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def test_import_writes_a_trace_that_a_run_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spans = [*SPANS, generic(5, 8), INCOMPLETE[0]]
    written(tmp_path, export(*spans))
    refused = simserve("trace", "import", "--otel", "spans.jsonl", "--out", "t.csv")
    assert refused.exit_code == 2 and len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "t.csv").exists()
    words = ("trace", "import", "--otel", "spans.jsonl", "--skip-incomplete")
    printed = simserve(*words)
    assert printed.exit_code == 0
    assert printed.stderr == "note: 1 request span without token counts left out\n"
    assert printed.stdout.splitlines()[:2] == [
        "arrival_s,prompt_tokens,output_tokens,request_id,measured_ttft_s,measured_e2e_s",
        "0,7,5,cmpl-2,0.25,0.75",
    ]
    assert printed.stdout.splitlines()[-1] == f"5,300,40,{8:016x},,1.0"
    for name, form in (("t.csv", "csv"), ("t.parquet", "parquet"), ("t.jsonl", "timed_trace")):
        done = simserve(*words, "--out", name, "--to", form)
        assert done.exit_code == 0
        back = read_trace(tmp_path / name).requests
        assert back.prompt_tokens.tolist() == [7, 100, 100, 300]
    assert "timed-trace cannot say: request ids, measured latencies" in done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", "trace import: got neither, allowed: either --prometheus or --otel"),
        ("--otel s --prometheus p", "trace import: got both"),
        ("--otel spans.jsonl --over 5", "--over: got 5.0, allowed: --prometheus beside it"),
        ("--otel spans.jsonl --to parquet", "--to: got parquet, allowed: csv"),
        ("--otel spans.jsonl --out t --to xlsx", "--to: to: got xlsx"),
        ("--otel nowhere", "nowhere: got No such file"),
        ("--prometheus spans.jsonl --over 5 --to csv", "--to: got csv, allowed: --otel beside it"),
        ("--prometheus spans.jsonl", "--over: got nothing"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(
    words: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, export(*SPANS))
    done = simserve("trace", "import", *words.split())
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"simserve: {expected}") and done.stderr.count("\n") == 1
