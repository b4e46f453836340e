"""Identities that hold in every run, whatever the policy: a gap means a broken record."""

from __future__ import annotations

import numpy as np

from simserve.records.requests import IntArray
from simserve.records.run_record import RunRecord
from simserve.results.token_times import count_tokens, step_clock


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
