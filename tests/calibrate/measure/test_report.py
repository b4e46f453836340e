"""The report finds what is odd, and nothing where nothing is."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from calibrate.leave_out import TABLES, left_out
from calibrate.report import report_text
from calibrate.results import read_results
from calibrate.suspects import next_points, suspects
from tests.calibrate.measure.made_up import h200_plan, write_journal

plan_of_8b = functools.cache(h200_plan)
GPU = "h200-sxm"


def test_a_straight_curve_loses_nothing_when_a_point_is_left_out(tmp_path: Path) -> None:
    def straight(point: Any, entry: dict[str, Any]) -> dict[str, Any]:
        if point.table != "gemm":
            return entry
        return {**entry, "us_p50": 1e5 + 50.0 * float(point.keys["m"])}

    results = read_results(write_journal(tmp_path, plan_of_8b(), straight))
    left = left_out(results, "gemm", GPU)
    assert len(left) > 100
    assert max(abs(one.error) for one in left) < 1e-9


@pytest.mark.parametrize("table", ["attn_decode", "attn_prefill", "attn_mixed"])
def test_attention_near_its_roofline_is_predicted_from_its_neighbours(
    tmp_path: Path, table: str
) -> None:
    results = read_results(write_journal(tmp_path, plan_of_8b()))
    errors = sorted(abs(one.error) for one in left_out(results, table, GPU))
    assert errors
    # Bytes and pairs are (nearly) linear in every size; the square root of chunks is not.
    assert errors[len(errors) // 2] < (0.05 if table == "attn_decode" else 0.3)


def test_only_inner_points_are_left_out(tmp_path: Path) -> None:
    results = read_results(write_journal(tmp_path, plan_of_8b()))
    rows = {one.entry["keys"]["m"] for one in left_out(results, "gemm", GPU)}
    assert not rows & {1, 16_384}


def test_smooth_times_above_the_roofline_are_not_suspicious(tmp_path: Path) -> None:
    results = read_results(write_journal(tmp_path, plan_of_8b()))
    assert list(suspects(results, GPU)) == []


def test_times_below_the_datasheet_falling_or_flagged_are_suspicious(tmp_path: Path) -> None:
    wanted = {"m": 64, "n": 4096, "k": 14336}

    def odd(point: Any, entry: dict[str, Any]) -> dict[str, Any]:
        if point.table == "gemm" and wanted.items() <= point.keys.items():
            quick = {key: 1.0 for key in entry if key.startswith("us_")}
            return {**entry, **quick, "flag": "noisy"}
        return entry

    results = read_results(write_journal(tmp_path, plan_of_8b(), odd))
    found = list(suspects(results, GPU))
    assert {one.name.split(":")[0] for one in found} == {"gemm"}
    why = " | ".join(one.why for one in found)
    assert "datasheet" in why
    assert "less than at 48" in why
    assert "noisy" in why
    left = [one for table in TABLES for one in left_out(results, table, GPU)]
    lines = next_points(left, results, 10)
    assert len(lines) == 10
    assert "n=4096 k=14336" in lines[0]


def test_the_report_fits_a_terminal_and_has_its_parts(tmp_path: Path) -> None:
    text = report_text(write_journal(tmp_path, plan_of_8b()))
    assert max(map(len, text.splitlines())) <= 80
    for part in ("Repeatability", "Drift", "left out", "Worth measuring next", "gemm-bf16"):
        assert part in text
