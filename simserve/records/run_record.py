"""A finished run as data: the workload, what became of each request, and every step.

A measured run written in this form is scored by the same code as a simulated one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from simserve.records.clock import PsArray
from simserve.records.requests import IntArray, RequestTable
from simserve.records.step_log import StepLog

UNFINISHED, FINISHED, REJECTED, ABORTED = 0, 1, 2, 3
"""Values of ``RequestOutcomes.status``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOutcomes:
    """What became of each request; every array has one entry per request.

    A time that did not happen is ``NEVER_PS``. ``first_token_step`` and ``last_token_step``
    index the steps of the replica's log: an uninterrupted request gets one token at the end
    of each step from the first to the last. ``cached_tokens`` is the prefix-cache hit of the
    first admission. An aborted request, one that its client gave up, has no finish and no last
    step; ``generated_tokens`` are those that were delivered before.
    """

    status: npt.NDArray[np.uint8]
    replica: IntArray
    first_scheduled_ps: PsArray
    first_token_ps: PsArray
    finish_ps: PsArray
    generated_tokens: IntArray
    preemptions: IntArray
    cached_tokens: IntArray
    first_token_step: IntArray
    last_token_step: IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGaps:
    """The tokens that did not follow their predecessor in the very next step.

    Entry ``g``: request ``request[g]`` got a token in step ``previous_step[g]`` and its next
    one in ``step[g]`` of the same replica (preempted and recomputed, or out of budget, in
    between). ``as_decode[g]`` says whether that next token came from a row's ``decode_seqs``
    (True) or from the last chunk of a recomputation (False).
    """

    request: IntArray
    previous_step: IntArray
    step: IntArray
    as_decode: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMeta:
    """What the arrays of a run do not show; a simulated open load needs none of it."""

    users: int | None = None  # of a closed loop
    last_session_ps: int | None = None  # of conversations that wait for answers: the last began
    notes: tuple[str, ...] = ()  # remarks on the traffic
    trace_blocks: Mapping[str, float] | None = None  # of a trace that names its prompt blocks
    priced_from: Mapping[str, Any] | None = None  # the profile, and the shares of its answers
    measured_on: str | None = None  # the device of a real engine

    def as_dict(self) -> dict[str, Any]:
        """Return what is there, as JSON-able data."""
        entry = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in entry.items() if value not in (None, ())}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> RunMeta:
        """Return what ``as_dict`` gave.

        Raises:
            TypeError: if it did not give that.
        """
        meta = cls(**{**entry, "notes": tuple(entry.get("notes", ()))})
        kinds = {"users": int, "last_session_ps": int, "measured_on": str}
        kinds |= {"trace_blocks": dict, "priced_from": dict}
        for name, kind in kinds.items():
            value = getattr(meta, name)
            if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
                raise TypeError(f"meta.{name} is {value!r:.60}")
        if not all(isinstance(note, str) for note in meta.notes):
            raise TypeError(f"meta.notes is {meta.notes!r:.60}")
        return meta


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """Everything that metrics, reports and comparisons are computed from."""

    requests: RequestTable
    outcomes: RequestOutcomes
    steps: tuple[StepLog, ...]  # one per replica
    gaps: TokenGaps
    end_ps: int  # when the last step ended
    meta: RunMeta = RunMeta()
