"""The step log while it is written: one flat row per stretch.

Rows hold only what every stretch has; what few have (prefill, admissions, finishes) goes
into side tables that name the row.
"""

from __future__ import annotations

from array import array

import numpy as np
import numpy.typing as npt

from simserve.records.step_log import StepLog

ROW_COLUMNS = (
    "steps",
    "start_ps",
    "duration_ps",
    "duration_growth_ps",
    "decode_seqs",
    "decode_context_tokens",
    "running",
    "waiting",
    "free_blocks",
)
MIXED_COLUMNS = (
    "prefill_seqs",
    "prefill_tokens",
    "prefill_context_tokens",
    "admitted",
    "hit_tokens",
    "preempted",
)
FINISH_COLUMNS = ("finished", "free_blocks_end")


class StepWriter:
    """Collects rows as machine integers; ``log`` turns them into a ``StepLog``."""

    def __init__(self, usable_blocks: int) -> None:
        self.usable_blocks = usable_blocks
        self.row_count = 0
        self.rows = array("q")
        self.mixed = array("q")  # row, then MIXED_COLUMNS
        self.finishes = array("q")  # row, then FINISH_COLUMNS
        self.new_blocks = array("i")

    def log(self) -> StepLog:
        """Return the finished log."""
        rows = _table(self.rows, len(ROW_COLUMNS))
        columns = {name: rows[i] for i, name in enumerate(ROW_COLUMNS)}
        new_blocks = np.array(self.new_blocks, dtype=np.int32)
        _, *mixed = _spread(self.mixed, len(MIXED_COLUMNS), self.row_count)
        columns.update(zip(MIXED_COLUMNS, mixed, strict=True))
        has_finish, finished, free_end = _spread(self.finishes, len(FINISH_COLUMNS), self.row_count)
        # Where nothing was given back, the blocks free at the end follow from those taken.
        taken = np.concatenate([[0], np.cumsum(new_blocks, dtype=np.int64)])
        last = np.cumsum(columns["steps"])
        later = taken[last] - taken[last - columns["steps"] + 1]
        return StepLog(
            **columns,
            finished=finished,
            free_blocks_end=np.where(has_finish, free_end, columns["free_blocks"] - later),
            new_blocks=new_blocks,
            num_blocks=self.usable_blocks,
        )


def _table(flat: array[int], width: int) -> npt.NDArray[np.int64]:
    """Return a flat list of rows as contiguous columns."""
    return np.ascontiguousarray(np.array(flat, dtype=np.int64).reshape(-1, width).T)


def _spread(flat: array[int], width: int, rows: int) -> list[npt.NDArray[np.int64]]:
    """Return a side table as full columns: a 0/1 column of presence, then its values."""
    table = _table(flat, width + 1)
    full = np.zeros((width + 1, rows), dtype=np.int64)
    full[0, table[0]] = 1
    full[1:, table[0]] = table[1:]
    return list(full)
