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
FINISH_COLUMNS = ("finished",)
LEAVER_COLUMNS = ("left", "given_back")


class StepWriter:
    """Collects rows as machine integers; ``log`` turns them into a ``StepLog``."""

    def __init__(self, usable_blocks: int, scheduled_ahead: bool) -> None:
        self.usable_blocks = usable_blocks
        self.scheduled_ahead = scheduled_ahead
        self.row_count = 0
        self.rows = array("q")
        self.free_blocks_end = array("q")  # per row
        self.mixed = array("q")  # row, then MIXED_COLUMNS
        self.finishes = array("q")  # row, then FINISH_COLUMNS
        self.leavers = array("q")  # row, then LEAVER_COLUMNS
        self.new_blocks = array("i")

    def lengthen_last_row(self, more_blocks: list[int]) -> None:
        """Add a step to the last row for each entry, which is the blocks that it takes."""
        self.rows[-len(ROW_COLUMNS)] += len(more_blocks)
        self.new_blocks.extend(more_blocks)

    def log(self) -> StepLog:
        """Return the finished log."""
        rows = _table(self.rows, len(ROW_COLUMNS))
        columns = {name: rows[i] for i, name in enumerate(ROW_COLUMNS)}
        mixed = _spread(self.mixed, len(MIXED_COLUMNS), self.row_count)
        columns.update(zip(MIXED_COLUMNS, mixed, strict=True))
        (finished,) = _spread(self.finishes, len(FINISH_COLUMNS), self.row_count)
        if self.scheduled_ahead:
            leavers = _spread(self.leavers, len(LEAVER_COLUMNS), self.row_count)
            columns.update(zip(LEAVER_COLUMNS, leavers, strict=True))
        return StepLog(
            **columns,
            finished=finished,
            free_blocks_end=np.array(self.free_blocks_end, dtype=np.int64),
            new_blocks=np.array(self.new_blocks, dtype=np.int32),
            num_blocks=self.usable_blocks,
            scheduled_ahead=self.scheduled_ahead,
        )


def _table(flat: array[int], width: int) -> npt.NDArray[np.int64]:
    """Return a flat list of rows as contiguous columns."""
    return np.ascontiguousarray(np.array(flat, dtype=np.int64).reshape(-1, width).T)


def _spread(flat: array[int], width: int, rows: int) -> list[npt.NDArray[np.int64]]:
    """Return a side table as full columns, 0 where it has no entry."""
    table = _table(flat, width + 1)
    full = np.zeros((width, rows), dtype=np.int64)
    full[:, table[0]] = table[1:]
    return list(full)
