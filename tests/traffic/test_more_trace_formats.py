"""BurstGPT, Bailian, ServeGen, files of lengths and tables: what comes out, what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simserve.errors import InputError
from simserve.records.clock import PS_PER_S
from simserve.traffic.trace_formats import Part, TraceFile, detect_format, read_trace, servegen

BURSTGPT = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,472,18,490,Conversation log\n"
    "45,GPT-4,1087,230,1317,API log\n"
    "118,ChatGPT,417,0,417,Conversation log\n"
    "120.5,GPT-4,9,1,10,API log\n"
)
CHAT = {
    "chat_id": 7,
    "parent_chat_id": -1,
    "timestamp": 61.5,
    "input_length": 30,
    "output_length": 5,
    "type": "text",
    "turn": 1,
    "hash_ids": [3, 9],
}
POOL = {
    "client": 4,
    "windows": [[600, 2.0, 1.0, "Gamma", 1.0, 0.5], [1800, 0.5, 3.0, "Weibull", 0.5, 1.0]],
    "length_pdfs": {"0": {"input_tokens": {"10": 0.5, "20.0": 0.5}, "output_tokens": {"3": 1.0}}},
}


def written(tmp_path: Path, content: str | bytes, name: str = "trace") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def jsonl(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def refusal(path: Path, *words: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read_trace(path, *words, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def columns(trace: TraceFile) -> tuple[list[int], list[int], list[int]]:
    table = trace.requests
    times, prompts, outputs = table.arrival_ps, table.prompt_tokens, table.output_tokens
    return times.tolist(), prompts.tolist(), outputs.tolist()


# --- BurstGPT, Bailian ---


def test_burstgpt_leaves_out_failed_requests_and_says_so(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, BURSTGPT))
    seconds = [0, 40, 115.5]
    assert columns(trace) == ([int(s * PS_PER_S) for s in seconds], [472, 1087, 9], [18, 230, 1])
    assert (trace.format, trace.notes) == (
        "burstgpt",
        ("1 failed requests (0 response tokens) left out",),
    )


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("-5,GPT-4,1,1,2,x", "row 6: Timestamp: got -5, allowed: a time in seconds"),
        ("5,GPT-4,x,1,2,x", "row 6: Request tokens: got x"),
        ("5,GPT-4,0,1,2,x", "row 6: Request tokens: got 0"),
        ("5,GPT-4,1,1,2", "row 6: got 5 fields, allowed: 6"),
    ],
)
def test_faulty_burstgpt_row_is_named(tmp_path: Path, row: str, expected: str) -> None:
    assert expected in refusal(written(tmp_path, BURSTGPT + row + "\n"))


def test_part_of_a_trace_longer_than_the_clock_can_be_read(tmp_path: Path) -> None:
    path = written(tmp_path, BURSTGPT + "9000000,GPT-4,1,1,2,x\n")
    assert "from_s and to_s choose a part" in refusal(path)
    assert len(read_trace(path, part=Part(to_s=1000)).requests) == 3
    assert len(read_trace(path, part=Part(from_s=1000)).requests) == 1


def test_bailian_ids_are_blocks_of_16_tokens(tmp_path: Path) -> None:
    later = {**CHAT, "chat_id": 8, "parent_chat_id": 7, "timestamp": 62, "hash_ids": [3, 10]}
    trace = read_trace(written(tmp_path, jsonl(CHAT, later)))
    assert (trace.format, trace.block_tokens) == ("bailian", 16)
    assert trace.requests.segments is not None
    assert trace.requests.segments.tokens.tolist() == [16, 14, 16, 14]
    assert trace.requests.arrival_ps.tolist() == [0, PS_PER_S // 2]


def test_bailian_row_without_ids_is_refused(tmp_path: Path) -> None:
    bare = {key: value for key, value in CHAT.items() if key != "hash_ids"}
    assert "row 2: got columns" in refusal(written(tmp_path, jsonl(CHAT, bare)))


# --- ServeGen ---


def pool(tmp_path: Path, *clients: dict[str, Any]) -> Path:
    return written(tmp_path, jsonl(*clients), "pool.jsonl")


@pytest.mark.parametrize("pattern", ["Gamma", "Weibull"])
@pytest.mark.parametrize("shape", [0.1, 0.5, 1.0, 5.0])
def test_windows_have_the_requests_that_their_rate_promises(
    tmp_path: Path, pattern: str, shape: float
) -> None:
    windows = [[600 * k, 0.5, 1.0, pattern, shape, 1.0] for k in range(400)]
    path = pool(tmp_path, {**POOL, "windows": windows})
    count = len(read_trace(path).requests)
    cv = {"Gamma": shape**-0.5}.get(pattern) or {0.1: 430, 0.5: 2.24, 1: 1, 5: 0.23}[shape]
    # 300 a window on average whatever the shape, which a process started anew would exceed by
    # (cv² - 1) / 2 a window. Weibull 0.1 has gaps of such variance that only a rough look helps.
    tolerance = 0.5 if cv > 100 else 5 * cv / (300 * 400) ** 0.5
    assert count / (300 * 400) == pytest.approx(1, rel=tolerance)


def test_clients_draw_from_their_own_lengths(tmp_path: Path) -> None:
    table = read_trace(pool(tmp_path, POOL)).requests
    assert set(table.prompt_tokens.tolist()) == {10, 20}
    assert set(table.output_tokens.tolist()) == {3}
    assert (table.prompt_tokens == 10).mean() == pytest.approx(0.5, abs=5 * 0.5 / 1200**0.5)


def test_adding_a_client_moves_no_request_of_another(tmp_path: Path) -> None:
    other = {**POOL, "client": 5, "length_pdfs": {"0": {"input_tokens": {"7": 1.0},
             "output_tokens": {"9": 1.0}}}}  # fmt: skip
    one = read_trace(pool(tmp_path, POOL)).requests
    both = read_trace(pool(tmp_path, POOL, other)).requests
    mine = both.output_tokens == 3
    np.testing.assert_array_equal(both.prompt_tokens[mine], one.prompt_tokens)
    np.testing.assert_array_equal(np.diff(both.arrival_ps[mine]), np.diff(one.arrival_ps))


def test_another_seed_draws_other_requests(tmp_path: Path) -> None:
    path = pool(tmp_path, POOL)
    one, same, other = (columns(read_trace(path, seed=seed)) for seed in (1, 1, 2))
    assert one == same != other


def test_clients_without_lengths_are_named_and_weighed(tmp_path: Path) -> None:
    bare = {"client": 11, "windows": [[600, 4.0, 1, "Gamma", 1, 1]], "length_pdfs": {}}
    trace = read_trace(pool(tmp_path, POOL, bare))
    assert trace.notes == (
        "clients without length_pdfs left out: 11 (61.5% of the requests)",  # 4 of 6.5
    )


def test_notes_do_not_pass_on_what_acts_on_a_terminal(tmp_path: Path) -> None:
    bare = {**POOL, "client": "a\n\x1b[31mb", "length_pdfs": {}}
    [note] = read_trace(pool(tmp_path, POOL, bare)).notes
    assert note.isprintable() and "a \\x1b[31mb" in note


def test_rate_of_a_pool_scales_its_clients_not_the_time(tmp_path: Path) -> None:
    trace = read_trace(pool(tmp_path, POOL), rate_per_s=10)
    table = trace.requests
    assert trace.rescaled
    # Two windows over 1800 s, with a gap between them: 18,000 requests in all.
    assert len(table) == pytest.approx(18_000, rel=5 * 2.24 / 18_000**0.5)
    assert table.arrival_ps[-1] / PS_PER_S == pytest.approx(1800, rel=0.02)


def test_part_of_a_pool_is_what_arrives_in_it(tmp_path: Path) -> None:
    table = read_trace(pool(tmp_path, POOL), part=Part(from_s=700, to_s=800)).requests
    assert len(table) == pytest.approx(200, abs=5 * 200**0.5)
    assert table.arrival_ps[-1] < 100 * PS_PER_S


def test_head_of_a_pool_is_the_start_of_all_of_it(tmp_path: Path) -> None:
    windows = [[600 * k, 0.5, 1.0, "Gamma", 0.3, 1.0] for k in range(50)]
    path = pool(tmp_path, {**POOL, "windows": windows})
    head, whole = (read_trace(path, part=Part(head=n)).requests for n in (500, None))
    np.testing.assert_array_equal(head.arrival_ps, whole.arrival_ps[:500])


@pytest.mark.parametrize("part", [{"head": 7}, {"head": 40, "from_s": 250}])
def test_head_of_a_pool_bounds_what_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: dict[str, Any]
) -> None:
    shapes = [("Gamma", 1.0), ("Weibull", 0.3), ("Gamma", 0.1)]
    clients = [
        {**POOL, "client": name, "windows": [[600 * k, 3.0, 1.0, form, shape, 1.0] for k in (0, 1)]}
        for name, (form, shape) in enumerate(shapes)
    ]
    path = pool(tmp_path, *clients)
    whole = read_trace(path, part=Part(from_s=part.get("from_s", 0))).requests
    drawn: list[int] = []
    times_of_window = servegen._window_times_s

    def counted(*given: Any) -> Any:
        found = times_of_window(*given)
        drawn.append(len(found))
        return found

    monkeypatch.setattr(servegen, "_window_times_s", counted)
    some = read_trace(path, part=Part(**part)).requests
    for name in ("arrival_ps", "prompt_tokens", "output_tokens"):
        assert getattr(some, name).tolist() == getattr(whole, name)[: part["head"]].tolist()
    # Of 9 requests/s, those before from_s, and a small multiple of what is wanted.
    assert sum(drawn) < 9 * part.get("from_s", 0) + 10 * part["head"] + 500


BAD_POOLS: list[tuple[dict[str, Any], str]] = [
    ({"windows": 5}, "row 1: windows: got 5, allowed: a list"),
    ({"windows": [[600, 2.0]]}, "row 1: windows: got [600,2.0], allowed: [start_s"),
    ({"windows": [[600, -2.0, 1, "Gamma", 1, 1]]}, "row 1: windows"),
    ({"windows": [[600, 2.0, 1, "Pareto", 1, 1]]}, "Gamma or Weibull"),
    ({"windows": [[600, 2.0, 1, "Gamma", 0, 1]]}, "row 1: windows"),
    ({"windows": [["a", 2.0, 1, "Gamma", 1, 1]]}, "row 1: windows"),
    ({"windows": [[600, 1e30, 1, "Gamma", 1, 1]]}, "row 1: windows"),
    ({"windows": []}, "no request in the part"),
    ({"client": None}, "row 1: client: got null"),
    ({"length_pdfs": []}, "no request in the part"),
    ({"length_pdfs": 5}, "row 1: length_pdfs: got 5"),
    ({"length_pdfs": {"x": {}}}, "row 1: length_pdfs: got x"),
    ({"length_pdfs": {"0": {"input_tokens": {"5": 1}}}}, "length_pdfs.0.output_tokens: got null"),
    (
        {"length_pdfs": {"0": {"input_tokens": {"5": -1}, "output_tokens": {"5": 1}}}},
        "input_tokens: got 5: -1",
    ),
    (
        {"length_pdfs": {"0": {"input_tokens": {"0": 1}, "output_tokens": {"5": 1}}}},
        "no probability above 0 tokens",
    ),
    (
        {"length_pdfs": {"9000": {"input_tokens": {"5": 1}, "output_tokens": {"5": 1}}}},
        "client 4: length_pdfs: got nothing for 600 s",
    ),
]


@pytest.mark.parametrize(("change", "expected"), BAD_POOLS)
def test_faulty_pool_is_named(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    assert expected in refusal(pool(tmp_path, {**POOL, **change}))


# --- lengths only ---


@pytest.mark.parametrize(
    "content",
    [
        "num_prefill_tokens,num_decode_tokens,num_total_tokens\n5,6,11\n7,8,15\n",
        '{"prompt_len": 5, "output_len": 6}\n{"prompt_len": 7, "output_len": 8}\n',
        '[{"prompt_tokens": 5, "completion_tokens": 6}, {"prompt_tokens": 7, '
        '"completion_tokens": 8}]',
    ],
)
def test_lengths_are_read_under_their_usual_names(tmp_path: Path, content: str) -> None:
    for data in (content.encode(), gzip.compress(content.encode())):
        trace = read_trace(written(tmp_path, data))
        assert columns(trace) == ([0, 0], [5, 7], [6, 8])
        assert (trace.format, trace.timed) == ("lengths", False)


@pytest.mark.parametrize(
    "content",
    [
        '[{"id": "a", "conversations": [{"from": "human", "value": "Hi"}]}]',
        '{"prompt": "Tell me", "output_tokens": 5}\n',
    ],
)
def test_conversations_in_words_are_refused(tmp_path: Path, content: str) -> None:
    assert "count the tokens first" in refusal(written(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[{"prompt_len": 5, "output_len": 0}]', "row 1: output_len: got 0"),
        ('[{"prompt_len": 5, "output_len": 1}, {"prompt_len": 5}]', "row 2: got columns prompt_"),
        ("[5]", "row 1: got 5"),
        ("[", "JSON that does not parse"),
        ("[]", "no request"),
    ],
)
def test_faulty_lengths_are_named(tmp_path: Path, content: str, expected: str) -> None:
    assert expected in refusal(written(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("timestamp,prompt_tokens,completion_tokens\n0,5,6\n", "--trace-columns arrival_s=timest"),
        ('[{"arrival_s": 0, "prompt_tokens": 5, "output_tokens": 6}]', "one object per line; --tr"),
    ],
)
def test_times_beside_lengths_are_left_out_only_if_asked(
    content: str, expected: str, tmp_path: Path
) -> None:
    path = written(tmp_path, content)
    with pytest.raises(InputError, match="beside the lengths") as caught:
        read_trace(path)
    assert expected in str(caught.value)
    assert len(read_trace(path, "lengths").requests) == 1


def test_times_of_a_timed_trace_can_be_left_out(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, BURSTGPT.replace(",0,417", ",3,417")), "lengths")
    assert not trace.timed
    assert trace.requests.prompt_tokens.tolist() == [472, 1087, 417, 9]


# --- tables ---

ROWS = [(0.0, 10, 5, 1), (2.5, 20, 6, 0), (1.0, 30, 7, 2)]
NAMES = ("arrival_s", "prompt_tokens", "output_tokens", "priority")


def table_file(tmp_path: Path, form: str, names: tuple[str, ...] = NAMES) -> Path:
    if form == "csv":
        lines = [",".join(names), *(",".join(map(str, row)) for row in ROWS)]
        return written(tmp_path, "\n".join(lines) + "\n", "t.csv")
    if form == "jsonl":
        rows = [dict(zip(names, row, strict=True)) for row in ROWS]
        return written(tmp_path, jsonl(*rows), "t.jsonl")
    import pyarrow as pa
    from pyarrow import parquet

    values = zip(*ROWS, strict=True)
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table(dict(zip(names, map(list, values), strict=True))), path)
    return path


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_table_explains_itself_or_is_explained(tmp_path: Path, form: str) -> None:
    plain = table_file(tmp_path, form)
    assert detect_format(plain) == "table"
    first = read_trace(plain)
    assert columns(first) == ([0, PS_PER_S, 5 * PS_PER_S // 2], [10, 30, 20], [5, 7, 6])
    assert first.requests.priority is not None
    assert first.requests.priority.tolist() == [1, 2, 0]
    other = table_file(tmp_path, form, ("when", "in", "out", "urgency"))
    roles = {"arrival_s": "when", "prompt_tokens": "in", "output_tokens": "out"}
    assert columns(read_trace(other, columns=roles)) == columns(first)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_missing_column_of_a_table_is_named(tmp_path: Path, form: str) -> None:
    path = table_file(tmp_path, form, ("when", "in", "out", "urgency"))
    roles = {"arrival_s": "when", "prompt_tokens": "input", "output_tokens": "out"}
    message = refusal(path, columns=roles)
    assert "got columns when, in, out, urgency, allowed: a row with column input" in message


def test_calendar_times_of_a_table(tmp_path: Path) -> None:
    path = written(tmp_path, "at,i,o\n2024-05-10 00:00:01.5+00:00,1,2\n2024-05-10T00:00:01Z,3,4\n")
    roles = {"arrival_time": "at", "prompt_tokens": "i", "output_tokens": "o"}
    assert columns(read_trace(path, columns=roles)) == ([0, PS_PER_S // 2], [3, 1], [4, 2])


def test_parquet_timestamps_are_times(tmp_path: Path) -> None:
    import datetime as dt

    import pyarrow as pa
    from pyarrow import parquet

    at = [dt.datetime(2024, 5, 10, 0, 0, 1, 500_000), dt.datetime(2024, 5, 10)]
    path = tmp_path / "t.parquet"
    entries = {"arrival_time": at, "prompt_tokens": [1, 3], "output_tokens": [2, 4]}
    parquet.write_table(pa.table(entries), path)
    assert columns(read_trace(path)) == ([0, 3 * PS_PER_S // 2], [3, 1], [4, 2])


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("prompt_tokens", [1, 0], "row 2: prompt_tokens: got 0"),
        ("prompt_tokens", [1, None], "row 2: prompt_tokens: got nothing"),
        ("prompt_tokens", [1.0, 2.0], "row 1: prompt_tokens: got 1.0"),
        ("arrival_s", [0.0, float("nan")], "row 2: arrival_s: got nan"),
        ("arrival_s", [0.0, -1.0], "row 2: arrival_s: got -1.0"),
        ("arrival_s", [[0.0], [1.0]], "row 1: arrival_s: got [0.0]"),
    ],
)
def test_faulty_parquet_row_is_named(
    tmp_path: Path, column: str, values: list[Any], expected: str
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    entries: dict[str, list[Any]] = {
        "arrival_s": [0.0, 1.0], "prompt_tokens": [1, 2], "output_tokens": [1, 2]
    }  # fmt: skip
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({**entries, column: values}), path)
    assert expected in refusal(path)


def test_damaged_parquet_is_refused(tmp_path: Path) -> None:
    whole = table_file(tmp_path, "parquet").read_bytes()
    for cut in (4, 40, len(whole) - 20):
        assert "Parquet that cannot be read" in refusal(written(tmp_path, whole[:cut]))
    wrong_name = whole.replace(b"prompt_tokens", b"promp\xf4_tokens")
    assert wrong_name != whole
    assert "Parquet that cannot be read" in refusal(written(tmp_path, wrong_name))


def test_table_with_two_times_or_wrong_segments_is_refused(tmp_path: Path) -> None:
    text = "arrival_s,arrival_ms,prompt_tokens,output_tokens\n1,1000,5,5\n"
    assert "one column of times" in refusal(written(tmp_path, text))
    for segments in ("0:4", "", "0:3  1:2", "a:5", "0:5:5", "0:0 1:5", "-1:5"):
        text = f"arrival_s,prompt_tokens,output_tokens,segments\n1,5,5,{segments}\n"
        assert "request 1: segments: got" in refusal(written(tmp_path, text))


def test_columns_of_another_format_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, BURSTGPT)
    assert "burstgpt fixes them" in refusal(path, "burstgpt", columns={"arrival_s": "Timestamp"})
