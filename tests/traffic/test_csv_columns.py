"""CSV read block by block, at once or by rows: always the same columns, always the same faults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.errors import InputError
from simserve.traffic.trace_formats import csv_columns, text_lines
from simserve.traffic.trace_formats.column_kinds import CALENDAR, SECONDS, TEXT, TOKENS, Kind
from simserve.traffic.trace_formats.csv_columns import _quick, _row_by_row, read_csv_columns


def written(folder: Path, text: str) -> Path:
    path = folder / "t.csv"
    path.write_bytes(text.encode())
    return path


cells = st.one_of(
    st.sampled_from(["1", "07", "12", "-3", "+5", "0x1F", "1e3", "1.5", "", " 9", "nan", "inf"]),
    st.sampled_from(["2024-05-10 00:00:01.25", "2024-02-30 00:00:00", "2024-05-10", "é", "٣"]),
    st.sampled_from(['"7"', '"a,b"', '""', '"', '","', '"a""b"', '" 5"', '5"', '"x\ny"']),
    st.sampled_from(['"""7"""', '""""', '""7', '5""5', '"7" ', ' "7"', '"7""', '"x\ry"']),
    st.integers(0, 2**64).map(str),
    st.text(max_size=3),
)


@settings(max_examples=300)
@given(
    rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=4),
    kind=st.sampled_from([TOKENS, SECONDS, CALENDAR, TEXT]),
    end=st.sampled_from(["\n", "\r\n", "\n\n"]),
)
def test_quick_and_slow_reading_of_csv_agree(
    rows: list[tuple[str, str]], kind: Kind, end: str
) -> None:
    text = end.join(",".join(row) for row in rows) + end
    block, names = text.encode(errors="surrogatepass"), ["a", "b"]
    quick = _quick(block, names, {"a": kind})
    if quick is not None:
        slow = _row_by_row(Path("f.csv"), 2, block, names, {"a": kind})
        np.testing.assert_array_equal(quick["a"], slow["a"])


@pytest.mark.parametrize("words", [b"y z", b'"y z"', b'"y, ""z"""', b'""'])
def test_plain_csv_is_read_the_quick_way(words: bytes) -> None:
    block = b"2024-05-10 00:00:01.25+00:00,12,0.5,x\n2024-05-10 00:00:02+00:00,7,3,%s\n" % words
    kinds: dict[str, Kind] = {"T": CALENDAR, "n": TOKENS, "s": SECONDS, "w": TEXT}
    quick = _quick(block, list(kinds), kinds)
    assert quick is not None
    slow = _row_by_row(Path("f.csv"), 2, block, list(kinds), kinds)
    for name in kinds:
        np.testing.assert_array_equal(quick[name], slow[name])


@pytest.mark.parametrize("size", [8, 64, 1 << 20])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n \n"])
def test_rows_do_not_depend_on_the_blocks_that_a_csv_is_read_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, end: str
) -> None:
    monkeypatch.setattr(text_lines, "_FIRST_BLOCK_BYTES", size)
    monkeypatch.setattr(text_lines, "_LARGEST_BLOCK_BYTES", 2 * size)
    monkeypatch.setattr(csv_columns, "_WORTH_ARROW_BYTES", 16)
    cells = [(str(i), str(i * 7 % 50 + 1)) for i in range(60)]
    text = end.join(["\ufeff", "a,b", *(",".join(row) for row in cells)])
    kinds: dict[str, Kind] = {"b": TOKENS, "a": SECONDS}
    path = written(tmp_path, text)
    for head in (None, 1, 7, 59, 60, 1000):
        found = read_csv_columns(path, kinds, head)
        assert found["a"].tolist() == [float(a) for a, _ in cells[:head]]
        assert found["b"].tolist() == [int(b) for _, b in cells[:head]]
    wrong = written(tmp_path, text + end + "60,0" + end + "61,-1")
    row = wrong.read_bytes()[: wrong.read_bytes().index(b"60,0")].count(b"\n") + 1
    with pytest.raises(InputError, match=rf"row {row}: b: got 0"):
        read_csv_columns(wrong, kinds)
    assert len(read_csv_columns(wrong, kinds, 60)["b"]) == 60  # what is not wanted is not checked


def test_texts_and_calendar_times_of_many_blocks_are_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_lines, "_FIRST_BLOCK_BYTES", 256)
    monkeypatch.setattr(text_lines, "_LARGEST_BLOCK_BYTES", 256)
    rows = [f"2024-05-10 00:{i // 60:02}:{i % 60:02}.5,name {i}" for i in range(2000)]
    path = written(tmp_path, "\n".join(["t,w", *rows]) + "\n")
    found = read_csv_columns(path, {"w": TEXT, "t": CALENDAR})
    assert found["w"].tolist() == [f"name {i}" for i in range(2000)]
    assert (np.diff(found["t"][:, 0]) == 1).all() and set(found["t"][:, 1]) == {5 * 10**11}
