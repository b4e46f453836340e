"""Which kind of answer a run's simulated time came from, told from its log afterwards.

Nothing is counted while a run runs. Afterwards a sample of its steps is priced again operator
by operator: all rows of a short log, else rows at equal distances along the simulated time,
which is a sample in proportion to it, the same for the same log.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from simserve.latency.tables.answers import HOST, SOURCES
from simserve.latency.tables.table_model import TableModel
from simserve.records.step import PrefillChunk, StepShape
from simserve.records.step_log import StepLog

MOST_ROWS = 1000
"""Rows that are priced again; a share is then known to about 1 / MOST_ROWS."""

IntArray = npt.NDArray[np.int64]


def shares_of_run(
    model: TableModel, logs: Sequence[StepLog], most_rows: int = MOST_ROWS
) -> dict[str, float]:
    """Return the shares of the logs' time by source, which sum to 1; empty if nothing ran."""
    return source_shares(model, *_rows_of(logs), most_rows)


def sampled_steps(
    logs: Sequence[StepLog], most_rows: int = MOST_ROWS
) -> Iterator[tuple[StepShape, float]]:
    """Yield steps that stand for the logs' time, and their shares of it.

    A row of many steps stands at its middle context; the chunks of a row are taken to be alike.
    """
    return _sampled(*_rows_of(logs), most_rows)


def source_shares(
    model: TableModel, shapes: IntArray, weights: IntArray, most_rows: int = MOST_ROWS
) -> dict[str, float]:
    """Return the shares of time by source for rows that took ``weights`` in all.

    ``shapes`` is ``int64[rows, 5]``: decodes, their summed context, chunks, their new tokens,
    their summed context (past and new). The chunks of a row are taken to be alike.
    """
    totals = dict.fromkeys((*SOURCES, HOST), 0.0)
    for shape, share in _sampled(shapes, weights, most_rows):
        parts = model.parts(shape)
        step_s = sum(part.seconds for part in parts)
        for part in parts:
            totals[part.source] += share * part.seconds / step_s
    return totals if any(totals.values()) else {}


def _rows_of(logs: Sequence[StepLog]) -> tuple[IntArray, IntArray]:
    """Return the shapes of the logs' rows, as ``source_shares`` takes them, and their time."""
    busy = [
        (log.steps * log.duration_ps + log.duration_growth_ps * (log.steps * (log.steps - 1) // 2))
        for log in logs
    ]
    shapes = np.concatenate(
        [
            np.stack(
                [
                    log.decode_seqs,
                    log.decode_context_tokens + log.decode_seqs * (log.steps - 1) // 2,
                    log.prefill_seqs,
                    log.prefill_tokens,
                    log.prefill_context_tokens,
                ],
                axis=1,
            )
            for log in logs
        ]
        or [np.empty((0, 5), dtype=np.int64)]
    )
    return shapes, np.concatenate(busy) if busy else np.empty(0, dtype=np.int64)


def _sampled(
    shapes: IntArray, weights: IntArray, most_rows: int
) -> Iterator[tuple[StepShape, float]]:
    weights = np.where(shapes[:, 0] + shapes[:, 2] > 0, weights, 0)
    whole = int(weights.sum())
    if not whole:
        return
    rows, counts = np.arange(len(weights)), weights / whole
    if len(weights) > most_rows:
        ends = np.cumsum(weights)
        marks = (np.arange(most_rows) + 0.5) * (whole / most_rows)
        rows, drawn = np.unique(np.searchsorted(ends, marks, side="right"), return_counts=True)
        counts = drawn / most_rows
    for row, share in zip(rows.tolist(), counts.tolist(), strict=True):
        if share:
            yield _shape(*shapes[row].tolist()), share


def _shape(decodes: int, context: int, chunks: int, new: int, chunk_context: int) -> StepShape:
    if not chunks:
        return StepShape(decodes, context)
    one = PrefillChunk(max(1, round(new / chunks)), max(0, round((chunk_context - new) / chunks)))
    return StepShape(decodes, context, (one,) * chunks)
