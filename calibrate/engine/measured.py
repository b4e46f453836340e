"""What was measured of every step of a replay, beside what its record says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simserve.policy.scheduler import Scheduled
from simserve.records.clock import PS_PER_S
from simserve.records.run_record import RunRecord
from simserve.records.step import PrefillChunk, StepShape

FloatArray = npt.NDArray[np.float64]
TIMES = ("t_sched", "t_prep", "t_launch", "t_gpu", "t_out")
"""Seconds: plan; blocks, lists and their copy; launch; device; handing the tokens on."""
_COUNTS = ("n_dec", "sum_ctx", "max_ctx", "n_pre", "q_tokens", "past_sum", "graph_size")


class MeasuredSteps:
    """Columns with one entry per step; ``shapes`` says what each step computed.

    A step without work has zeros, and so has ``sm_clock_mhz`` until somebody tells the clocks.
    """

    def __init__(self) -> None:
        self.shapes: list[StepShape] = []
        self._columns: dict[str, list[float]] = {
            name: [] for name in (*TIMES, *_COUNTS, "sm_clock_mhz")
        }

    def __len__(self) -> int:
        return len(self.shapes)

    def planned(
        self, scheduled: Sequence[Scheduled], graph_size: int, times_ps: tuple[int, int, int]
    ) -> None:
        """Note the next step: what it computes, and the time to plan, prepare and launch it."""
        contexts = [s.past_tokens + s.new_tokens for s in scheduled if s.decode]
        chunks = [s for s in scheduled if not s.decode]
        values: dict[str, float] = {
            "n_dec": len(contexts),
            "sum_ctx": sum(contexts),
            "max_ctx": max((s.past_tokens + s.new_tokens for s in scheduled), default=0),
            "n_pre": len(chunks),
            "q_tokens": sum(s.new_tokens for s in chunks),
            "past_sum": sum(s.past_tokens for s in chunks),
            "graph_size": graph_size,
        }
        for name, time_ps in zip(TIMES, times_ps, strict=False):
            values[name] = time_ps / PS_PER_S
        for name, column in self._columns.items():
            column.append(values.get(name, 0))
        prefill = tuple(PrefillChunk(s.new_tokens, s.past_tokens) for s in chunks)
        each = np.array(contexts, np.int64)
        self.shapes.append(StepShape(len(contexts), sum(contexts), prefill, each))

    def ended(self, step: int, device_s: float, out_ps: int) -> None:
        """Note the device's time of a step, and the time to hand its tokens on."""
        self._columns["t_gpu"][step] = device_s
        self._columns["t_out"][step] = out_ps / PS_PER_S

    def set_clocks(self, mhz: Sequence[float]) -> None:
        """Note the device's clock in every step."""
        self._columns["sm_clock_mhz"] = list(mhz)

    def column(self, name: str) -> FloatArray:
        """Return a column: ``float64[steps]``."""
        return np.array(self._columns[name], np.float64)

    def table(self, record: RunRecord) -> dict[str, Any]:
        """Return every column, with the times and free blocks of the run's record.

        ``chunks`` is text: new and past tokens of every chunk, as ``new+past`` with blanks.
        """
        steps = record.steps[0].expand()
        chunks = [" ".join(f"{new}+{past}" for new, past in s.prefill) for s in self.shapes]
        return {
            "step": np.arange(len(self)),
            "t_start": steps["start_ps"] / PS_PER_S,
            "t_end": steps["end_ps"] / PS_PER_S,
            **{name: self.column(name) for name in TIMES},
            **{name: self.column(name).astype(np.int64) for name in _COUNTS},
            "chunks": chunks,
            "blocks_free": steps["free_blocks"],
            "sm_clock_mhz": self.column("sm_clock_mhz"),
        }

    def save(self, record: RunRecord, path: Path) -> None:
        """Write the table as Parquet, whole or not at all."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        half = path.with_name(f"{path.name}.part")
        pq.write_table(pa.table(self.table(record)), half, compression="zstd")
        half.replace(path)
