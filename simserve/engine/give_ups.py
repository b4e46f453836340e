"""Clients that give up: when the next one does, and who has by the end of a step."""

from __future__ import annotations

from heapq import heappop, heappush

from simserve.engine.ledger import RequestLedger
from simserve.records.clock import FAR_PS, NEVER_PS
from simserve.records.run_record import UNFINISHED


class GiveUps:
    """The deadlines of one replica's requests.

    A deadline needs no event of its own: it takes effect when the step ends that is under way
    (vLLM's ``EngineCore._process_aborts_queue``), and only the replica knows when that is.
    """

    def __init__(self, give_up_ps: list[int], ledger: RequestLedger) -> None:
        self._give_up_ps = give_up_ps
        self._status = ledger.status
        self._due: list[tuple[int, int]] = []  # a heap of (deadline, request)

    @classmethod
    def of(cls, ledger: RequestLedger) -> GiveUps | None:
        """Return the deadlines of a run; None if nobody gives up."""
        return None if ledger.give_up_ps is None else cls(ledger.give_up_ps, ledger)

    def expect(self, request: int, arrival_ps: int) -> None:
        """Note when the client of an arriving request will give up."""
        patience_ps = self._give_up_ps[request]
        if patience_ps != NEVER_PS:
            heappush(self._due, (arrival_ps + patience_ps, request))

    def next_ps(self) -> int:
        """Return the next deadline of a request that is not answered; ``FAR_PS`` if none."""
        due, status = self._due, self._status
        while due and status[due[0][1]] != UNFINISHED:
            heappop(due)
        return due[0][0] if due else FAR_PS

    def due(self, now_ps: int) -> list[int]:
        """Take out and return the unanswered requests whose deadline is not after ``now_ps``."""
        given_up = []
        while self.next_ps() <= now_ps:
            given_up.append(heappop(self._due)[1])
        return given_up
