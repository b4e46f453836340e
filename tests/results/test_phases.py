"""Phases tile the life of a request, and their sums are the latencies."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from simserve.records.clock import NEVER_PS
from simserve.records.run_record import FINISHED, REJECTED, RunRecord
from simserve.results.phases import DECODE, PAUSED, PHASES, PREEMPTED, PREFILL, QUEUE
from simserve.results.phases import request_phases as phases_of
from simserve.results.token_times import left_ps, step_clock, token_ends_ps
from tests.results.reference_run import Options, random_requests, run_reference

SHAPES = {
    "plain": Options(),
    "preempted": Options(preempt_chance=0.05),
    "left out": Options(skip_chance=0.1),
    "rejected and cut off": Options(
        preempt_chance=0.05, skip_chance=0.05, longest=190, stop_after_steps=150
    ),
}


@pytest.fixture(params=SHAPES, ids=str)
def record(request: pytest.FixtureRequest) -> RunRecord:
    return run_reference(random_requests(60, 7), SHAPES[request.param], 2).record


def test_phases_follow_one_another_from_arrival_to_the_end(record: RunRecord) -> None:
    gone_ps = left_ps(record)
    for request, phases in phases_of(record, range(len(record.requests))):
        if record.outcomes.status[request] == REJECTED:
            assert phases == []
            continue
        arrival_ps = int(record.requests.arrival_ps[request])
        end_ps = record.end_ps if gone_ps[request] == NEVER_PS else int(gone_ps[request])
        if end_ps <= arrival_ps:
            assert phases == []
            continue
        assert (phases[0].start_ps, phases[-1].end_ps) == (arrival_ps, end_ps)
        assert all(one.end_ps == other.start_ps for one, other in pairwise(phases))
        assert all(one.end_ps > one.start_ps and one.name in PHASES for one in phases)


def test_queue_and_prefill_of_a_finished_request_sum_to_its_ttft(record: RunRecord) -> None:
    out, requests = record.outcomes, record.requests
    finished = np.flatnonzero(out.status == FINISHED)
    for request, phases in phases_of(record, finished):
        before = sum(one.end_ps - one.start_ps for one in phases if one.name in (QUEUE, PREFILL))
        assert before == out.first_token_ps[request] - requests.arrival_ps[request]


def test_tokens_come_while_decoding_and_never_inside_an_interruption(record: RunRecord) -> None:
    tokens_ps = token_ends_ps(record, step_clock(record))
    for request, phases in phases_of(record, range(len(record.requests))):
        for one in phases:
            inside = (tokens_ps[request] > one.start_ps) & (tokens_ps[request] < one.end_ps)
            if one.name != DECODE:
                assert not inside.any(), (request, one)


def test_interruptions_are_told_apart_as_the_record_tells_them(record: RunRecord) -> None:
    finished = np.flatnonzero(record.outcomes.status == FINISHED)
    mine = np.isin(record.gaps.request, finished)
    found = [one.name for _, phases in phases_of(record, finished) for one in phases]
    assert found.count(PAUSED) == int((record.gaps.as_decode & mine).sum())
    assert found.count(PREEMPTED) == int((~record.gaps.as_decode & mine).sum())
