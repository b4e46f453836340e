"""Arrivals that wait for an answer: users who think, ask, and read before they ask again."""

from __future__ import annotations

from dataclasses import fields, replace
from heapq import heappop, heappush

import numpy as np

from simserve.records.requests import NOBODY, IntArray, RequestTable, SegmentTable
from simserve.records.run_record import RunRecord


class Users:
    """Who asks next, and when, now that somebody has an answer.

    With ``next_turn`` everyone goes on with their own conversation; else whoever is free takes
    the next request of the table.
    """

    def __init__(self, users: int, think_ps: IntArray, next_turn: IntArray | None = None) -> None:
        self._think_ps: list[int] = think_ps.tolist()
        self._next_turn: list[int] | None = None if next_turn is None else next_turn.tolist()
        self._next = self.first = min(users, len(self._think_ps))
        self._due_ps: list[int] = []
        self.arrived_ps: dict[int, int] = {}

    def after(self, ended: int, end_ps: int) -> tuple[int, int] | None:
        """Return the next request and when it arrives; None if there is none left."""
        if self._next_turn is not None:
            request = self._next_turn[ended]
            if request == NOBODY:
                return None
        else:
            request = self._next
            if request == len(self._think_ps):
                return None
            self._next = request + 1
        arrival_ps = self.arrived_ps[request] = end_ps + self._think_ps[request]
        heappush(self._due_ps, arrival_ps)
        return request, arrival_ps

    def arrive(self) -> None:
        """Note that the next of those that are due has arrived."""
        heappop(self._due_ps)

    def next_ps(self, otherwise_ps: int) -> int:
        """Return when the next of those that are due arrives."""
        return min(self._due_ps[0], otherwise_ps) if self._due_ps else otherwise_ps


def in_order_of_arrival(record: RunRecord, arrived_ps: dict[int, int]) -> RunRecord:
    """Return the record of a closed loop with its requests in the order in which they came."""
    requests = record.requests
    arrival_ps = requests.arrival_ps.copy()
    arrival_ps[list(arrived_ps)] = list(arrived_ps.values())
    order = np.argsort(arrival_ps, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    ids = requests.request_id
    outcomes = record.outcomes
    return replace(
        record,
        requests=RequestTable(
            arrival_ps=arrival_ps[order],
            prompt_tokens=requests.prompt_tokens[order],
            output_tokens=requests.output_tokens[order],
            segments=_reordered(requests.segments, order),
            output_segment=_taken(requests.output_segment, order),
            priority=_taken(requests.priority, order),
            request_id=None if ids is None else tuple(ids[i] for i in order.tolist()),
            request_class=_taken(requests.request_class, order),
            class_names=requests.class_names,
            notes=requests.notes,
            give_up_ps=_taken(requests.give_up_ps, order),
            is_timeout=None if requests.is_timeout is None else requests.is_timeout[order],
        ),
        outcomes=replace(
            outcomes, **{one.name: getattr(outcomes, one.name)[order] for one in fields(outcomes)}
        ),
        gaps=replace(record.gaps, request=place[record.gaps.request]),
    )


def _taken(column: IntArray | None, order: IntArray) -> IntArray | None:
    return None if column is None else column[order]


def _reordered(table: SegmentTable | None, order: IntArray) -> SegmentTable | None:
    if table is None:
        return None
    sizes = np.diff(table.offsets)[order]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    entries = np.repeat(table.offsets[:-1][order] - offsets[:-1], sizes) + np.arange(offsets[-1])
    return SegmentTable(
        offsets=offsets, segment=table.segment[entries], tokens=table.tokens[entries]
    )
