"""A written folder reads back as it was given, byte for byte the same each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from simserve.errors import InputError
from simserve.inputs.yaml_reader import parse_yaml
from simserve.latency.importers.table_folder import write_folder, yaml_text
from simserve.latency.tables.profile import read_profile

HEAD: dict[str, Any] = {
    "kind": "imported",
    "source": "made by hand: a test",
    "date": "2026-11-20",
    "device": {"name": "NVIDIA H200", "gpu": "h200-sxm"},
}
GEMM = {"dtype": "bf16", "n": 4096, "k": 4096, "aligned": 1}


def gemm(m: int, time_us: float) -> dict[str, Any]:
    return {**GEMM, "m": m, "us_p50": time_us}


def test_a_written_folder_reads_back_sorted_by_size(tmp_path: Path) -> None:
    folder = tmp_path / "profile"
    assert write_folder(folder, HEAD, {"gemm": [gemm(64, 20.0), gemm(8, 12.3456)]}) == {"gemm": 2}
    profile = read_profile(folder)
    rows = profile.tables["gemm"].rows
    assert [row.number("m") for row in rows] == [8, 64]
    assert [row.seconds for row in rows] == pytest.approx([12.346e-6, 20e-6])
    assert (profile.gpu, profile.provenance.kind) == ("h200-sxm", "imported")


def test_the_same_rows_in_another_order_give_the_same_bytes(tmp_path: Path) -> None:
    rows = [gemm(m, 10.0 + m) for m in (1, 2, 4, 128)]
    write_folder(tmp_path / "one", HEAD, {"gemm": rows})
    write_folder(tmp_path / "other", HEAD, {"gemm": rows[::-1]})
    for name in ("gemm.csv", "profile.yaml"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_a_point_measured_three_times_is_written_once_with_its_median(tmp_path: Path) -> None:
    rows = [gemm(8, 30.0), gemm(8, 10.0), gemm(8, 11.0)]
    write_folder(tmp_path / "profile", HEAD, {"gemm": rows})
    (row,) = read_profile(tmp_path / "profile").tables["gemm"].rows
    assert row.seconds == pytest.approx(11e-6)


def test_writing_again_leaves_no_table_of_the_time_before(tmp_path: Path) -> None:
    pointwise: dict[str, Any] = {"op": "norm", "tokens": 1, "width": 4096, "us_p50": 2.0}
    write_folder(tmp_path, HEAD, {"gemm": [gemm(8, 1.0)], "pointwise": [pointwise]})
    write_folder(tmp_path, HEAD, {"gemm": [gemm(8, 1.0)]})
    assert set(read_profile(tmp_path).tables) == {"gemm"}


def test_a_folder_of_something_else_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("chapter 1")
    with pytest.raises(InputError, match="allowed: a new folder, or a profile's"):
        write_folder(tmp_path, HEAD, {"gemm": [gemm(8, 1.0)]})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_heads_are_read_by_the_strict_reader_as_they_were_given() -> None:
    head: dict[str, Any] = {
        "text": 'with: colon, "quotes" and #',
        "empty": [],
        "none": None,
        "deep": {"list": [{"name": "a", "version": "0.24.0"}, {"name": "b"}], "words": ["x", "y"]},
    }
    assert parse_yaml(yaml_text(head), "test") == head
