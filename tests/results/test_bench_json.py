"""The result file is read by tools that were written for ``vllm bench serve``."""

from __future__ import annotations

import dataclasses
import json
from typing import get_args

import numpy as np
import pytest

from simserve.inputs.workload import read_workload
from simserve.results.result import Result
from simserve.results.verdict import VerdictName
from simserve.results.whole_files import json_text
from tests.results.reference_run import Options, request_table, run_reference
from tests.results.scenarios import result, scenario

LABELS = [
    "date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts",
    "request_rate", "burstiness", "max_concurrency",
]  # fmt: skip
COUNTS = [
    "duration", "completed", "failed", "total_input_tokens", "total_output_tokens",
    "request_throughput", "request_goodput", "output_throughput", "total_token_throughput",
]  # fmt: skip
DETAILS = [
    "input_lens", "output_lens", "ttfts", "itls", "start_times", "generated_texts", "errors",
]  # fmt: skip
ALWAYS = ["latencies", "queue_times"]
MAXIMA = ["max_output_tokens_per_s", "max_concurrent_requests", "rtfx"]


def _aggregates(*percentiles: str) -> list[str]:
    return [
        f"{statistic}_{metric}_ms"
        for metric in ("ttft", "tpot", "itl", "e2el")
        for statistic in ("mean", "median", "std", *percentiles)
    ]


def test_keys_stand_in_vllms_order() -> None:
    expected = [*LABELS, *COUNTS, *ALWAYS, *MAXIMA, *_aggregates("p99"), "simserve"]
    assert list(result().bench_dict()) == expected


def test_detailed_arrays_stand_before_those_that_are_always_there() -> None:
    expected = [*LABELS, *COUNTS, *DETAILS, *ALWAYS, *MAXIMA, *_aggregates("p99"), "simserve"]
    assert list(result().bench_dict(save_detailed=True)) == expected


def test_more_percentiles_can_be_asked_for() -> None:
    bench = result().bench_dict(metric_percentiles=(50, 90, 95, 99))
    assert [key for key in bench if key.endswith("_ms")] == _aggregates("p50", "p90", "p95", "p99")


def test_every_other_key_that_ends_in_ms_is_a_number() -> None:
    bench = result("ttft:500 tpot_p95:50").bench_dict(save_detailed=True)
    for key, value in bench.items():
        if key.endswith("ms"):
            assert isinstance(value, float), key


def test_max_concurrency_is_an_integer_and_says_what_it_is() -> None:
    bench = result().bench_dict()
    assert type(bench["max_concurrency"]) is int
    assert 1 <= bench["max_concurrency"] <= bench["max_concurrent_requests"]
    assert "observed" in bench["simserve"]["max_concurrency_is"]


def test_detailed_arrays_give_back_the_aggregates() -> None:
    bench = result().bench_dict(save_detailed=True)
    kept = [i for i, error in enumerate(bench["errors"]) if not error]
    ttfts = [bench["ttfts"][i] for i in kept]
    itls = [gap for i in kept for gap in bench["itls"][i]]
    tpots = [
        (bench["latencies"][i] - bench["ttfts"][i]) / (bench["output_lens"][i] - 1)
        for i in kept
        if bench["output_lens"][i] > 1
    ]
    assert len(kept) == bench["completed"] < bench["num_prompts"]
    assert bench["p99_ttft_ms"] == np.percentile(ttfts, 99) * 1000
    assert bench["p99_itl_ms"] == np.percentile(itls, 99) * 1000
    assert bench["p99_tpot_ms"] == pytest.approx(np.percentile(tpots, 99) * 1000, rel=1e-12)
    assert bench["mean_itl_ms"] == pytest.approx(np.mean(itls) * 1000, rel=1e-12)
    assert sum(bench["output_lens"]) == bench["total_output_tokens"]
    for i in kept:
        assert bench["latencies"][i] == pytest.approx(bench["ttfts"][i] + sum(bench["itls"][i]))
        assert len(bench["itls"][i]) == bench["output_lens"][i] - 1


def test_a_rejected_request_is_an_error_with_zeros() -> None:
    bench = result().bench_dict(save_detailed=True)
    at = bench["errors"].index("rejected")
    row = {key: bench[key][at] for key in ("output_lens", "ttfts", "itls", "latencies")}
    assert row == {"output_lens": 0, "ttfts": 0.0, "itls": [], "latencies": 0.0}


def test_a_metric_without_a_sample_leaves_its_keys_out() -> None:
    record = run_reference(request_table([0, 5], [8, 8], [1, 1])).record
    bench = Result(scenario(), record).bench_dict()
    assert "mean_ttft_ms" in bench
    assert not [key for key in bench if "tpot" in key or "itl" in key]


def test_a_run_in_which_nothing_finished_is_still_valid_json() -> None:
    record = run_reference(request_table([0, 5], [8, 8], [1, 1]), Options(longest=1)).record
    text = json_text(Result(scenario("ttft:5"), record).bench_dict(save_detailed=True))
    assert json.loads(text)["failed"] == 2
    assert json.loads(text)["request_goodput"] == 0


def test_goodput_is_null_without_objectives_per_request() -> None:
    assert result().bench_dict()["request_goodput"] is None
    assert result("ttft_p99:1").bench_dict()["request_goodput"] is None
    assert result("ttft:1e9").bench_dict()["request_goodput"] > 0


def test_the_date_is_the_simulated_start() -> None:
    assert result().bench_dict()["date"] == "20260101-000000"
    started = result(start_date="2026-11-20").bench_dict()
    assert started["date"] == "20261120-000000"


@pytest.mark.parametrize(
    ("arrivals", "rate", "burstiness"),
    [
        ({"process": "poisson", "rate_per_s": 4}, 4.0, 1.0),
        ({"process": "gamma", "rate_per_s": 4, "burstiness": 0.5}, 4.0, 0.5),
        ({"process": "constant", "rate_per_s": 4}, 4.0, "inf"),
        ({"process": "all-at-once"}, "inf", 1.0),
    ],
)
def test_rate_and_burstiness_are_those_asked_for(
    arrivals: dict[str, object], rate: object, burstiness: object
) -> None:
    entry = {"arrivals": arrivals, "prompt_tokens": 8, "output_tokens": 8, "num_requests": 40}
    bench = result(workload=read_workload(entry)).bench_dict()
    assert (bench["request_rate"], bench["burstiness"]) == (rate, burstiness)


def test_a_trace_has_its_mean_offered_rate() -> None:
    record = run_reference(request_table([0, 500, 1000], [8] * 3, [2] * 3)).record
    facts = dataclasses.replace(result().facts, request_rate=None, burstiness=None)
    bench = Result(None, record, facts=facts).bench_dict()
    assert (bench["request_rate"], bench["burstiness"]) == (2.0, 1.0)


def test_extras_say_that_nothing_was_measured() -> None:
    extras = result().bench_dict()["simserve"]
    assert extras["simulated"] is True
    assert extras["ttft_starts_at"] == "arrival"
    assert extras["verdict"] in get_args(VerdictName)
    assert extras["preemptions"] > 0
    assert extras["resolved"]["deployment"]["gpu"]["name"] == "h100-sxm"
