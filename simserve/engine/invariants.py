"""The laws that every step must obey, for ``--check`` and the tests."""

from __future__ import annotations

from simserve.engine.flight import Flight
from simserve.engine.replica import Replica
from simserve.errors import SimserveError
from simserve.policy.limits import SchedulerLimits
from simserve.policy.scheduler import StepPlan


class LawBrokenError(SimserveError):
    """A law of the simulation does not hold: a bug, here or in a user's policy."""


class LawChecker:
    """Checks each step of a run as it happens, independently of the scheduler's own books."""

    def __init__(self, limits: SchedulerLimits) -> None:
        self._limits = limits
        self._end_ps: dict[int, int] = {}
        self._computed: dict[int, int] = {}  # running request -> tokens in its KV blocks
        self._running: dict[int, set[int]] = {}  # replica -> requests that hold blocks
        self._preempted: set[int] = set()  # and waiting since

    def on_step(self, replica: Replica, flight: Flight, planned_ps: int) -> None:
        """Check a planned step."""
        limits, number, plan = self._limits, replica.number, flight.plan
        start_ps, end_ps = flight.start_ps, flight.end_ps
        self._law(planned_ps <= start_ps, replica, "a step starts before it is planned")
        running = self._running.setdefault(number, set())
        self._law(start_ps >= self._end_ps.get(number, 0), replica, "a step starts in the past")
        self._law(end_ps >= start_ps, replica, "a step ends before it starts")
        self._end_ps[number] = end_ps
        self._law(
            plan.tokens <= limits.max_num_batched_tokens,
            replica,
            f"{plan.tokens} tokens, budget {limits.max_num_batched_tokens}",
        )
        for request in plan.preempted:
            self._law(request in running, replica, f"request {request} preempted, not running")
            running.discard(request)
            self._computed.pop(request, None)
            self._preempted.add(request)
        for request, cached, _ in plan.admitted:
            self._law(request not in running, replica, f"request {request} admitted twice")
            running.add(request)
            self._preempted.discard(request)
            self._computed[request] = cached
        self._account(replica, running)
        self._blocks(replica, running)

    def on_abort(self, replica: Replica, requests: list[int]) -> None:
        """Let go of requests that their clients gave up."""
        for request in requests:
            self._running[replica.number].discard(request)
            self._preempted.discard(request)
            self._computed.pop(request, None)

    def on_complete(self, replica: Replica, plan: StepPlan, finished: list[int]) -> None:
        """Check a delivered step."""
        running = self._running[replica.number]
        for request in finished:
            # With async scheduling the last token may arrive after a preemption.
            may_finish = request in running or (
                self._limits.async_scheduling and request in self._preempted
            )
            self._law(may_finish, replica, f"request {request} finished, not running")
            running.discard(request)
            self._preempted.discard(request)
            self._computed.pop(request, None)
        self._law(
            replica.outstanding == replica.scheduler.running + replica.scheduler.waiting,
            replica,
            f"{replica.outstanding} outstanding = {replica.scheduler.running} running "
            f"+ {replica.scheduler.waiting} waiting",
        )

    def _account(self, replica: Replica, running: set[int]) -> None:
        seen = set()
        for request, new_tokens, past_tokens, decode in replica.scheduler.last_scheduled():
            self._law(request in running, replica, f"request {request} scheduled, not running")
            self._law(request not in seen, replica, f"request {request} scheduled twice")
            seen.add(request)
            computed = self._computed.get(request, 0)
            self._law(
                past_tokens == computed,
                replica,
                f"request {request} goes on at token {past_tokens}, has {computed}",
            )
            self._law(
                new_tokens == 1 or not decode, replica, f"request {request} decodes {new_tokens}"
            )
            self._computed[request] = computed + new_tokens

    def _blocks(self, replica: Replica, running: set[int]) -> None:
        """Blocks in use: at least what the longest needs, at most what all need unshared."""
        size, usable = self._limits.block_size, self._limits.usable_blocks
        held = [-(-self._computed[request] // size) for request in running]
        used = usable - replica.scheduler.free_blocks
        self._law(used >= 0, replica, f"{used} blocks used")
        self._law(used <= sum(held), replica, f"{used} blocks used, {sum(held)} accounted for")
        self._law(used >= max(held, default=0), replica, f"{used} blocks used, one needs more")
        if not self._limits.enable_prefix_caching:
            self._law(used == sum(held), replica, f"{used} blocks used, {sum(held)} needed")
        self._law(len(running) <= self._limits.max_running, replica, f"{len(running)} requests run")

    def _law(self, holds: bool, replica: Replica, what: str) -> None:
        if not holds:
            raise LawBrokenError(
                f"replica {replica.number}, at {replica.now_ps} ps: law broken: {what}"
            )
