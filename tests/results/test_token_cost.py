"""Whose GPU time a step was: exact sums, the stated rule, and the textbook sum."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.records.clock import PS_PER_MS, PS_PER_S
from simserve.records.step import StepShape
from simserve.results.token_cost import attribute, count_served, plain_usd_per_mtok
from tests.results.reference_run import Options, random_requests, request_table, run_reference


class Linear:
    """A step takes so much for being one, and for every new token and token of context."""

    def __init__(self, base_s: float = 1e-3, new_s: float = 1e-5, context_s: float = 1e-7) -> None:
        self.base_s, self.new_s, self.context_s = base_s, new_s, context_s

    def step_s(self, shape: StepShape) -> float:
        return self.base_s + self.new_s * shape.tokens + self.context_s * shape.context_tokens


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    replicas=st.integers(1, 3),
    cached=st.sampled_from([0, 16, 48]),
    preempt=st.sampled_from([0.0, 0.05]),
    gap_ms=st.sampled_from([5.0, 60.0]),
)
def test_every_picosecond_of_every_replica_is_someones(
    seed: int, replicas: int, cached: int, preempt: float, gap_ms: float
) -> None:
    options = Options(preempt_chance=preempt, cached_tokens=cached, slots=6)
    record = run_reference(random_requests(30, seed, gap_ms), options, replicas).record
    time = attribute(record, Linear())
    busy = sum(int(log.duration_per_step_ps().sum()) for log in record.steps)
    span = (record.end_ps - int(record.requests.arrival_ps[0])) * replicas
    assert time.busy_ps == busy
    assert time.total_ps == span
    assert min(time.input_ps, time.cached_ps, time.output_ps, time.idle_ps) >= 0
    assert (time.cached_ps > 0) <= (cached > 0)


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), factor=st.floats(0.01, 100))
def test_a_model_that_is_so_many_times_slower_divides_alike(seed: int, factor: float) -> None:
    record = run_reference(random_requests(20, seed), Options()).record
    slower = Linear(1e-3 * factor, 1e-5 * factor, 1e-7 * factor)
    plain, other = attribute(record, Linear()), attribute(record, slower)
    steps = sum(log.total_steps for log in record.steps)
    assert abs(plain.input_ps - other.input_ps) <= steps  # a picosecond of rounding a step


def test_steps_of_one_kind_go_to_that_kind_alone() -> None:
    # One request of one chunk and three tokens: a prefill step, then two decode steps.
    record = run_reference(request_table([0], [8], [3]), Options()).record
    time = attribute(record, Linear())
    durations = record.steps[0].duration_per_step_ps()
    assert time.input_ps == durations[0]
    assert time.output_ps == durations[1:].sum()
    assert time.cached_ps == time.idle_ps == 0


def test_a_mixed_step_is_divided_as_its_halves_would_cost_alone() -> None:
    # The second prompt is computed while the first request decodes.
    record = run_reference(request_table([0, 11], [8, 40], [3, 1]), Options()).record
    log, model = record.steps[0], Linear()
    [row] = [at for at in range(len(log)) if log.prefill_seqs[at] and log.decode_seqs[at]]
    decode_s = model.step_s(StepShape(1, int(log.decode_context_tokens[row])))
    prefill_s = 1e-3 + 1e-5 * 40 + 1e-7 * 40
    shared_ps = int(log.duration_ps[row])
    alone = sum(
        int(log.duration_ps[at]) for at in range(len(log)) if log.prefill_seqs[at] and at != row
    )
    expected = alone + shared_ps * prefill_s / (prefill_s + decode_s)
    assert attribute(record, model).input_ps == pytest.approx(expected, abs=1)


def test_cached_input_gets_what_reading_it_takes() -> None:
    options = Options(cached_tokens=32, budget=200)
    record = run_reference(request_table([0], [100], [1]), options).record
    duration_ps = int(record.steps[0].duration_ps[0])
    free = attribute(record, Linear(context_s=0.0))
    assert free.cached_ps == 0
    read = attribute(record, Linear())
    with_s, without_s = (1e-3 + 1e-5 * 68 + 1e-7 * tokens for tokens in (100, 68))
    assert read.cached_ps == pytest.approx(duration_ps * (1 - without_s / with_s), abs=1)


def test_tokens_are_those_of_finished_requests_and_hits_count_once() -> None:
    # Prompts of 40 hit 32 tokens, the one of 20 none, the one of 900 is rejected.
    requests = request_table([0, 1, 2, 3], [40, 40, 20, 900], [2, 1, 1, 1])
    record = run_reference(requests, Options(cached_tokens=32, longest=500)).record
    tokens = count_served(record)
    assert (tokens.requests, tokens.input_tokens) == (3, 36)
    assert (tokens.cached_tokens, tokens.output_tokens) == (64, 4)
    assert tokens.tokens == 104


def test_idle_time_is_what_lies_between_steps() -> None:
    # Two requests of one 10 ms step each, 90 ms apart: 20 of 100 ms are busy.
    options = Options(per_seq_ps=0, per_context_ps=0)
    record = run_reference(request_table([0, 90], [8, 8], [1, 1]), options).record
    time = attribute(record, Linear())
    assert (time.busy_ps, time.idle_ps) == (20 * PS_PER_MS, 80 * PS_PER_MS)
    assert time.busy_frac == pytest.approx(0.2)
    assert time.total_ps < PS_PER_S


def test_idle_time_is_observed_while_requests_come() -> None:
    # One of 10 ms every 90 ms is a load of a ninth, however many of them are looked at.
    options = Options(per_seq_ps=0, per_context_ps=0)
    for count in (2, 7):
        arrival_ms = [90.0 * at for at in range(count)]
        table = request_table(arrival_ms, [8] * count, [1] * count)
        record = run_reference(table, options).record
        until_ps = int(table.arrival_ps[-1])
        assert attribute(record, Linear(), until_ps).busy_frac == pytest.approx(1 / 9)


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), last=st.integers(400, 1000))
def test_a_long_end_of_the_run_is_not_idle_time(seed: int, last: int) -> None:
    """Two replicas, of which one serves the last request for long and the other has no more."""
    shares = []
    for tokens in (2, last):
        table = random_requests(30, seed, 20.0)
        table.output_tokens[-1] = tokens
        record = run_reference(table, Options(), 2).record
        until_ps = int(table.arrival_ps[-1])
        shares.append(1 - attribute(record, Linear(), until_ps).busy_frac)
    assert shares[0] == pytest.approx(shares[1], abs=1e-9)
    assert 1 - attribute(record, Linear()).busy_frac > shares[1]


def test_all_that_comes_at_once_is_observed_to_its_end() -> None:
    record = run_reference(request_table([0, 0], [8, 8], [5, 5]), Options(), 2).record
    assert attribute(record, Linear(), 0) == attribute(record, Linear())


def test_the_textbook_sum_comes_out() -> None:
    # Four A100 at $16 per GPU-hour are $64/h; 3,000 tokens/s are 10.8 million an hour.
    assert round(plain_usd_per_mtok(4 * 16, 3000), 2) == 5.93
    assert plain_usd_per_mtok(128, 3000) == pytest.approx(2 * plain_usd_per_mtok(64, 3000))
