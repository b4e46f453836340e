"""What every step of one replica did, with stretches of equal steps kept as one row.

A row stands for ``steps`` consecutive steps of the same batch. Their durations form an
arithmetic progression (a decode step's cost is linear in the context, which grows by the
batch every step), so a row keeps the first duration and the increment; ``expand`` gives the
columns per step. Only the number of newly taken KV blocks is kept for every step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simserve.records.clock import PsArray

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLog:
    """The steps of one replica, one row per stretch; every array is ``int64[rows]``.

    Within a row, step ``j`` lasts ``duration_ps + j * duration_growth_ps``, attends to
    ``decode_context_tokens + j * decode_seqs`` tokens of decode context, and starts when
    step ``j - 1`` ends. ``admitted``, ``preempted`` and ``prefill_*`` belong to rows of one step;
    ``finished``, ``aborted`` and ``free_blocks_end`` to a row's last step.
    """

    steps: IntArray  # steps in the row, at least 1
    start_ps: PsArray  # when the row's first step starts
    duration_ps: IntArray  # of the first step
    duration_growth_ps: IntArray  # added with every further step
    decode_seqs: IntArray
    decode_context_tokens: IntArray  # of the first step, new tokens included
    prefill_seqs: IntArray
    prefill_tokens: IntArray
    prefill_context_tokens: IntArray  # past + new, summed over chunks
    admitted: IntArray
    hit_tokens: IntArray  # prefix-cache hits of the admitted
    preempted: IntArray
    finished: IntArray
    running: IntArray  # after scheduling
    waiting: IntArray  # after scheduling
    free_blocks: IntArray  # after scheduling the row's first step
    free_blocks_end: IntArray  # after the output of the row's last step
    new_blocks: npt.NDArray[np.int32]  # [all steps]: blocks taken in each step
    num_blocks: int  # usable KV blocks of the replica
    scheduled_ahead: bool = False  # each step is planned when the one before it starts
    # Requests that leave after a row's first step is planned and before its second is, and the
    # blocks that they give back. Only where steps are planned ahead; None: nobody.
    left: IntArray | None = None
    given_back: IntArray | None = None
    aborted: IntArray | None = None  # requests that clients gave up; None: nobody did

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def total_steps(self) -> int:
        """Steps in all rows together."""
        return int(self.steps.sum())

    def row_of_step(self) -> IntArray:
        """Return, for every step, its row: ``int64[total_steps]``."""
        return np.repeat(np.arange(len(self.steps)), self.steps)

    def step_in_row(self) -> IntArray:
        """Return, for every step, its position within its row: ``int64[total_steps]``."""
        first = np.cumsum(self.steps) - self.steps
        return np.arange(self.total_steps) - np.repeat(first, self.steps)

    def duration_per_step_ps(self) -> IntArray:
        """Return the duration of every step: ``int64[total_steps]``."""
        return np.repeat(self.duration_ps, self.steps) + self.step_in_row() * np.repeat(
            self.duration_growth_ps, self.steps
        )

    def end_per_step_ps(self) -> PsArray:
        """Return the end of every step: ``int64[total_steps]``; its tokens appear then."""
        j = self.step_in_row()
        first = np.repeat(self.duration_ps, self.steps)
        growth = np.repeat(self.duration_growth_ps, self.steps)
        return np.repeat(self.start_ps, self.steps) + (j + 1) * first + growth * (j * (j + 1) // 2)

    def free_per_step(self) -> IntArray:
        """Return the free blocks after scheduling every step: ``int64[total_steps]``."""
        taken = np.cumsum(self.new_blocks, dtype=np.int64)
        at_first = taken[np.cumsum(self.steps) - self.steps]
        free = np.repeat(self.free_blocks + at_first, self.steps) - taken
        if self.given_back is not None:
            free += np.where(self.step_in_row() > 0, np.repeat(self.given_back, self.steps), 0)
        return free

    def expand(self) -> dict[str, npt.NDArray[np.int64]]:
        """Return the log with one entry per step, as columns of ``int64[total_steps]``."""
        row, j = self.row_of_step(), self.step_in_row()
        end_ps, duration_ps = self.end_per_step_ps(), self.duration_per_step_ps()
        last = j == self.steps[row] - 1
        columns = {
            "start_ps": end_ps - duration_ps,
            "end_ps": end_ps,
            "tokens": (self.decode_seqs + self.prefill_tokens)[row],
            "decode_seqs": self.decode_seqs[row],
            "decode_context_tokens": self.decode_context_tokens[row] + j * self.decode_seqs[row],
            "free_blocks": self.free_per_step(),
        }
        for name in (
            "prefill_seqs",
            "prefill_tokens",
            "prefill_context_tokens",
            "admitted",
            "hit_tokens",
            "preempted",
            "running",
            "waiting",
        ):
            columns[name] = getattr(self, name)[row]
        if self.left is not None:
            columns["running"] = columns["running"] - np.where(j > 0, self.left[row], 0)
        columns["finished"] = np.where(last, self.finished[row], 0)
        aborted = np.zeros_like(self.finished) if self.aborted is None else self.aborted
        columns["aborted"] = np.where(last, aborted[row], 0)
        # A step's output is processed after the next step is planned, if that happens ahead.
        free = columns["free_blocks"]
        inner = np.append(free[1:], 0) if self.scheduled_ahead else free
        columns["free_blocks_end"] = np.where(last, self.free_blocks_end[row], inner)
        return columns
