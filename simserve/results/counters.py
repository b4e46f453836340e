"""What a replica held at every instant: KV blocks, running, waiting, tokens of the batch.

The step log says what holds from the start of a step until its end. Between two steps a replica
has nothing to do (with work that fits it is never idle), so nobody runs or waits then; what its
KV cache still holds, the log says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simserve.records.clock import PsArray
from simserve.records.requests import IntArray
from simserve.records.step_log import StepLog


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Step functions of one replica: entry ``i`` holds from ``time_ps[i]`` until the next one.

    All arrays are ``int64[entries]``, with an entry at the start of every step and at the start
    of every idle spell.
    """

    time_ps: PsArray  # never decreasing
    kv_blocks: IntArray  # held by requests
    running: IntArray
    waiting: IntArray
    batch_tokens: IntArray  # that go through the model in the step
    num_blocks: int


def counters(log: StepLog) -> Counters:
    """Return the counters of one replica."""
    ends_ps = log.end_per_step_ps()
    starts_ps = ends_ps - log.duration_per_step_ps()
    row, first = log.row_of_step(), log.step_in_row() == 0
    running = log.running[row]
    if log.left is not None:
        running = running - np.where(first, 0, log.left[row])
    busy = np.stack(
        [
            log.num_blocks - log.free_per_step(),
            running,
            log.waiting[row],
            (log.decode_seqs + log.prefill_tokens)[row],
        ]
    )
    # An idle spell follows a row's last step that the next row does not follow at once.
    last = np.cumsum(log.steps) - 1
    idle_rows = np.flatnonzero(np.append(ends_ps[last[:-1]] < log.start_ps[1:], len(last) > 0))
    after = last[idle_rows]
    idle = np.zeros((len(busy), len(after)), np.int64)
    idle[0] = (log.num_blocks - log.free_blocks_end)[idle_rows]
    time_ps = np.insert(starts_ps, after + 1, ends_ps[after])
    columns = np.insert(busy, after + 1, idle, axis=1)
    return Counters(
        time_ps=time_ps,
        kv_blocks=columns[0],
        running=columns[1],
        waiting=columns[2],
        batch_tokens=columns[3],
        num_blocks=log.num_blocks,
    )
