"""A journal cut anywhere is a journal: its whole lines count."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrate.measure.journal import FILE, POINT, Journal, read_journal
from simserve.errors import InputError

LINES = [json.dumps({"kind": POINT, "name": f"p{i}", "t": i}).encode() + b"\n" for i in range(6)]
WHOLE = b"".join(LINES)


@given(cut=st.integers(0, len(WHOLE)))
def test_a_journal_cut_at_any_byte_has_its_whole_lines_and_goes_on(cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        path.write_bytes(WHOLE[:cut])
        journal = Journal(Path(folder), "s")
        whole = WHOLE[:cut].count(b"\n")
        assert [entry["name"] for entry in journal.entries] == [f"p{i}" for i in range(whole)]
        journal.add(POINT, {"name": "next"})
        journal.close()
        names = [entry["name"] for entry in read_journal(path)]
        assert names == [*(f"p{i}" for i in range(whole)), "next"]


def test_a_damaged_line_in_the_middle_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(LINES[0] + b"{]\n" + LINES[1])
    with pytest.raises(InputError, match="line 2"):
        Journal(tmp_path, "s")


def test_a_folder_without_a_journal_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        list(read_journal(tmp_path / FILE))
