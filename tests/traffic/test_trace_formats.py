"""Trace files read row by row: what comes out, and how each fault is refused."""

from __future__ import annotations

import gzip
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simserve.errors import InputError
from simserve.records.clock import PS_PER_S
from simserve.traffic.trace_formats import FORMATS, detect_format, load_trace, read_trace

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 18:15:46.6805900,374,44\r\n"
    "2023-11-16 18:15:50.9951690,396,109\r\n"
)
ROW = {"timestamp": 0, "input_length": 1000, "output_length": 50, "hash_ids": [0, 1]}


def azure_with(*rows: str) -> str:
    return "TIMESTAMP,ContextTokens,GeneratedTokens\r\n" + "\r\n".join(rows) + "\r\n"


def jsonl(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def written(tmp_path: Path, text: str | bytes, name: str = "trace") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        load_trace(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


# --- what comes out ---


def test_azure_row_becomes_a_request(tmp_path: Path) -> None:
    table = load_trace(written(tmp_path, AZURE))
    assert table.arrival_ps.tolist() == [0, 4_314_579_000_000]
    assert table.prompt_tokens.tolist() == [374, 396]
    assert table.output_tokens.tolist() == [44, 109]
    assert table.segments is None


@pytest.mark.parametrize("suffix", ["", "Z", "+00:00"])
@pytest.mark.parametrize("fraction", ["", ".5", ".5000000", ".500000000000"])
def test_azure_times_may_have_any_fraction_and_say_that_they_are_utc(
    tmp_path: Path, fraction: str, suffix: str
) -> None:
    late = f"2024-05-10 00:00:01{fraction}{suffix}"
    table = load_trace(written(tmp_path, azure_with("2024-05-10 00:00:00,1,1", f"{late},1,1")))
    assert table.arrival_ps[1] == (1.5 if fraction else 1) * PS_PER_S


def test_columns_may_stand_in_any_order_among_others(tmp_path: Path) -> None:
    text = 'Note,GeneratedTokens,TIMESTAMP,ContextTokens\n"a, b",7,2023-11-16 18:15:46,374\n'
    table = load_trace(written(tmp_path, text))
    assert (table.prompt_tokens[0], table.output_tokens[0]) == (374, 7)


def test_mooncake_ids_become_segments_of_512_tokens_and_a_rest(tmp_path: Path) -> None:
    late = {**ROW, "timestamp": 3000, "input_length": 512, "hash_ids": [0]}
    table = load_trace(written(tmp_path, jsonl(ROW, late)), "mooncake")
    assert table.arrival_ps.tolist() == [0, 3 * PS_PER_S]
    assert table.segments is not None
    assert table.segments.offsets.tolist() == [0, 2, 3]
    assert table.segments.segment.tolist() == [0, 1, 0]
    assert table.segments.tokens.tolist() == [512, 488, 512]


def test_timed_trace_is_in_seconds_with_blocks_of_16_tokens(tmp_path: Path) -> None:
    rows = ({**ROW, "input_length": 40, "hash_ids": [5, 6, 7], "timestamp": t} for t in (1, 2.5))
    table = load_trace(written(tmp_path, jsonl(*rows)))
    assert table.arrival_ps.tolist() == [0, 1_500_000_000_000]
    assert table.segments is not None
    assert table.segments.tokens.tolist() == [16, 16, 8] * 2


def test_timed_trace_takes_another_block_size(tmp_path: Path) -> None:
    table = load_trace(written(tmp_path, jsonl(ROW)), block_tokens=512)
    assert table.segments is not None
    assert table.segments.tokens.tolist() == [512, 488]


def test_timed_trace_without_ids_shares_nothing(tmp_path: Path) -> None:
    rows = ({"timestamp": t, "input_length": 100, "output_length": 5} for t in range(3))
    assert load_trace(written(tmp_path, jsonl(*rows))).segments is None


def test_row_without_ids_among_rows_with_ids_shares_nothing(tmp_path: Path) -> None:
    bare = {"timestamp": 1, "input_length": 100, "output_length": 5}
    named = {**bare, "hash_ids": [0, 1, 2, 3, 4, 5, 6]}
    table = load_trace(written(tmp_path, jsonl(bare, named, bare)))
    assert table.segments is not None
    assert table.segments.offsets.tolist() == [0, 1, 8, 9]
    assert table.segments.segment.tolist() == [7, 0, 1, 2, 3, 4, 5, 6, 8]
    assert table.segments.tokens.tolist() == [100, 16, 16, 16, 16, 16, 16, 4, 100]


def test_requests_are_sorted_by_arrival_and_ties_keep_the_order_of_the_file(
    tmp_path: Path,
) -> None:
    rows = [
        {**ROW, "timestamp": t, "output_length": i + 1, "hash_ids": [2 * i, 2 * i + 1]}
        for i, t in enumerate([5000, 2000, 5000, 2000, 9000])
    ]
    table = load_trace(written(tmp_path, jsonl(*rows)), "mooncake")
    assert table.arrival_ps.tolist() == [t * PS_PER_S for t in (0, 0, 3, 3, 7)]
    assert table.output_tokens.tolist() == [2, 4, 1, 3, 5]
    assert table.segments is not None
    assert table.segments.segment.tolist() == [2, 3, 6, 7, 0, 1, 4, 5, 8, 9]


def test_times_since_1970_start_at_zero_like_any_others(tmp_path: Path) -> None:
    rows = ({"timestamp": 1.7e9 + t, "input_length": 1, "output_length": 1} for t in (0, 0.25, 7))
    table = load_trace(written(tmp_path, jsonl(*rows)))
    assert table.arrival_ps.tolist() == [0, PS_PER_S // 4, 7 * PS_PER_S]


@pytest.mark.parametrize("name", ["trace", "trace.gz", "trace.csv"])
def test_compression_is_seen_in_the_content_not_the_name(tmp_path: Path, name: str) -> None:
    plain = load_trace(written(tmp_path, AZURE, "plain"))
    packed = load_trace(written(tmp_path, gzip.compress(AZURE.encode()), name))
    assert packed.arrival_ps.tolist() == plain.arrival_ps.tolist()


def test_blank_lines_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    text = "\ufeff" + AZURE.replace("\r\n", "\n\n")
    assert len(load_trace(written(tmp_path, text))) == 2


def test_head_reads_no_further_than_it_says(tmp_path: Path) -> None:
    path = written(tmp_path, jsonl(ROW, ROW) + "garbage\n")
    assert len(load_trace(path, "mooncake", head=2)) == 2
    assert "row 3" in refusal(path, format="mooncake", head=3)


def test_head_beyond_the_end_reads_all(tmp_path: Path) -> None:
    assert len(load_trace(written(tmp_path, AZURE), head=100)) == 2


# --- which format ---


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (AZURE, "azure"),
        (jsonl(ROW), "mooncake"),
        (jsonl({**ROW, "input_length": 17}), "timed-trace"),
        (jsonl({"timestamp": 0, "input_length": 17, "output_length": 1}), "timed-trace"),
        # short prompts tell nothing; the first long one does
        (jsonl({**ROW, "input_length": 9, "hash_ids": [0]}, ROW), "mooncake"),
    ],
)
def test_format_is_found_in_the_content(tmp_path: Path, text: str, name: str) -> None:
    assert detect_format(written(tmp_path, text)) == name


@pytest.mark.parametrize(
    "text",
    [
        "a,b,c\n1,2,3\n",
        '{"time": 1}\n',
        jsonl({**ROW, "input_length": 9, "hash_ids": [0]}),
        jsonl({**ROW, "hash_ids": [0, 1, 2]}),
        "hello",
    ],
)
def test_undetectable_format_lists_the_formats(tmp_path: Path, text: str) -> None:
    message = refusal(written(tmp_path, text))
    assert all(name in message for name in FORMATS)


@pytest.mark.parametrize("name", ["timed-trace", "timed_trace"])
def test_format_names_take_hyphens_and_underscores(tmp_path: Path, name: str) -> None:
    rows = jsonl({"timestamp": 0, "input_length": 1, "output_length": 1})
    assert len(load_trace(written(tmp_path, rows), name)) == 1


def test_unknown_format_suggests_the_nearest(tmp_path: Path) -> None:
    assert "did you mean mooncake" in refusal(written(tmp_path, AZURE), format="moncake")


def test_block_tokens_of_a_format_that_fixes_them_is_refused(tmp_path: Path) -> None:
    message = refusal(written(tmp_path, jsonl(ROW)), format="mooncake", block_tokens=16)
    assert "block_tokens: got 16" in message


# --- how faults are refused: file, row, column, got, allowed ---

GOOD = "2023-11-16 18:15:46.68,374,44"
AZURE_FAULTS = [
    ("2023-11-16 18:15:46,0,44", "ContextTokens", "got 0"),
    ("2023-11-16 18:15:46,374,0", "GeneratedTokens", "got 0"),
    ("2023-11-16 18:15:46,-3,44", "ContextTokens", "got -3"),
    ("2023-11-16 18:15:46,3.5,44", "ContextTokens", "got 3.5"),
    ("2023-11-16 18:15:46,nan,44", "ContextTokens", "got nan"),
    ("2023-11-16 18:15:46,1e400,44", "ContextTokens", "got 1e400"),
    ("2023-11-16 18:15:46,1_000,44", "ContextTokens", "got 1_000"),
    ("2023-11-16 18:15:46,٣,44", "ContextTokens", "got ٣"),
    ("2023-11-16 18:15:46,,44", "ContextTokens", "got nothing"),
    ("2023-11-16 18:15:46,2147483648,44", "ContextTokens", "got 2147483648"),
    (f"2023-11-16 18:15:46,{'9' * 5000},44", "ContextTokens", "got 999"),
    ("2023-02-30 18:15:46,374,44", "TIMESTAMP", "got 2023-02-30 18:15:46"),
    ("2023-11-16 25:15:46,374,44", "TIMESTAMP", "got 2023-11-16 25:15:46"),
    ("1700158546.68,374,44", "TIMESTAMP", "got 1700158546.68"),
    ("2023-11-16 18:15:46+02:00,374,44", "TIMESTAMP", "+02:00"),
    (",374,44", "TIMESTAMP", "got nothing"),
    ("2023-11-16 18:15:46,374", "row 4", "got 2 fields, allowed: 3"),
    ("2023-11-16 18:15:46,374,44,9", "row 4", "got 4 fields, allowed: 3"),
    ('2023-11-16 18:15:46,"374,44', "row 4", "allowed: a line of CSV"),
]


@pytest.mark.parametrize(("row", "which", "got"), AZURE_FAULTS)
def test_faulty_azure_row_is_named(tmp_path: Path, row: str, which: str, got: str) -> None:
    path = written(tmp_path, azure_with(GOOD, GOOD, row, GOOD))
    message = refusal(path)
    assert message.startswith(f"{path}: row 4")
    assert which in message
    assert got in message
    assert "allowed: " in message


JSON_FAULTS = [
    ({"input_length": 0}, "input_length: got 0"),
    ({"output_length": 0}, "output_length: got 0"),
    ({"input_length": -5}, "input_length: got -5"),
    ({"input_length": 1000.0}, "input_length: got 1000.0"),
    ({"input_length": "1000"}, 'input_length: got "1000"'),
    ({"input_length": True}, "input_length: got true"),
    ({"input_length": None}, "input_length: got null"),
    ({"output_length": 10**30}, "output_length: got 1000000000000000"),
    ({"timestamp": -1}, "timestamp: got -1, allowed: a time in milliseconds"),
    ({"timestamp": float("nan")}, "timestamp: got NaN"),
    ({"timestamp": float("inf")}, "timestamp: got Infinity"),
    ({"timestamp": "3"}, 'timestamp: got "3"'),
    ({"timestamp": None}, "timestamp: got null"),
    ({"hash_ids": [0]}, "hash_ids: got 1 ids, allowed: 2 for 1000 tokens in blocks of 512"),
    ({"hash_ids": [0, 1, 2]}, "hash_ids: got 3 ids, allowed: 2"),
    ({"hash_ids": [0, -1]}, "hash_ids: got -1"),
    ({"hash_ids": [0, 2**63]}, f"hash_ids: got {2**63}"),
    ({"hash_ids": [0, 1.5]}, "hash_ids: got 1.5"),
    ({"hash_ids": [0, "a"]}, 'hash_ids: got "a"'),
    ({"hash_ids": None}, "hash_ids: got null"),
    ({"hash_ids": 7}, "hash_ids: got 7"),
]


@pytest.mark.parametrize(("change", "expected"), JSON_FAULTS)
def test_faulty_mooncake_row_is_named(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    path = written(tmp_path, jsonl(ROW, ROW, {**ROW, **change}, ROW))
    assert refusal(path, format="mooncake").startswith(f"{path}: row 3: {expected}")


@pytest.mark.parametrize(
    "line", ["[1, 2]", "7", "{", "not json", '{"timestamp": 0,}', "[" * 20_000]
)
def test_line_that_is_no_object_is_named(tmp_path: Path, line: str) -> None:
    path = written(tmp_path, jsonl(ROW) + line + "\n")
    message = refusal(path, format="mooncake")
    assert message.startswith(f"{path}: row 2: got ")
    assert message.endswith("allowed: one JSON object per line")


def test_time_too_large_for_a_float_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, jsonl(ROW).replace('"timestamp": 0', '"timestamp": 1e400'))
    assert "row 1: timestamp: got Infinity" in refusal(path, format="mooncake")


def test_trace_longer_than_the_clock_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, azure_with(GOOD, GOOD.replace("2023", "2024")))
    assert "TIMESTAMP: got times over 366 days, allowed: at most 53 days" in refusal(path)
    path = written(tmp_path, jsonl(ROW, {**ROW, "timestamp": 1e12}))
    assert "allowed: at most 53 days" in refusal(path, format="mooncake")


@pytest.mark.parametrize(
    ("format", "time", "expected"),
    [
        ("timed-trace", 1_700_000_000_000, "seconds since 1970 or since the start; are these mill"),
        ("mooncake", 1_700_000_000 * 10**9, "milliseconds since 1970 or since the start; are thes"),
        ("mooncake", 1e300, "milliseconds since 1970"),
    ],
)
def test_times_in_a_smaller_unit_are_refused(
    format: str, time: float, expected: str, tmp_path: Path
) -> None:
    row = ROW | ({"hash_ids": [0] * 63} if format == "timed-trace" else {})
    path = written(tmp_path, jsonl({**row, "timestamp": time}))
    assert expected in refusal(path, format=format)


@settings(max_examples=60)
@given(
    times_s=st.lists(st.integers(0, 50), min_size=1, max_size=12),
    head=st.integers(1, 12),
    name=st.sampled_from(["csv", "jsonl", "timed-trace"]),
)
def test_a_head_of_rows_in_disorder_is_the_first_requests_of_all(
    times_s: list[int], head: int, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [(at, 5 + place, 7) for place, at in enumerate(times_s)]
    keys = ("arrival_s", "prompt_tokens", "output_tokens")
    if name == "timed-trace":
        keys = ("timestamp", "input_length", "output_length")
    text = jsonl(*(dict(zip(keys, row, strict=True)) for row in rows))
    if name == "csv":
        text = "\n".join(",".join(map(str, row)) for row in (keys, *rows))
    table = load_trace(written(tmp_path_factory.mktemp("head"), text), head=head)
    in_order = sorted(times_s[:head]) == times_s[:head]  # it is not known what follows
    first = (rows if in_order else sorted(rows, key=lambda row: row[0]))[:head]
    assert table.prompt_tokens.tolist() == [row[1] for row in first]


def test_a_head_of_rows_in_order_reads_no_further(tmp_path: Path) -> None:
    text = jsonl(ROW, {**ROW, "timestamp": 1000}) + "not JSON"
    assert len(load_trace(written(tmp_path, text), format="mooncake", head=2)) == 2
    text = jsonl({**ROW, "timestamp": 1000}, ROW) + "not JSON"
    assert "row 3" in refusal(written(tmp_path, text), format="mooncake", head=2)


def test_a_trace_packed_with_zstandard_is_read_and_a_damaged_one_refused(tmp_path: Path) -> None:
    import pyarrow as pa

    content = jsonl(
        *({**ROW, "timestamp": at, "input_length": 600 + at % 97} for at in range(3000))
    )
    packed = pa.compress(content.encode(), "zstd", asbytes=True)
    plain = load_trace(written(tmp_path, content, "plain"), format="mooncake")
    table = load_trace(written(tmp_path, packed), format="mooncake")
    assert table.prompt_tokens.tolist() == plain.prompt_tokens.tolist()
    assert "a readable trace file" in refusal(written(tmp_path, packed[:-40]), format="mooncake")
    middle = len(packed) // 2
    damaged = packed[:middle] + b"xxxx" + packed[middle + 4 :]
    assert "got " in refusal(written(tmp_path, damaged), format="mooncake")


@pytest.mark.parametrize("column", ["timestamp", "input_length", "output_length", "hash_ids"])
def test_missing_json_column_names_those_that_exist(tmp_path: Path, column: str) -> None:
    lacking = {key: value for key, value in ROW.items() if key != column}
    path = written(tmp_path, jsonl(ROW, lacking))
    message = refusal(path, format="mooncake")
    assert message.startswith(f"{path}: row 2: got columns {', '.join(lacking)}")
    assert f"column {column}" in message


@pytest.mark.parametrize("column", ["TIMESTAMP", "ContextTokens", "GeneratedTokens"])
def test_missing_csv_column_names_those_that_exist(tmp_path: Path, column: str) -> None:
    path = written(tmp_path, AZURE.replace(column, "Other"))
    message = refusal(path)
    assert "row 1: got columns" in message
    assert "Other" in message
    assert f"column {column}" in message


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff", gzip.compress(b"", mtime=0)])
@pytest.mark.parametrize("name", [None, *FORMATS])
def test_empty_file_is_refused(tmp_path: Path, text: str | bytes, name: str | None) -> None:
    path = written(tmp_path, text)
    assert refusal(path, format=name).startswith(f"{path}: ")


def test_header_without_rows_is_refused(tmp_path: Path) -> None:
    assert "got no request" in refusal(written(tmp_path, AZURE.splitlines()[0]))


def test_truncated_gzip_is_refused_with_the_last_row_read(tmp_path: Path) -> None:
    rng = random.Random(1)  # random digits, so that half of the file is more than its start
    rows = [f"2023-11-16 18:15:46.{rng.randrange(10**7):07},5,5" for _ in range(5000)]
    packed = gzip.compress(azure_with(*rows).encode())
    path = written(tmp_path, packed[: len(packed) // 2])
    assert "got a gzip file that ends early, after row " in refusal(path)


def test_damaged_gzip_is_refused(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(AZURE.encode()))
    packed[12] ^= 0xFF
    assert "got damaged gzip data" in refusal(written(tmp_path, bytes(packed)))


def test_file_that_is_not_there_or_a_folder_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "missing.csv")
    assert "directory" in refusal(tmp_path)
    assert "a name that no file can have" in refusal(tmp_path / "a\0b")


def test_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, AZURE.encode() + "2023-11-16 18:15:46,5,5é\n".encode("latin-1"))
    assert f"{path}: row 4" in refusal(path)


def test_line_without_an_end_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = written(tmp_path, b"{" + b" " * (17 * 1024 * 1024))
    assert "row 1: got a longer line" in refusal(path)


@pytest.mark.parametrize("head", [0, -1])
def test_head_below_one_is_refused(tmp_path: Path, head: int) -> None:
    assert "head: got" in refusal(written(tmp_path, AZURE), head=head)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass")),
        st.binary(max_size=60).map(lambda tail: AZURE.encode() + tail),
        st.binary(max_size=60).map(lambda tail: jsonl(ROW).encode() + tail),
        st.binary(max_size=60).map(lambda tail: gzip.compress(AZURE.encode())[:40] + tail),
    ),
    name=st.sampled_from([None, *FORMATS]),
)
def test_any_bytes_load_or_are_refused_in_one_line(
    tmp_path: Path, content: bytes, name: str | None
) -> None:
    path = written(tmp_path, content)
    try:
        table = load_trace(path, name)
    except InputError as error:
        assert str(error).startswith(f"{path}: ")
        assert "\n" not in str(error)
    else:
        assert len(table) > 0
        assert table.prompt_tokens.min() >= 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
@pytest.mark.parametrize("format", [None, "azure", "timed-trace", "otel", "table"])
def test_a_pipe_is_refused_because_its_first_rows_would_be_lost(
    tmp_path: Path, format: str | None
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe: got a pipe, allowed: a file"):
        read_trace(tmp_path / "pipe", format)
