"""What the laws of a finished run speak of: limits, and what one replica did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simserve.records.run_record import RunRecord
from simserve.records.step_log import StepLog
from simserve.results.token_times import BoolArray

Columns = dict[str, npt.NDArray[np.int64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The settings of a replica that its record must keep to."""

    max_running: int
    max_num_batched_tokens: int
    max_model_len: int
    usable_blocks: int
    scheduled_ahead: bool


@dataclass(frozen=True, slots=True)
class Served:
    """What one replica did, step by step, and which requests it served."""

    number: int
    log: StepLog
    steps: Columns
    mine: BoolArray


Broken = Iterator[str]
"""What is broken, in words: the first of it is told."""
Law = Callable[[RunRecord, Limits, list[Served]], Broken]


def total(one: Served, name: str) -> int:
    """Return a column's sum over the steps of a replica."""
    return int(one.steps[name].sum())


def in_step(one: Served, step: int, what: str) -> str:
    """Return ``what`` with the step that it is about."""
    return f"replica {one.number}, step {step}: {what}"


def first(wrong: BoolArray) -> int:
    """Return the place of the first that is wrong."""
    return int(np.flatnonzero(wrong)[0])
