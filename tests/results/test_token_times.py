"""The token times that follow from a step log are those that a per-token list remembers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.results.laws import decode_count_gap
from simserve.results.metrics import measure
from simserve.results.token_times import (
    count_tokens,
    finished_requests,
    pooled_gaps,
    step_clock,
    token_ends_ps,
)
from tests.results.reference_run import Options, Reference, random_requests, run_reference

CASES = {
    "plain": Options(),
    "one_slot": Options(slots=1),
    "skips": Options(skip_chance=0.1),
    "preemptions": Options(preempt_chance=0.05),
    "both": Options(preempt_chance=0.05, skip_chance=0.1, budget=7),
    "cut_short": Options(preempt_chance=0.05, skip_chance=0.1, stop_after_steps=60),
    "rejections": Options(longest=100, skip_chance=0.05),
}


def _case(name: str, replicas: int = 2, seed: int = 3) -> Reference:
    return run_reference(random_requests(40, seed), CASES[name], replicas, seed)


def _true_gaps_s(run: Reference) -> np.ndarray:
    finished = finished_requests(run.record)
    lists = [np.diff(times) for times, done in zip(run.token_ps, finished, strict=True) if done]
    return np.concatenate([*lists, np.empty(0)]) / 1e12


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("replicas", [1, 3])
def test_pooled_gaps_are_those_of_a_per_token_list(name: str, replicas: int) -> None:
    run = _case(name, replicas)
    itl, expected = measure(run.record).itl, _true_gaps_s(run)
    assert itl.counts is not None
    assert np.array_equal(np.sort(np.repeat(itl.values_s, itl.counts)), np.sort(expected))
    for q in (0, 50, 90, 99, 99.9, 100):
        assert itl.percentile(q) == np.percentile(expected, q)


@pytest.mark.parametrize("name", CASES)
def test_token_ends_are_those_of_a_per_token_list(name: str) -> None:
    run = _case(name)
    ends = token_ends_ps(run.record, step_clock(run.record))
    assert [times.tolist() for times in ends] == run.token_ps


@pytest.mark.parametrize("name", CASES)
def test_logged_decode_sequences_are_the_tokens_that_follow_another(name: str) -> None:
    assert not decode_count_gap(_case(name).record).any()


def test_a_step_that_lost_a_sequence_is_found() -> None:
    record = _case("plain").record
    row = int(np.argmax(record.steps[0].decode_seqs))
    record.steps[0].decode_seqs[row] -= 1
    assert np.flatnonzero(decode_count_gap(record)).size == record.steps[0].steps[row]


@given(st.integers(0, 10_000), st.floats(0, 0.2), st.floats(0, 0.2), st.integers(1, 3))
@settings(max_examples=40)
def test_all_laws_hold_on_random_runs(
    seed: int, preempt_chance: float, skip_chance: float, replicas: int
) -> None:
    options = Options(preempt_chance=preempt_chance, skip_chance=skip_chance, budget=20)
    run = run_reference(random_requests(12, seed), options, replicas, seed)
    clock = step_clock(run.record)
    counts = count_tokens(run.record, clock, finished_requests(run.record))
    assert int(counts.tokens.sum()) == sum(map(len, run.token_ps))
    assert pooled_gaps(clock, counts).size == sum(len(times) - 1 for times in run.token_ps)
    assert not decode_count_gap(run.record).any()


def test_a_batch_that_stays_the_same_is_one_row_in_the_test_runs() -> None:
    log = _case("plain").record.steps[0]
    assert log.total_steps > len(log)
