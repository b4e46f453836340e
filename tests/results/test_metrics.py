from __future__ import annotations

import numpy as np
import pytest

from simserve.records.run_record import RunRecord
from simserve.results.metrics import measure, offered_rate_per_s, request_latencies
from tests.results.reference_run import Options, random_requests, request_table, run_reference

STEP_MS = 10
FIXED = Options(per_seq_ps=0, per_context_ps=0)  # every step lasts STEP_MS


def _two_requests() -> RunRecord:
    """One slot: the first gets tokens at 10, 20, 30 ms; the second, from 5 ms, at 40 ms."""
    requests = request_table([0, 5], [8, 8], [3, 1])
    options = Options(slots=1, per_seq_ps=0, per_context_ps=0)
    return run_reference(requests, options).record


def test_latencies_are_counted_from_the_arrival() -> None:
    latencies = request_latencies(_two_requests())
    assert latencies.ttft_s.tolist() == [0.010, 0.035]
    assert latencies.e2el_s.tolist() == [0.030, 0.035]
    assert latencies.wait_s.tolist() == [0.0, 0.025]


def test_tpot_leaves_out_the_first_token_and_single_tokens() -> None:
    metrics = measure(_two_requests())
    assert metrics.tpot.values_s.tolist() == [0.010]
    assert metrics.itl.size == 2


def test_throughput_is_over_first_arrival_to_last_completion() -> None:
    metrics = measure(_two_requests())
    assert metrics.duration_s == 0.040
    assert metrics.request_throughput == 2 / 0.040
    assert metrics.output_throughput == 4 / 0.040
    assert metrics.total_token_throughput == (16 + 4) / 0.040


def test_a_late_first_arrival_does_not_count_as_duration() -> None:
    record = run_reference(request_table([5000], [8], [3]), FIXED).record
    assert measure(record).duration_s == pytest.approx(0.030, rel=1e-12)


def test_in_flight_is_exact_and_seen_in_a_second_is_not() -> None:
    # Two requests one after the other within one second: never together.
    requests = request_table([0, 100], [8, 8], [2, 2])
    metrics = measure(run_reference(requests, FIXED).record)
    assert metrics.max_in_flight == 1
    assert metrics.max_concurrent_requests == 2


def test_tokens_per_second_are_counted_in_seconds_from_the_first_arrival() -> None:
    # Tokens end at 500 + 10, 20, ... 1200 ms: 99 in the first second, 21 in the next.
    requests = request_table([500], [8], [120])
    assert measure(run_reference(requests, FIXED).record).max_output_tokens_per_s == 99


def test_buckets_agree_with_a_plain_count_over_token_times() -> None:
    run = run_reference(random_requests(60, 5), Options(preempt_chance=0.03, skip_chance=0.05), 2)
    start_ps = int(run.record.requests.arrival_ps.min())
    seconds = [int((t - start_ps) // 10**12) for times in run.token_ps for t in times]
    metrics = measure(run.record)
    assert metrics.max_output_tokens_per_s == np.bincount(seconds).max()
    spans = [
        range(int(a - start_ps) // 10**12, int(times[-1] - start_ps) // 10**12 + 1)
        for a, times in zip(run.record.requests.arrival_ps, run.token_ps, strict=True)
    ]
    seen = np.bincount([second for span in spans for second in span])
    assert metrics.max_concurrent_requests == seen.max()


def test_rejected_and_unfinished_requests_are_failures_and_leave_no_latency() -> None:
    options = Options(longest=100, stop_after_steps=80)
    metrics = measure(run_reference(random_requests(60, 1), options).record)
    assert metrics.rejected > 0
    assert metrics.unfinished > 0
    assert metrics.failed == metrics.rejected + metrics.unfinished
    assert metrics.completed + metrics.failed == metrics.num_prompts
    assert metrics.ttft.size == metrics.e2el.size == metrics.completed


def test_a_run_where_everything_is_rejected_has_zero_rates_and_no_latency() -> None:
    record = run_reference(request_table([0, 1], [9, 9], [2, 2]), Options(longest=1)).record
    metrics = measure(record)
    assert (metrics.completed, metrics.failed) == (0, 2)
    assert metrics.request_throughput == metrics.max_output_tokens_per_s == 0
    assert metrics.ttft.mean is None


def test_offered_rate_counts_gaps_and_is_unknown_for_one_instant() -> None:
    requests = request_table([0, 500, 1000], [1] * 3, [1] * 3)
    assert offered_rate_per_s(run_reference(requests).record) == 2.0
    at_once = request_table([0, 0], [1, 1], [1, 1])
    assert offered_rate_per_s(run_reference(at_once).record) is None
