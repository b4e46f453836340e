"""Identities that hold in every run, whatever the policy: a gap means a broken record."""

from __future__ import annotations

import numpy as np

from simserve.records.clock import NEVER_PS, PS_PER_S
from simserve.records.requests import IntArray
from simserve.records.run_record import REJECTED, RunRecord
from simserve.results.token_times import count_tokens, step_clock


def littles_law_gap(record: RunRecord) -> float:
    """Return how far Little's law is off: (L - lambda W) / L, 0 up to rounding.

    L, the time-average number in the system, is integrated over the ordered arrivals and
    departures; lambda W is the sum of the times that single requests spent, over the same
    time. Rejected requests spend none; unfinished ones stay until the end.
    """
    served = record.outcomes.status != REJECTED
    arrival_ps = record.requests.arrival_ps[served]
    if not len(arrival_ps):
        return 0.0
    finish_ps = record.outcomes.finish_ps[served]
    finish_ps = np.where(finish_ps == NEVER_PS, record.end_ps, finish_ps)
    time_ps = np.concatenate([arrival_ps, finish_ps])
    change = np.repeat(np.array([1, -1]), len(arrival_ps))
    order = np.argsort(time_ps, kind="stable")
    inside = np.cumsum(change[order])[:-1]
    area_s = float(np.dot(inside.astype(np.float64), np.diff(time_ps[order]) / PS_PER_S))
    spent_s = float(((finish_ps - arrival_ps) / PS_PER_S).sum())
    return (area_s - spent_s) / spent_s if spent_s else area_s


def decode_count_gap(record: RunRecord) -> IntArray:
    """Return, per step of all replicas, logged decode sequences minus those the requests imply.

    A decode sequence of a step is a token that followed one of the step before, or one that
    ``TokenGaps`` marks ``as_decode``. All zeros in a consistent record.
    """
    clock = step_clock(record)
    everyone = np.ones(len(record.requests), np.bool_)
    implied = count_tokens(record, clock, everyone).followers
    gaps = record.gaps
    late = gaps.as_decode
    place = clock.offset[record.outcomes.replica[gaps.request[late]]] + gaps.step[late]
    implied = implied + np.bincount(place, minlength=len(implied))
    logged = [np.repeat(log.decode_seqs, log.steps) for log in record.steps]
    return np.concatenate([*logged, np.empty(0, np.int64)]) - implied
