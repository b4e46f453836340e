"""The step log while it is written: one flat row per stretch."""

from __future__ import annotations

from array import array

import numpy as np

from simserve.records.step_log import StepLog

ROW_COLUMNS = (
    "steps",
    "start_ps",
    "duration_ps",
    "duration_growth_ps",
    "decode_seqs",
    "decode_context_tokens",
    "prefill_seqs",
    "prefill_tokens",
    "prefill_context_tokens",
    "admitted",
    "hit_tokens",
    "preempted",
    "running",
    "waiting",
    "free_blocks",
)
"""What is known when a row is scheduled, in the order in which it is written."""


class StepWriter:
    """Collects rows as machine integers; ``log`` turns them into a ``StepLog``."""

    def __init__(self, usable_blocks: int) -> None:
        self.usable_blocks = usable_blocks
        self.rows = array("q")
        self.ends = array("q")  # finished, free blocks at the end: two per row
        self.new_blocks = array("i")

    def log(self) -> StepLog:
        """Return the finished log."""
        rows = np.array(self.rows, dtype=np.int64).reshape(-1, len(ROW_COLUMNS))
        ends = np.array(self.ends, dtype=np.int64).reshape(-1, 2)
        columns = {name: np.ascontiguousarray(rows[:, i]) for i, name in enumerate(ROW_COLUMNS)}
        return StepLog(
            **columns,
            finished=np.ascontiguousarray(ends[:, 0]),
            free_blocks_end=np.ascontiguousarray(ends[:, 1]),
            new_blocks=np.array(self.new_blocks, dtype=np.int32),
            num_blocks=self.usable_blocks,
        )
