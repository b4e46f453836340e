"""Who gets tokens, and who got the last: the engine's side of a request's life.

Only the engine knows how long a request generates. While a request decodes, its end is a date
in a calendar of decode steps (*ticks*), so that a step's deliveries cost nothing for those who
just go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

from simserve.engine.flight import Flight
from simserve.engine.ledger import RequestLedger
from simserve.records.run_record import ABORTED, FINISHED

NOBODY: list[int] = []


class Deliveries:
    """The tokens of one replica's requests."""

    def __init__(self, ledger: RequestLedger) -> None:
        self.ledger = ledger
        self._ticks = 0  # decode steps delivered so far
        self._finish_tick: dict[int, int] = {}  # decoding request -> its last decode step
        self._finishing: dict[int, list[int]] = {}  # decode step -> requests that it finishes
        self._finish_heap: list[int] = []
        self._gap_since: dict[int, int] = {}  # interrupted request -> step of its last token
        self._gone: set[int] = set()  # aborted requests

    def steps_to_finish(self) -> int:
        """Return in how many decode steps the next request finishes."""
        heap = self._finish_heap
        while heap[0] not in self._finishing:
            heappop(heap)
        return heap[0] - self._ticks

    def last_tokens(self, flight: Flight) -> list[int]:
        """Return the requests whose last token the flight's last step samples."""
        plan = flight.plan
        due = self._finishing.get(self._ticks + flight.steps) if plan.decode_seqs else None
        last = NOBODY if due is None else due
        if plan.skipped:
            last = [request for request in last if request not in plan.skipped]
        if plan.prefill_done:
            done, stop = self.ledger.generated_tokens, self.ledger.stop_tokens
            last = last + [r for r in plan.prefill_done if done[r] + 1 == stop[r]]
        return last

    def deliver(self, flight: Flight) -> list[int]:
        """Deliver a flight's tokens; return the requests that got their last."""
        if flight.plan.only_decodes and not self._gap_since:
            self._ticks += flight.steps
            finished = self._finishing.pop(self._ticks, NOBODY)
        else:
            finished = self._deliver_any(flight)
        if finished:
            self._finish(finished, flight.end_ps, flight.first_step + flight.steps - 1)
        return finished

    def _deliver_any(self, flight: Flight) -> list[int]:
        """Deliver the tokens of any step: first ones, last ones, and after interruptions.

        Returns the requests that got their last token.
        """
        plan, end_ps = flight.plan, flight.end_ps
        last_step = flight.first_step + flight.steps - 1
        if plan.preempted:
            self._interrupt_preempted(plan.preempted, last_step)
        finished: list[int] = []
        if plan.decode_seqs:
            self._ticks += flight.steps
            if plan.skipped:
                self._interrupt_skipped(plan.skipped, last_step)
            if self._gap_since:
                self._resume_decoding(plan.skipped, flight.first_step)
            finished += self._finishing.pop(self._ticks, NOBODY)
        elif self._finish_tick:
            for request in self._finish_tick:
                self._gap_since.setdefault(request, last_step - 1)
        for request in plan.prefill_done:
            if not self._gone or request not in self._gone:
                self._deliver_prefill(request, end_ps, last_step, finished)
        return finished

    def abort(self, requests: list[int], flight: Flight) -> None:
        """Let requests go without the token of the flight's last step, which ends now."""
        ledger = self.ledger
        delivered = self._ticks
        if flight.steps > 1:  # all but the last are delivered
            delivered += flight.steps - 1
            self._resume_decoding((), flight.first_step)
        for request in requests:
            self._gone.add(request)
            self._gap_since.pop(request, None)
            ledger.status[request] = ABORTED
            if request in self._finish_tick:
                left = self._unset_finish(request) - delivered
                ledger.generated_tokens[request] = ledger.stop_tokens[request] - left

    def _deliver_prefill(self, request: int, end_ps: int, step: int, finished: list[int]) -> None:
        ledger = self.ledger
        generated = ledger.generated_tokens[request] + 1
        ledger.generated_tokens[request] = generated
        if generated == 1:
            ledger.first_token_ps[request] = end_ps
            ledger.first_token_step[request] = step
        else:
            ledger.note_gap(request, self._gap_since.pop(request), step, False)
        left = ledger.stop_tokens[request] - generated
        if left:
            self._set_finish(request, self._ticks + left)
        else:
            finished.append(request)

    def _set_finish(self, request: int, tick: int) -> None:
        self._finish_tick[request] = tick
        due = self._finishing.get(tick)
        if due is None:
            self._finishing[tick] = [request]
            heappush(self._finish_heap, tick)
        else:
            due.append(request)

    def _unset_finish(self, request: int) -> int:
        tick = self._finish_tick.pop(request)
        due = self._finishing[tick]
        due.remove(request)
        if not due:
            del self._finishing[tick]
        return tick

    def _interrupt_preempted(self, preempted: Sequence[int], step: int) -> None:
        ledger = self.ledger
        for request in preempted:
            ledger.preemptions[request] += 1
            if request in self._finish_tick:
                left = self._unset_finish(request) - self._ticks
                ledger.generated_tokens[request] = ledger.stop_tokens[request] - left
                self._gap_since.setdefault(request, step - 1)

    def _interrupt_skipped(self, skipped: Sequence[int], step: int) -> None:
        for request in skipped:
            if request in self._gone:
                continue
            self._set_finish(request, self._unset_finish(request) + 1)
            self._gap_since.setdefault(request, step - 1)

    def _resume_decoding(self, skipped: Sequence[int], step: int) -> None:
        resumed = [r for r in self._gap_since if r in self._finish_tick and r not in skipped]
        for request in resumed:
            self.ledger.note_gap(request, self._gap_since.pop(request), step, True)

    def _finish(self, finished: list[int], end_ps: int, step: int) -> None:
        ledger = self.ledger
        for request in finished:
            self._finish_tick.pop(request, None)
            ledger.finish_ps[request] = end_ps
            ledger.last_token_step[request] = step
            ledger.generated_tokens[request] = ledger.stop_tokens[request]
            ledger.status[request] = FINISHED
