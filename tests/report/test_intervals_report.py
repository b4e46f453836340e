"""Intervals as text: 80 columns, a dash with its reason, and which band is which."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.planning.calibration import CalibrationBand
from simserve.report.intervals import (
    replication_lines,
    replications_dict,
    steady_state_dict,
    steady_state_lines,
    with_half_width,
)
from simserve.report.text import run_report
from simserve.results.attainment import attainments
from simserve.results.result import Result
from simserve.results.steady_state import steady_state
from tests.results.reference_run import Options, random_requests, run_reference
from tests.results.scenarios import result, scenario


def steady(seed: int) -> Result:
    record = run_reference(random_requests(400, seed, 400.0), Options(slots=8), 1).record
    return Result(scenario("ttft:500 itl_p99:50", seed=seed), record)


STEADY = [steady(seed) for seed in range(3)]
NO_BAND = CalibrationBand(half_widths_s={}, reason="roofline does not say")


def test_no_line_is_longer_than_80_columns() -> None:
    state = steady_state([one.sample for one in STEADY])
    widest = {metric: dict.fromkeys(found, 12.345678) for metric, found in state.latencies.items()}
    band = CalibrationBand(half_widths_s=widest, source="the repeats behind each row")
    kept = attainments(state.runs)
    for lines in (
        replication_lines(state, kept, band, None),
        steady_state_lines(STEADY[0].steady_state),
        steady_state_lines(
            result(None, Options(slots=1), requests=300, gap_ms=10, replicas=1).steady_state
        ),
    ):
        assert lines and max(map(len, lines)) <= 80


def test_every_dash_has_its_reason_beneath() -> None:
    lines = steady_state_lines(STEADY[0].steady_state)
    rows = [line for line in lines if line.startswith(("TTFT", "TPOT", "ITL", "E2E"))]
    reasons = [line for line in lines if line.lstrip().startswith("–")]
    dashes = sum(row.split().count("–") for row in rows)
    missing = sum(
        one.reason is not None
        for found in STEADY[0].steady_state.latencies.values()
        for one in found.values()
    )
    assert dashes == missing
    assert bool(reasons) == bool(dashes)


def test_an_overloaded_run_gets_a_plain_sentence() -> None:
    run = result(None, Options(slots=1), requests=300, gap_ms=10, replicas=1)
    assert steady_state_lines(run.steady_state) == [
        "No steady-state intervals: the run is overloaded."
    ]
    assert "No steady-state intervals" in run_report(run)


def test_the_report_says_what_is_of_the_whole_run_and_what_is_not() -> None:
    report = run_report(STEADY[0])
    assert "Whole run, in ms from arrival (as vllm bench serve)" in report
    assert "Steady state in ms, ± 95 % interval · first" in report
    assert "left out as" in report and "as drain" in " ".join(report.split())


def test_both_bands_stand_beneath_each_other() -> None:
    state = steady_state([one.sample for one in STEADY])
    found = state.latencies["e2el"]["mean"]
    assert found.half_width is not None
    band = CalibrationBand(half_widths_s={"e2el": {"mean": 0.035}}, source="a test")
    lines = steady_state_lines(state, band)
    place = next(at for at, line in enumerate(lines) if line.startswith("E2E"))
    assert with_half_width(found.value * 1000, found.half_width * 1000) in lines[place]
    assert lines[place + 1].split() == ["±35", "cal"]


def test_without_a_band_it_says_why() -> None:
    state = steady_state([one.sample for one in STEADY])
    text = " ".join(replication_lines(state, (), NO_BAND, None))
    assert "No calibration band: roofline does not say." in text


def test_the_json_is_plain_and_complete() -> None:
    state = steady_state([one.sample for one in STEADY])
    whole = replications_dict(state, attainments(state.runs), NO_BAND, None)
    assert json.loads(json.dumps(whole, allow_nan=False)) == whole
    assert [one["seed"] for one in whole["replications"]] == [0, 1, 2]
    assert whole["latency_ms"]["e2el"]["mean"]["low"] < whole["latency_ms"]["e2el"]["mean"]["high"]
    assert len(whole["slo"]) == 2
    assert steady_state_dict(state)["reason"] is None


@given(value=st.floats(0.001, 1e6), frac=st.floats(0.001, 1))
def test_a_half_width_is_shown_to_two_digits_or_three_decimals(value: float, frac: float) -> None:
    half = value * frac
    shown_value, shown_half = with_half_width(value, half).replace(",", "").split(" ±")
    precision = max(half / 10, 0.001)
    assert float(shown_half) == pytest.approx(half, abs=precision)
    assert float(shown_value) == pytest.approx(value, abs=precision)


def test_objectives_without_a_steady_state_are_not_shown_to_be_met() -> None:
    runs = [result("ttft:1e9", Options(slots=1), requests=300, gap_ms=10, replicas=1).sample]
    state = steady_state(runs * 2)
    assert state.reason is not None
    lines = replication_lines(state, attainments(runs), NO_BAND, None)
    assert "not shown to be met" in lines[-1]
    assert "not shown" not in replication_lines(state, (), NO_BAND, None)[-1]
