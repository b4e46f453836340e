"""What is around a replica: the world that it serves, and who looks on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from simserve.engine.flight import Flight
from simserve.policy.scheduler import StepPlan

if TYPE_CHECKING:
    from simserve.engine.replica import Replica


class World(Protocol):
    """What is around a replica."""

    def horizon_ps(self) -> int:
        """Return before when no request arrives."""
        ...

    def on_finish(self, finished: Sequence[int], end_ps: int) -> None:
        """Learn that requests were answered."""
        ...


class StepObserver(Protocol):
    """Looks on while a run is checked; with one attached, every step is a row of its own."""

    def on_step(self, replica: Replica, flight: Flight, planned_ps: int) -> None:
        """See a step that was just planned, at ``planned_ps``."""
        ...

    def on_abort(self, replica: Replica, requests: list[int]) -> None:
        """See requests go that their clients gave up; ``on_complete`` follows."""
        ...

    def on_complete(self, replica: Replica, plan: StepPlan, finished: list[int]) -> None:
        """See a step whose tokens were just delivered."""
        ...
