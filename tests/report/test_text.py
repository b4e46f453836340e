from __future__ import annotations

import json

import pytest

from simserve.inputs.deployment import read_deployment
from simserve.report.deployed import deployed
from simserve.report.summary import run_summary
from simserve.report.text import NO_OPERATING_POINT, run_report
from simserve.results.result import Result
from simserve.results.samples import three_digits
from tests.results.reference_run import Options, request_table, run_reference
from tests.results.scenarios import on_four_gpus, result, scenario


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


def test_replications_have_the_last_word_on_the_objectives() -> None:
    run = _steady("ttft:500")
    assert "SLO " in run_report(run)
    report = run_report(run, intervals=["SLO  ttft:500: missed"])
    assert report.count("SLO") == 1
    assert ", met" not in report
    assert "Whole run of seed" in report


def test_an_objective_is_met_so_far_in_a_run_that_still_fills_up() -> None:
    run = on_four_gpus(20, 3000, 0)
    assert run.verdict.growing
    report = run_report(run)
    assert "not shown to be met" in report
    assert "met so far" in report


def test_the_formats_of_weights_and_kv_values_are_named() -> None:
    entry = {"model": "llama-3.1-8b", "gpu": "h100-sxm"}
    stored_in = [
        ({}, "llama-3.1-8b, 16-bit weights, on 1 × h100-sxm (tp 1)"),
        ({"quantization": "fp8"}, "llama-3.1-8b, fp8 weights, on 1 × h100-sxm (tp 1)"),
        ({"kv_cache_dtype": "fp8"}, "llama-3.1-8b, 16-bit weights, 8-bit KV cache, on"),
        ({"model": "gpt-oss-20b"}, "gpt-oss-20b, mxfp4 expert weights, on"),
    ]
    for more, words in stored_in:
        assert deployed(read_deployment(entry | more)).startswith(words)


def test_what_a_step_leaves_is_not_called_waiting() -> None:
    run = _overloaded()
    assert run.engine_use.waiting_max != 0
    flat = " ".join(run_report(run).split())
    assert f"at most {run.engine_use.waiting_max:,} left unscheduled by a step" in flat
    assert flat.count("waiting") == run.verdict.reason.count("waiting")


def test_long_runs_are_told_without_an_exponent() -> None:
    run = result(None, Options(slots=8), requests=3000, gap_ms=1000, replicas=1)
    assert run.verdict.name == "stable"
    assert "e+" not in run.verdict.reason
    assert three_digits(1234.5) == "1,234"
    assert [three_digits(one) for one in (0.0123, 17.94, 999.6)] == ["0.0123", "17.9", "1,000"]


def test_experts_by_the_roofline_are_remarked_in_text_and_data() -> None:
    deployment = {"model": "qwen3-30b-a3b", "gpu": "h100-sxm"}
    run = result(deployment=read_deployment(deployment), requests=20, replicas=1)
    flat = " ".join(run_report(run).split())
    assert "Note The roofline prices mixture-of-experts layers from a few constants" in flat
    assert "hardly validated" in run_summary(run)["scenario"]["remark"]
    assert "hardly validated" in run.bench_dict()["simserve"]["remark"]
    assert run_summary(_steady())["scenario"]["remark"] is None


def test_a_gpu_without_bf16_is_remarked() -> None:
    deployment = {"model": "llama-3.1-8b", "gpu": "v100-sxm2-32gb", "max_model_len": 4096}
    run = result(deployment=read_deployment(deployment), requests=20, replicas=1)
    remark = run_summary(run)["scenario"]["remark"]
    assert remark.startswith("v100-sxm2-32gb has no bf16: ")
