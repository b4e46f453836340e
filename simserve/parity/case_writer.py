"""What a run did, written down in the form of a case's records."""

from __future__ import annotations

from collections import deque

from simserve.engine.flight import Flight
from simserve.engine.replica import Replica
from simserve.errors import SimserveError
from simserve.parity.case import Case
from simserve.parity.case_file import Record
from simserve.policy.scheduler import StepPlan
from simserve.records.clock import NEVER_PS, PS_PER_NS, PsArray
from simserve.records.run_record import RunRecord


class CaseWriter:
    """Writes down every step in the form of a case's step records.

    After ``most_steps`` it raises: requests then preempt each other without end.
    """

    def __init__(self, most_steps: int | None = None) -> None:
        self._most_steps = most_steps
        self.records: list[Record] = []
        self._open: deque[tuple[Record, list[int]]] = deque()  # planned, not completed

    def on_step(self, replica: Replica, flight: Flight, planned_ps: int) -> None:
        """Note a planned step."""
        if self._most_steps is not None and len(self.records) >= self._most_steps:
            raise SimserveError(f"livelock: nothing ends within {self._most_steps} steps")
        scheduler, plan = replica.scheduler, flight.plan
        scheduled = scheduler.last_scheduled()
        self.records.append(
            {
                "type": "step",
                "step": len(self.records),
                "t_sched": planned_ps // PS_PER_NS,
                "t_start": flight.start_ps // PS_PER_NS,
                "t_end": flight.end_ps // PS_PER_NS,
                "tokens": sum(entry.new_tokens for entry in scheduled),
                "ctx": sum(entry.new_tokens + entry.past_tokens for entry in scheduled),
                "sched": [
                    e.request if e.decode else [e.request, e.new_tokens, e.past_tokens]
                    for e in scheduled
                ],
                "admitted": [[a.request, a.cached_tokens, int(a.resumed)] for a in plan.admitted],
                "preempted": list(plan.preempted),
                "running": scheduler.running,
                "waiting": scheduler.waiting,
                "free": scheduler.free_blocks,
                "cached": getattr(scheduler, "cached_contents", None),
            }
        )
        self._open.append((self.records[-1], [entry.request for entry in scheduled]))

    def on_abort(self, replica: Replica, requests: list[int]) -> None:
        """Note whose clients gave up while a step ran."""
        self._open[0][0]["aborted"] = sorted(requests)

    def on_complete(self, replica: Replica, plan: StepPlan, finished: list[int]) -> None:
        """Note what a delivered step finished."""
        record, order = self._open.popleft()
        record["finished"] = sorted(finished, key=order.index)
        record["free_end"] = replica.scheduler.free_blocks


def request_records(case: Case, run: RunRecord) -> list[Record]:
    """Return the request records of a run, in the order of the case."""
    outcomes = run.outcomes

    def ns(column: PsArray, request: int) -> int | None:
        ps = int(column[request])
        return None if ps == NEVER_PS else ps // PS_PER_NS

    return [
        {
            "type": "request",
            "i": i,
            "id": case.requests.id_of(i),
            "arrival": int(case.requests.arrival_ps[i]) // PS_PER_NS,
            "prompt_tokens": int(case.requests.prompt_tokens[i]),
            "output_tokens": int(outcomes.generated_tokens[i]),
            "first_scheduled": ns(outcomes.first_scheduled_ps, i),
            "first_token": ns(outcomes.first_token_ps, i),
            "finish": ns(outcomes.finish_ps, i),
            "preemptions": int(outcomes.preemptions[i]),
            "cached_tokens": int(outcomes.cached_tokens[i]),
        }
        for i in range(len(case.requests))
    ]
