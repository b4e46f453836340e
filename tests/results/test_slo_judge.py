from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simserve.inputs.slo import parse_slo
from simserve.results.metrics import measure, request_latencies
from simserve.results.promises import asked_of, promises
from simserve.results.result import Result
from simserve.results.slo_judge import SloReport, judge_slo
from simserve.results.verdict import Verdict
from simserve.results.warmup import whole_run
from tests.results.reference_run import Options, request_table, run_reference
from tests.results.scenarios import result, scenario

FIXED = Options(slots=1, per_seq_ps=0, per_context_ps=0)  # every step lasts 10 ms


def _judged(slo: str, output: list[int], options: Options = FIXED) -> SloReport:
    """Judge requests of 8 prompt tokens, a second apart: TTFT 10 ms, TPOT 10 ms."""
    requests = request_table([1000 * i for i in range(len(output))], [8] * len(output), output)
    report = Result(scenario(slo), run_reference(requests, options).record).slo_report
    assert report is not None
    return report


def test_a_limit_is_met_by_a_latency_equal_to_it() -> None:
    assert _judged("ttft:10", [3, 3]).met
    assert not _judged("ttft:9.999", [3, 3]).met


def test_a_request_of_one_token_counts_as_a_tpot_of_zero() -> None:
    report = _judged("tpot:5", [1, 3, 1, 3])
    assert report.objectives[0].attained_frac == 0.5
    assert report.good_requests == 2


def test_a_good_request_meets_all_objectives() -> None:
    report = _judged("tpot:5 e2el:30", [1, 3, 9, 9])
    assert [one.attained_frac for one in report.objectives] == [0.25, 0.5]
    assert report.good_frac == 0.25
    # 1 good request from the first arrival to the last completion: 3 s + 9 steps of 10 ms
    assert report.goodput_per_s == pytest.approx(1 / 3.09, rel=1e-12)


def test_a_bare_objective_is_asked_of_every_request() -> None:
    report = _judged("e2el:30", [3, 3, 3, 4])
    assert not report.met
    assert report.reason == "not met: e2el"


def test_a_percentile_objective_compares_that_percentile() -> None:
    served = Options(slots=8, preempt_chance=0.03, skip_chance=0.05)
    run = result("ttft_p50:1 ttft_p99:100000 itl_p99:100000 e2el_p99.9:100000", served)
    report = run.slo_report
    assert report is not None
    ttft_s = request_latencies(run.record).ttft_s[request_latencies(run.record).finished]
    assert report.objectives[0].value_ms == np.percentile(ttft_s, 50) * 1000
    assert [one.met for one in report.objectives] == [False, True, True, True]
    assert [one.name for one in report.objectives][0::3] == ["ttft_p50", "e2el_p99.9"]
    assert report.reason == "not met: ttft_p50"


def test_percentiles_alone_give_no_goodput() -> None:
    report = _judged("ttft_p99:500", [3])
    assert report.goodput_per_s is None
    assert report.good_requests is None
    assert report.met


def test_rejected_requests_are_not_good() -> None:
    run = result("e2el:100000000")
    assert run.slo_report is not None
    assert run.metrics.rejected > 0
    assert run.slo_report.good_requests == run.metrics.completed
    assert not run.slo_report.met


def test_a_rejected_request_is_later_than_anybody_who_was_answered() -> None:
    run = result("ttft_p90:100000 ttft_p91:100000")
    assert (run.metrics.rejected, len(run.record.requests)) == (4, 40)
    assert run.slo_report is not None
    within, beyond = run.slo_report.objectives
    slowest_s = np.nanmax(request_latencies(run.record).ttft_s)
    assert within.met
    assert within.value_ms == pytest.approx(slowest_s * 1000, rel=1e-12)
    assert (beyond.value_ms, beyond.met) == (None, False)


def test_who_was_refused_counts_beside_those_that_have_the_latency() -> None:
    # Of four, one is refused, one has a single token: two of three have a TPOT in time.
    requests = request_table([0, 1000, 2000, 3000], [8, 8, 8, 30], [3, 3, 1, 3])
    record = run_reference(requests, replace(FIXED, longest=20)).record
    run = Result(scenario("tpot_p60:10 tpot_p70:10"), record)
    assert (run.metrics.rejected, run.metrics.completed) == (1, 3)
    assert run.slo_report is not None
    assert [one.met for one in run.slo_report.objectives] == [True, False]
    asked = asked_of(run.facts.slo(), (), record)
    made = promises(asked, record, request_latencies(record), whole_run(record))
    assert [one.kept.amounts.tolist() for one in made] == [[1, 1, 0]] * 2


def test_a_tpot_percentile_of_single_tokens_has_no_value_and_is_met() -> None:
    report = _judged("tpot_p99:1", [1, 1])
    assert report.objectives[0].value_ms is None
    assert report.met


def test_nothing_finished_means_nothing_met() -> None:
    options = Options(longest=1)
    report = _judged("tpot_p99:1", [1, 1], options)
    assert not report.met
    assert report.objectives[0].value_ms is None


def test_an_overloaded_run_meets_nothing() -> None:
    run = result("ttft:100000000", Options(slots=1), requests=300, gap_ms=10, replicas=1)
    assert run.verdict.name == "overloaded"
    assert run.slo_report is not None
    assert run.slo_report.objectives[0].met
    assert not run.slo_report.met
    assert run.slo_report.reason == "not met: the deployment is overloaded"


def test_without_objectives_there_is_no_report() -> None:
    assert result().slo_report is None


@pytest.mark.parametrize(
    ("verdict", "met", "reason"),
    [
        (Verdict(name="stable", reason=""), True, "met"),
        (Verdict(name="backlogged", reason=""), True, "met in this run, which is backlogged"),
        (Verdict(name="undecided", reason=""), True, "met in this run, which is undecided"),
        (
            Verdict(name="undecided", reason="", growing=True),
            False,
            "not shown to be met: met in this run",
        ),
        (Verdict(name="overloaded", reason=""), False, "not met: the deployment is overloaded"),
    ],
)
def test_only_a_run_that_has_stopped_growing_meets_its_objectives(
    verdict: Verdict, met: bool, reason: str
) -> None:
    run = run_reference(request_table([0, 1000], [8, 8], [3, 3]), FIXED)
    report = judge_slo(parse_slo("ttft:1e6", "slo"), run.record, measure(run.record), verdict)
    assert report.objectives[0].met
    assert report.met is met
    assert report.reason.startswith(reason)
