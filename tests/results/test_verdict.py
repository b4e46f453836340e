"""The verdict on queues whose load is known: one server, unit service, Lindley's recursion."""

from __future__ import annotations

import heapq
from collections import Counter

import numpy as np
import pytest

from simserve.records.clock import NEVER_PS, PS_PER_S, PsArray
from simserve.results.verdict import judge_load, judge_times
from tests.results.reference_run import Options, random_requests, request_table, run_reference
from tests.results.scenarios import on_four_gpus

Times = tuple[PsArray, PsArray, PsArray]
SERVICE_S = 0.01
# Requests per second that endless many together get, and how many together get half of that.
CEILING, HALF = 20.0, 100.0


def queue(
    load: float,
    requests: int,
    seed: int,
    *,
    shape: float | None = None,
    arrival: np.ndarray | None = None,
) -> Times:
    """Return arrival, start and finish of an M/D/1 queue, or M/G/1 with gamma service."""
    rng = np.random.default_rng(seed)
    if arrival is None:
        arrival = np.cumsum(rng.exponential(1 / load, requests))
    service = np.ones(requests) if shape is None else rng.gamma(shape, 1 / shape, requests)
    upto = np.cumsum(service)
    finish = upto + np.maximum.accumulate(arrival - (upto - service))
    scale = SERVICE_S * PS_PER_S
    times = [(column * scale).astype(np.int64) for column in (arrival, finish - service, finish)]
    return times[0], times[1], times[2]


def endless_servers(arrival: np.ndarray, service: np.ndarray) -> Times:
    """Return the times of requests that never wait."""
    a, f = ((column * PS_PER_S).astype(np.int64) for column in (arrival, arrival + service))
    return a, a, f


def verdicts(
    load: float, requests: int, runs: int = 40, shape: float | None = None
) -> Counter[str]:
    return Counter(
        judge_times(*queue(load, requests, seed, shape=shape)).name for seed in range(runs)
    )


@pytest.mark.parametrize("requests", [500, 2000, 20_000])
@pytest.mark.parametrize("load", [0.5, 0.8])
def test_a_light_load_is_stable(load: float, requests: int) -> None:
    assert verdicts(load, requests) == {"stable": 40}


@pytest.mark.parametrize("requests", [1000, 2000, 20_000])
@pytest.mark.parametrize("shape", [None, 1.0])
def test_a_load_of_95_percent_is_not_overloaded(requests: int, shape: float | None) -> None:
    found = verdicts(0.95, requests, shape=shape)
    # t of 2.5 is passed about once in 160 even at load 1: two of 40 would be a surprise.
    assert found["overloaded"] <= 1
    if requests == 20_000:
        assert found["stable"] >= 35


@pytest.mark.parametrize("requests", [5000, 20_000])
def test_a_load_of_120_percent_is_overloaded(requests: int) -> None:
    assert verdicts(1.2, requests) == {"overloaded": 40}


def test_a_short_run_at_120_percent_is_never_stable() -> None:
    assert verdicts(1.2, 1000)["stable"] == 0


@pytest.mark.parametrize("requests", [200, 2000])
def test_twice_the_load_is_overloaded(requests: int) -> None:
    assert verdicts(2.0, requests) == {"overloaded": 40}


def test_equal_gaps_above_capacity_are_overloaded() -> None:
    times = queue(0, 400, 0, arrival=np.arange(400) / 1.5)
    assert judge_times(*times).name == "overloaded"


def test_arrivals_all_at_once_are_backlogged() -> None:
    verdict = judge_times(*queue(0, 50, 0, arrival=np.zeros(50)))
    assert verdict.name == "backlogged"
    assert "all 50 requests arrived at once" in verdict.reason


def test_a_burst_at_the_end_is_backlogged() -> None:
    arrival = np.concatenate([np.arange(0, 2000, 2.0), np.full(300, 2000.0)])
    assert judge_times(*queue(0, 1300, 0, arrival=arrival)).name == "backlogged"


def test_a_burst_that_has_cleared_is_stable() -> None:
    arrival = np.sort(np.concatenate([np.arange(0, 4000, 2.0), np.full(300, 500.0)]))
    assert judge_times(*queue(0, 2300, 0, arrival=arrival)).name == "stable"


def test_requests_that_never_wait_are_stable_however_long_they_take() -> None:
    rng = np.random.default_rng(0)
    arrival = np.cumsum(rng.exponential(0.1, 3000))
    service = rng.gamma(2.0, 10.0, 3000)
    assert judge_times(*endless_servers(arrival, service)).name == "stable"


def test_a_batch_that_is_still_filling_up_is_not_overloaded() -> None:
    arrival = np.arange(0, 60, 0.1)
    verdict = judge_times(*endless_servers(arrival, np.full(600, 80.0)))
    assert (verdict.name, verdict.growing) == ("undecided", True)
    assert "a longer run would tell" in verdict.reason


def test_a_first_look_at_a_few_requests_is_too_short_and_no_growth() -> None:
    arrival = np.arange(0, 5, 0.1)
    verdict = judge_times(*endless_servers(arrival, np.full(50, 8.0)))
    assert (verdict.name, verdict.growing) == ("undecided", False)
    assert "too short a run" in verdict.reason


def test_a_rising_rate_that_is_served_is_stable() -> None:
    arrival = np.sqrt(np.arange(1, 4001)) * 5
    assert judge_times(*endless_servers(arrival, np.full(4000, 3.0))).name == "stable"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("stays", [1, 5, 9])
def test_a_run_of_fewer_than_ten_stays_is_too_short_to_be_stable(stays: int, seed: int) -> None:
    # Little's law: the share of all requests that is in the system is a stay's of the window.
    arrival = np.cumsum(np.random.default_rng(seed).exponential(1.0, 400 * stays))
    verdict = judge_times(*endless_servers(arrival, np.full(400 * stays, 400.0)))
    assert verdict.name == "undecided"


def saturating(
    rate: float, requests: int, seed: int, *, burst_frac: float = 0.0, times: float = 2.0
) -> Times:
    """Return the times of processor sharing whose whole grows with the batch.

    ``n`` requests, each of one second of work on average, together get
    ``CEILING * n / (n + HALF)`` seconds of it each second: first bound by memory, then by compute.
    The last ``burst_frac`` of the requests come so many ``times`` as fast.
    """
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1 / rate, requests)
    gaps[round(requests * (1 - burst_frac)) :] /= times
    arrival = np.cumsum(gaps)
    need = rng.gamma(2.0, 0.5, requests)
    finish = np.empty(requests)
    # Whoever comes leaves when what everyone has got meanwhile reaches its mark.
    marks: list[tuple[float, int]] = []
    now = got = 0.0
    at = 0
    while at < requests or marks:
        upcoming = arrival[at] if at < requests else np.inf
        if marks:
            each = CEILING / (len(marks) + HALF)
            leaves = now + (marks[0][0] - got) / each
            if leaves <= upcoming:
                got, now = marks[0][0], leaves
                finish[heapq.heappop(marks)[1]] = now
                continue
            got += (upcoming - now) * each
        now = upcoming
        heapq.heappush(marks, (got + need[at], at))
        at += 1
    a, f = ((column * PS_PER_S).astype(np.int64) for column in (arrival, finish))
    return a, a, f


@pytest.mark.parametrize("requests", [500, 1000, 3000])
@pytest.mark.parametrize("load", [1.05, 1.1, 1.3])
def test_an_overload_that_still_fills_its_batch_is_never_stable(load: float, requests: int) -> None:
    found = [judge_times(*saturating(load * CEILING, requests, seed)) for seed in range(5)]
    assert all(one.name != "stable" for one in found), [one.reason for one in found]


@pytest.mark.parametrize("load", [0.5, 0.7])
def test_a_batch_that_has_filled_up_is_stable(load: float) -> None:
    found = [judge_times(*saturating(load * CEILING, 5000, seed)).name for seed in range(5)]
    assert found == ["stable"] * 5


@pytest.mark.parametrize("load", [0.6, 0.9, 1.1])
def test_what_is_stable_is_not_overloaded_in_a_run_ten_times_as_long(load: float) -> None:
    for seed in range(3):
        short = judge_times(*saturating(load * CEILING, 2000, seed))
        longer = judge_times(*saturating(load * CEILING, 20_000, seed))
        assert (short.name, longer.name) != ("stable", "overloaded"), (seed, short.reason)


@pytest.mark.parametrize("burst_frac", [0.0, 0.02, 0.05])
@pytest.mark.parametrize("load", [0.4, 0.6])
def test_a_short_burst_at_the_end_leaves_a_light_load_stable(
    load: float, burst_frac: float
) -> None:
    for seed in range(4):
        times = saturating(load * CEILING, 3000, seed, burst_frac=burst_frac)
        assert judge_times(*times).name == "stable"


def test_a_longer_burst_at_the_end_is_named_where_growth_is_in_doubt() -> None:
    # Twice the rate in the last tenth fills the batch; nobody can tell if it would stay so.
    found = [
        judge_times(*saturating(0.6 * CEILING, 3000, seed, burst_frac=0.1)) for seed in range(12)
    ]
    assert {one.name for one in found} <= {"stable", "undecided"}
    doubtful = [one for one in found if one.growing]
    said = sum("at whose end they came faster" in one.reason for one in doubtful)
    assert said > len(doubtful) / 2


def test_growth_at_a_constant_rate_is_not_put_down_to_a_burst() -> None:
    found = [judge_times(*saturating(1.05 * CEILING, 1000, seed)) for seed in range(5)]
    doubtful = [one for one in found if one.growing]
    assert doubtful
    assert not any("came faster" in one.reason for one in doubtful)


def test_a_queue_left_by_a_burst_is_backlogged_however_fast_it_came() -> None:
    for times in (4, 10, 100):
        burst = 2000 + np.arange(1, 201) / times
        arrival = np.concatenate([np.arange(0, 2000, 2.0), burst])
        assert judge_times(*queue(0, 1200, 0, arrival=arrival)).name == "backlogged"


def test_everyone_let_in_but_ever_slower_is_overloaded() -> None:
    # Processor sharing at load 1.5: nobody waits for a slot, each finishes after all before.
    arrival, _, finish = queue(1.5, 2000, 0)
    assert judge_times(arrival, arrival, finish).name == "overloaded"


def test_requests_that_never_start_count_as_waiting() -> None:
    arrival, start, finish = queue(2.0, 1000, 0)
    late = start > arrival[-1]
    start[late] = finish[late] = NEVER_PS
    assert judge_times(arrival, start, finish).name == "overloaded"


def test_a_single_request_and_none_are_stable() -> None:
    assert judge_times(*queue(1.0, 1, 0)).name == "stable"
    assert judge_times(*queue(1.0, 0, 0)).name == "stable"


@pytest.mark.parametrize("requests", range(2, 12))
def test_a_handful_of_requests_at_light_load_is_never_overloaded(requests: int) -> None:
    assert verdicts(0.3, requests)["overloaded"] == 0


def test_the_reason_gives_the_rates_that_were_offered_and_served() -> None:
    # Twice the capacity, at equal gaps; a service of 10 ms serves 100 per second.
    reason = judge_times(*queue(0, 1001, 0, arrival=np.arange(1001) / 2)).reason
    assert "200 requests/s arrived but only 100/s were admitted" in reason


def test_rejected_requests_are_left_out() -> None:
    run = run_reference(random_requests(300, 0, gap_ms=500), Options(longest=150))
    assert judge_load(run.record).name == "stable"
    everyone = run_reference(request_table([0, 1], [9, 9], [1, 1]), Options(longest=1))
    assert judge_load(everyone.record).reason == "no request was served"


def test_a_served_workload_that_outruns_its_replica_is_overloaded() -> None:
    run = run_reference(random_requests(300, 0, gap_ms=20), Options(slots=2))
    assert judge_load(run.record).name == "overloaded"


def test_the_verdict_reads_as_one_word() -> None:
    verdict = judge_times(*queue(2.0, 1000, 0))
    assert str(verdict) == "overloaded"
    assert not verdict.operating_point


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_a_short_run_says_of_a_deployment_what_a_long_one_says(seed: int) -> None:
    found = {rate: on_four_gpus(rate, 3000, seed) for rate in (16, 17, 19, 20, 24)}
    names = {rate: one.verdict.name for rate, one in found.items()}
    assert names[16] == names[17] == "stable"
    assert "stable" not in {names[19], names[20]}
    assert names[24] == "overloaded"
    assert found[17].slo_report is not None and found[17].slo_report.met
    for rate in (20, 24):
        report = found[rate].slo_report
        assert report is not None and not report.met, found[rate].verdict.reason


def test_a_long_run_is_stable_below_what_is_carried_and_overloaded_above() -> None:
    assert on_four_gpus(17, 20_000, 11).verdict.name == "stable"
    assert on_four_gpus(20, 20_000, 11).verdict.name == "overloaded"
