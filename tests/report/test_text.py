from __future__ import annotations

import json

import pytest

from simserve.report.summary import run_summary
from simserve.report.text import NO_OPERATING_POINT, run_report
from simserve.results.result import Result
from tests.results.reference_run import Options, request_table, run_reference
from tests.results.scenarios import result, scenario


def _overloaded(slo: str | None = None) -> Result:
    return result(slo, Options(slots=1), requests=300, gap_ms=10, replicas=1)


def _steady(slo: str | None = None) -> Result:
    return result(slo, Options(slots=8), requests=100, gap_ms=400, replicas=1)


@pytest.mark.parametrize("run", [_steady("ttft:500 itl_p99:50"), _overloaded("ttft:500"), result()])
def test_no_line_is_longer_than_80_columns(run: Result) -> None:
    assert max(map(len, run_report(run).splitlines())) <= 80


def test_a_long_scenario_name_with_brackets_is_printed_as_it_is() -> None:
    report = run_report(result(name="[bold]" + "x" * 100))
    assert "[bold]xx" in report
    assert max(map(len, report.splitlines())) <= 80


def test_the_numbers_are_those_of_the_metrics() -> None:
    run = _steady()
    row = next(line for line in run_report(run).splitlines() if line.strip().startswith("E2E"))
    expected = [run.metrics.e2el.mean, *(run.metrics.e2el.percentile(q) for q in (50, 90, 95, 99))]
    shown = [float(cell.replace(",", "")) for cell in row.split()[1:]]
    # Shown with one decimal below 100 ms and none above.
    for cell, value in zip(shown, expected, strict=True):
        assert value is not None
        assert cell == pytest.approx(value * 1000, abs=0.5)


def test_percentiles_of_an_overloaded_run_are_marked() -> None:
    run = _overloaded("ttft_p95:1e9")
    report = run_report(run)
    assert run.verdict.name == "overloaded"
    assert report.count(NO_OPERATING_POINT) == 2
    row = next(line for line in report.splitlines() if line.strip().startswith("TTFT"))
    assert all(cell.startswith("(") for cell in row.split()[2:])


def test_a_steady_run_has_no_such_mark() -> None:
    run = _steady("ttft:500")
    assert run.verdict.name == "stable"
    assert NO_OPERATING_POINT not in run_report(run)
    assert "(" not in next(line for line in run_report(run).splitlines() if "TTFT" in line)


def test_the_verdict_is_given_with_its_reason() -> None:
    run = _overloaded()
    flat = " ".join(run_report(run).split())
    assert f"overloaded: {run.verdict.reason}" in flat


def test_objectives_are_listed_with_what_came_out() -> None:
    flat = " ".join(run_report(_steady("ttft:1 ttft_p95:1e6")).split())
    assert "SLO not met: ttft" in flat
    assert "ttft ≤ 1 ms: 0.0% of requests, missed" in flat
    assert "ttft_p95 ≤ 1e+06 ms:" in flat
    assert "all of them: 0.0% of requests, goodput 0.00 requests/s" in flat


def test_prefix_hits_stand_beside_the_bound() -> None:
    record = run_reference(request_table([0, 5], [40, 40], [2, 2]), Options(cached_tokens=16))
    run = Result(scenario(), record.record, prefix_bound_frac=0.6)
    flat = " ".join(run_report(run).split())
    assert "prefix hits 40.0% of prompt tokens (unlimited cache: 60.0%)" in flat


def test_the_report_says_that_nothing_was_measured() -> None:
    run = _steady()
    flat = " ".join(run_report(run).split())
    assert "Latencies are a roofline estimate, not a measurement" in flat
    assert f"rest on {run.facts.assumed_numbers} assumed numbers" in flat


def test_a_run_without_latencies_is_reported() -> None:
    record = run_reference(request_table([0], [9], [1]), Options(longest=1)).record
    assert "0 of 1 requests finished, 1 rejected" in run_report(Result(scenario(), record))


def test_the_summary_is_plain_json() -> None:
    summary = run_summary(result("ttft:500 itl_p99:50"))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
