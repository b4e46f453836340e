"""One run in every format is one run; differences are claimed only beyond chance."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import simserve
from simserve.errors import InputError
from simserve.report.compare import compare_dict, compare_text, verdict
from simserve.results.compare import FEWEST_PAIRS, PARTS, Comparison, compare
from simserve.results.measured import STATISTICS, Measurement, of_result, of_series
from simserve.results.measured_files import read_measured
from tests.results import measured_runs as runs


@pytest.fixture
def read(tmp_path: Path) -> dict[str, Measurement]:
    return {
        name: read_measured(runs.write(tmp_path, name, make()))
        for name, make in runs.FORMATS.items()
    }


def test_one_run_has_the_same_statistics_in_every_format(read: dict[str, Measurement]) -> None:
    truth = {"ttft": runs.TTFT_S, "tpot": runs.TPOT_S, "itl": runs.GAPS_S, "e2el": runs.E2EL_S}
    for name, one in read.items():
        for metric, found in one.statistics_s.items():
            for statistic, value in found.items():
                values = truth[metric]
                q = None if statistic == "mean" else float(statistic[1:])
                true = float(np.mean(values)) if q is None else float(np.percentile(values, q))
                assert value == pytest.approx(true, rel=1e-9), (name, metric, statistic)
        assert one.completed == runs.COUNT and not one.simulated
        assert one.rates == pytest.approx({"request_throughput": 8, "output_throughput": 40})


def test_what_a_format_does_not_have_is_not_made_up(read: dict[str, Measurement]) -> None:
    assert "itl" not in read["guidellm"].statistics_s
    assert set(read["sglang"].statistics_s["ttft"]) == {"mean", "p50", "p99"}
    assert set(read["aiperf"].statistics_s["itl"]) == set(STATISTICS)
    for name in ("vllm-statistics", "sglang", "aiperf", "guidellm-statistics"):
        assert read[name].requests is None


def test_every_format_says_what_it_is(read: dict[str, Measurement]) -> None:
    kinds = {name: one.kind for name, one in read.items()}
    assert kinds["vllm"] == kinds["vllm-statistics"] == "vllm bench serve"
    assert kinds["sglang"] == "SGLang bench_serving"
    assert kinds["guidellm"] == "GuideLLM 0.8.1"
    assert kinds["aiperf"] == "AIPerf 0.13.0"
    said = " ".join(read["guidellm"].notes)
    assert "not its time_per_output_token_ms, which includes the first token" in said


def test_one_run_in_two_formats_pairs_and_is_the_same(read: dict[str, Measurement]) -> None:
    found = compare(read["vllm"], read["guidellm"])
    assert {one.requests for one in found.errors} == {runs.COUNT}
    means = [row for row in found.rows if row.statistic == "mean" and row.name != "itl"]
    assert {row.answer for row in means if row.name in ("ttft", "tpot", "e2el")} == {"same"}
    assert any(one.startswith("itl: not in") for one in found.not_compared)


@pytest.mark.parametrize("name", ["vllm-statistics", "sglang", "aiperf"])
def test_statistics_alone_are_shown_and_nothing_is_claimed(
    read: dict[str, Measurement], name: str
) -> None:
    other = replace(
        read[name],
        statistics_s={
            metric: {statistic: 1.5 * value for statistic, value in one.items()}
            for metric, one in read[name].statistics_s.items()
        },
    )
    found = compare(read["vllm"], other)
    assert {row.answer for row in found.rows} <= {"unknown", "same"}
    assert found.errors == ()
    assert "has statistics only" in found.not_compared[0]
    assert "nothing can be claimed" in verdict(found)


def test_failed_requests_have_no_latency(tmp_path: Path) -> None:
    one = read_measured(runs.write(tmp_path, "failed", runs.vllm(failed=3)))
    assert np.isnan(one.series_s["ttft"]).sum() == 3
    assert one.failed == 3
    assert one.statistics_s["ttft"]["mean"] == pytest.approx(float(runs.TTFT_S[3:].mean()))
    found = compare(read_measured(runs.write(tmp_path, "all", runs.vllm())), one)
    assert {error.requests for error in found.errors} == {runs.COUNT - 3}


def made(series: dict[str, Any], **changes: Any) -> Measurement:
    values = {name: np.asarray(one) for name, one in series.items()}
    fields: dict[str, Any] = {
        "where": "made",
        "kind": "made",
        "simulated": False,
        "statistics_s": of_series(values),
        "rates": {},
        "series_s": values,
        "prompt_tokens": np.full(len(values["ttft"]), 9),
        "start_s": np.arange(len(values["ttft"])) * 0.1,
        **changes,
    }
    return Measurement(**fields)


def row(found: Comparison, name: str = "ttft", statistic: str = "mean") -> Any:
    return next(one for one in found.rows if (one.name, one.statistic) == (name, statistic))


def noise(count: int, seed: int) -> Any:
    return np.random.default_rng(seed).gamma(4, 0.05, count)


def test_pairs_find_a_difference_that_overlapping_intervals_hide() -> None:
    base = noise(600, 1)
    a, b = made({"ttft": base}), made({"ttft": base * 1.02})
    paired = row(compare(a, b))
    assert paired.answer == "higher" and paired.paired is not None
    apart = row(compare(a, replace(b, start_s=np.arange(600, dtype=np.float64) / 5)))
    assert apart.answer == "chance" and apart.paired is None


def test_equal_samples_are_called_different_as_rarely_as_intervals_promise() -> None:
    answers = [
        row(
            compare(made({"ttft": noise(800, seed)}), made({"ttft": noise(800, seed + 999)}))
        ).answer
        for seed in range(60)
    ]
    # 5 % of intervals miss the truth; pairs of unrelated samples are unrelated differences.
    assert sum(one in ("higher", "lower") for one in answers) <= 9
    assert "unknown" not in answers


def test_errors_are_those_of_the_pairs() -> None:
    base = noise(300, 2)
    found = compare(made({"ttft": base}), made({"ttft": base * 1.1 + 0.001}))
    (error,) = found.errors
    assert error.mean_s == pytest.approx(float((base * 0.1 + 0.001).mean()))
    assert error.mean_abs_s == pytest.approx(error.mean_s)
    assert error.median_abs_frac == pytest.approx(float(np.median(0.1 + 0.001 / base)))


def test_an_unsteady_difference_counts_if_every_part_agrees() -> None:
    base, growing = noise(400, 3), np.linspace(0.01, 3.0, 400)
    found = row(compare(made({"ttft": base}), made({"ttft": base + growing})))
    assert (found.answer, found.by_parts) == ("higher", True)
    turning = np.where(np.arange(400) < 400 // PARTS, -0.5, growing)
    found = row(compare(made({"ttft": base}), made({"ttft": base + turning})))
    assert (found.answer, found.by_parts) == ("unknown", False)
    few = FEWEST_PAIRS - 1
    found = row(compare(made({"ttft": base[:few]}), made({"ttft": (base + growing)[:few]})))
    assert found.answer == "unknown"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prompt_tokens": np.arange(60)}, "59 of 60 prompts are of another length"),
        ({"start_s": np.arange(60) * 0.2}, "they were sent up to 5.9 s apart"),
        ({"prompt_tokens": None}, "prompt lengths are not in both"),
    ],
)
def test_requests_that_do_not_pair_say_why(changes: dict[str, Any], reason: str) -> None:
    base = noise(60, 4)
    found = compare(made({"ttft": base}), made({"ttft": base}, **changes))
    assert found.not_compared[0] == f"requests one by one: {reason}"
    assert found.errors == ()


def test_requests_pair_by_their_names() -> None:
    base = noise(80, 5)
    names = tuple(f"n{at}" for at in range(80))
    prompts = np.arange(80)
    a = made({"ttft": base}, ids=names, prompt_tokens=prompts, start_s=None)
    b = made({"ttft": base[::-1]}, ids=names[::-1], prompt_tokens=prompts[::-1], start_s=None)
    assert row(compare(a, b)).answer == "same"


def test_two_simulated_runs_differ_in_what_was_changed(small: Path) -> None:
    results = [
        simserve.run(simserve.load_scenario(small, settings=[f"max_num_seqs={seqs}"]))
        for seqs in (64, 2)
    ]
    a, b = (of_result(one, name) for one, name in zip(results, "ab", strict=True))
    found = compare(a, b)
    assert "deployment.engine.max_num_seqs: 64 → 2" in found.differing
    assert all(one.startswith("deployment.") for one in found.differing)
    assert row(found, "e2el").b > row(found, "e2el").a
    assert max(map(len, compare_text(found).splitlines())) <= 80
    data = compare_dict(found)
    assert json.loads(json.dumps(data)) == data


def test_a_run_is_the_same_as_its_own_files(small: Path, tmp_path: Path) -> None:
    result = simserve.run(small)
    result.save(tmp_path / "run")
    result.save_bench(tmp_path / "run.json", save_detailed=True)
    folder, bench = read_measured(tmp_path / "run"), read_measured(tmp_path / "run.json")
    assert folder.simulated and bench.simulated
    for other in (folder, bench):
        found = compare(of_result(result, "itself"), other)
        assert {one.mean_abs_s for one in found.errors} == {0.0}
        assert not found.differing and not found.not_compared


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("", "an empty file"),
        ("{", "line 1"),
        ("[]", "no JSON object"),
        ('{"a": 1}', "JSON of another kind"),
        ('{"a": 1}\n{"a": 2}\n', "2 results, one a line"),
        ('{"benchmarks": []}', "0 benchmarks in one report"),
        ('{"benchmarks": [{}, {}]}', "2 benchmarks in one report"),
        ('{"benchmarks": [{}]}', "no metrics"),
        ('{"request_latency": {"unit": "parsec", "avg": 1}}', "no parsec"),
        ('{"request_throughput": 1, "mean_ttft_ms": "x"}', "could not convert"),
        ('{"request_throughput": 1, "duration": 1, "ttfts": [1], "itls": [[1]], '
         '"output_lens": [1, 2]}', "different lengths"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, text: str, pattern: str) -> None:
    path = tmp_path / "made.json"
    path.write_text(text)
    with pytest.raises(InputError, match=pattern):
        read_measured(path)


def test_one_line_of_json_lines_is_a_result(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text("\n" + json.dumps(runs.sglang()) + "\n\n")
    assert read_measured(path).kind == "SGLang bench_serving"
