"""The waits between tokens of a run in order of time, each with how many tokens shared it."""

from __future__ import annotations

import numpy as np

from simserve.records.clock import PS_PER_S
from simserve.records.run_record import RunRecord
from simserve.results.batch_means import Series
from simserve.results.token_times import BoolArray, count_tokens, step_clock


def gap_series(record: RunRecord, chosen: BoolArray) -> Series:
    """Return the waits between tokens of the ``chosen``, by when they ended."""
    clock = step_clock(record)
    counts = count_tokens(record, clock, chosen)
    used = np.flatnonzero(counts.followers)
    gaps = record.gaps
    taken = np.flatnonzero(chosen[gaps.request])
    after = clock.offset[record.outcomes.replica[gaps.request[taken]]] + gaps.step[taken]
    ends_ps = np.concatenate([clock.end_ps[used], clock.end_ps[after]])
    order = np.argsort(ends_ps, kind="stable")
    values_ps = np.concatenate([clock.since_previous_ps[used], counts.gap_ps])
    repeats = np.concatenate([counts.followers[used], np.ones(len(after), np.int64)])
    return Series.of_values(values_ps[order] / PS_PER_S, repeats[order])
