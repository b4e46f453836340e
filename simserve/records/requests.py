"""The workload as arrays: who arrives when, with which tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simserve.records.clock import PsArray

IntArray = npt.NDArray[np.int64]

NOBODY = -1
"""In place of a request's number: there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentTable:
    """Prompts as lists of shared segments, in CSR form.

    Request ``i`` owns entries ``offsets[i]:offsets[i + 1]``. Token ``k`` of segment ``s``
    is the pair ``(s, k)``, counted from the segment's start; two tokens are equal iff both
    numbers are. So two prompts share a prefix exactly as far as their lists agree.
    """

    offsets: IntArray  # [requests + 1]
    segment: IntArray  # [entries]
    tokens: IntArray  # [entries], each at least 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTable:
    """Requests in arrival order, as arrays of one length.

    ``segments`` None means that no two prompts share anything. ``output_segment`` names the
    segment that a request's generated tokens belong to (so that a later prompt can repeat
    them); None means that nobody repeats them. A smaller ``priority`` is better.
    ``request_class`` numbers the class of a request in ``class_names``; nothing in a run depends
    on it. ``notes`` say in words what the source holds and the table does not.

    In a *closed loop* of ``users`` everyone waits for an answer before asking again. The first
    ``users`` requests arrive at ``arrival_ps``; whenever one ends, the next of the table
    arrives, ``think_ps`` of its own later. With ``next_turn`` it is that request which arrives:
    every user has a conversation of their own, and leaves at its end. The record of such a run
    has a table with the arrivals that came about, in their order.

    A client that *gives up* takes its request back ``give_up_ps`` after it arrived, unless it
    is answered by then: because its time is out where ``is_timeout``, else because the answer
    is not wanted any more.
    """

    arrival_ps: PsArray  # [requests], never decreasing
    prompt_tokens: IntArray  # [requests], each at least 1
    output_tokens: IntArray  # [requests], each at least 1: where generation stops
    segments: SegmentTable | None = None
    output_segment: IntArray | None = None
    priority: IntArray | None = None
    request_id: tuple[str, ...] | None = None
    request_class: IntArray | None = None
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    users: int | None = None  # None: nobody waits for anything
    think_ps: PsArray | None = None
    next_turn: IntArray | None = None  # [requests], NOBODY after a last turn
    give_up_ps: PsArray | None = None  # [requests], above 0, or NEVER_PS; None: nobody does
    is_timeout: npt.NDArray[np.bool_] | None = None  # [requests]; None: all that give up

    def __len__(self) -> int:
        return len(self.arrival_ps)

    def id_of(self, request: int) -> str:
        """Return the name of request number ``request``."""
        return self.request_id[request] if self.request_id is not None else f"r{request}"
