"""The benchmarks measure what they say they measure, on runs too short to be timed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import __main__ as table
from benchmarks.cases import CASES, Bar, Case

SMALL = 300


def _small(case: Case) -> Case:
    workload = dict(case.scenario["workload"])
    if "trace" in workload:
        workload["trace"] = workload["trace"] | {"head": SMALL}
    else:
        workload["num_requests"] = SMALL
    return replace(case, scenario=case.scenario | {"workload": workload})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case_runs_to_its_end_and_has_every_figure_of_the_table(case: Case) -> None:
    from benchmarks.measure import measure

    if case.needs is not None and not case.needs.exists():
        pytest.skip(f"{case.needs.name} is not at hand")
    row = measure(_small(case))
    assert row["requests"] == SMALL
    assert row["finished_frac"] == 1.0
    assert row["log_rows"] <= row["steps"]
    assert {key for _, key, _ in table.COLUMNS} <= row.keys()
    assert {bar.figure for bar in case.bars} <= row.keys() | {"per_request_ratio"}


def test_bar_is_kept_at_its_limit_and_missed_beyond_it() -> None:
    ceiling, floor = Bar(figure="x", at_most=4.0), Bar(figure="x", at_least=0.05)
    assert ceiling.kept(4.0) and not ceiling.kept(4.01)
    assert floor.kept(0.05) and not floor.kept(0.04)


def test_missed_bar_is_reported_and_a_missing_partner_is_not_a_miss() -> None:
    million = table.BY_NAME["million"]
    unit, slow = {"requests_per_cpu_s": 100.0}, {"requests_per_cpu_s": 50.0}
    words, kept = table.verdict(million, slow)
    assert kept and "needs heavy" in words
    figures = {"heavy": dict(unit), "million": dict(slow)}
    table.compare(figures)
    assert figures["million"]["per_request_ratio"] == 2.0
    words, kept = table.verdict(million, figures["million"])
    assert not kept and "miss" in words


def test_unknown_case_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        table.main(["lihgt"])
    assert "light, heavy" in capsys.readouterr().err
