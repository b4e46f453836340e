"""The step log while it is written: one flat row per stretch.

Rows hold only what every stretch has; what few have (prefill, admissions, finishes) goes
into side tables that name the row.
"""

from __future__ import annotations

from array import array
from struct import Struct

import numpy as np
import numpy.typing as npt

from simserve.engine.flight import Flight
from simserve.policy.scheduler import StepPlan
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
FINISH_COLUMNS = ("finished", "aborted", "free_blocks_end")
LEAVER_COLUMNS = ("left", "given_back")


_pack = Struct(f"{len(ROW_COLUMNS)}q").pack


class StepWriter:
    """Collects rows as machine integers; ``log`` turns them into a ``StepLog``."""

    def __init__(self, usable_blocks: int, scheduled_ahead: bool) -> None:
        self.usable_blocks = usable_blocks
        self.scheduled_ahead = scheduled_ahead
        self.row_count = 0
        self.rows = bytearray()  # ROW_COLUMNS, packed
        self.mixed = array("q")  # row, then MIXED_COLUMNS
        self.finishes = array("q")  # row, then FINISH_COLUMNS
        self.leavers = array("q")  # row, then LEAVER_COLUMNS
        self.new_blocks = array("i")

    def write(self, flight: Flight) -> None:
        """Write the row of a flight that will not be extended any more."""
        plan = flight.plan
        self.rows += _pack(
            flight.steps,
            flight.start_ps,
            flight.duration_ps,
            flight.growth_ps,
            plan.decode_seqs,
            plan.decode_context_tokens,
            plan.running,
            plan.waiting,
            plan.free_blocks,
        )
        flight.row = self.row_count
        self.row_count += 1
        if plan.prefill or plan.preempted:
            self._write_mixed(flight.row, plan)

    def _write_mixed(self, row: int, plan: StepPlan) -> None:
        tokens = context = hits = 0
        for _, new_tokens, past_tokens in plan.prefill:
            tokens += new_tokens
            context += new_tokens + past_tokens
        for _, cached_tokens, _ in plan.admitted:
            hits += cached_tokens
        prefill, admitted, preempted = len(plan.prefill), len(plan.admitted), len(plan.preempted)
        self.mixed.extend((row, prefill, tokens, context, admitted, hits, preempted))

    def log(self) -> StepLog:
        """Return the finished log."""
        rows = _table(np.frombuffer(self.rows, dtype=np.int64), len(ROW_COLUMNS))
        columns = {name: rows[i] for i, name in enumerate(ROW_COLUMNS)}
        mixed = _spread(self.mixed, len(MIXED_COLUMNS), self.row_count)
        columns.update(zip(MIXED_COLUMNS, mixed, strict=True))
        finished, aborted, _ = _spread(self.finishes, len(FINISH_COLUMNS), self.row_count)
        new_blocks = np.array(self.new_blocks, dtype=np.int32)
        if self.scheduled_ahead:
            leavers = _spread(self.leavers, len(LEAVER_COLUMNS), self.row_count)
            columns.update(zip(LEAVER_COLUMNS, leavers, strict=True))
        return StepLog(
            **columns,
            finished=finished,
            aborted=aborted if aborted.any() else None,
            free_blocks_end=self._free_blocks_end(columns, new_blocks),
            new_blocks=new_blocks,
            num_blocks=self.usable_blocks,
            scheduled_ahead=self.scheduled_ahead,
        )

    def _free_blocks_end(
        self, columns: dict[str, npt.NDArray[np.int64]], new_blocks: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.int64]:
        """Return the free blocks after each row's output: as noted, or nothing was given back."""
        free = columns["free_blocks"]
        if self.scheduled_ahead:  # the next row's first step has taken its blocks by then
            after = np.zeros_like(free)
            after[:-1] = free[1:]
        else:
            taken = np.concatenate([[0], np.cumsum(new_blocks, dtype=np.int64)])
            last = np.cumsum(columns["steps"])
            after = free - (taken[last] - taken[last - columns["steps"] + 1])
        noted = _table(self.finishes, 1 + len(FINISH_COLUMNS))
        after[noted[0]] = noted[-1]
        return after


def _table(flat: array[int] | npt.NDArray[np.int64], width: int) -> npt.NDArray[np.int64]:
    """Return a flat list of rows as contiguous columns."""
    return np.ascontiguousarray(np.array(flat, dtype=np.int64).reshape(-1, width).T)


def _spread(flat: array[int], width: int, rows: int) -> list[npt.NDArray[np.int64]]:
    """Return a side table as full columns, 0 where it has no entry."""
    table = _table(flat, width + 1)
    full = np.zeros((width, rows), dtype=np.int64)
    full[:, table[0]] = table[1:]
    return list(full)
