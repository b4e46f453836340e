"""Routers: which replica serves an arriving request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from simserve.policy.scheduler import RequestView


class ReplicaView(NamedTuple):
    """What a router may know of a replica at the instant of an arrival."""

    outstanding: int  # requests sent to it that have not finished
    waiting: int
    free_blocks: int


class Router(Protocol):
    """Chooses a replica for each request."""

    def choose_replica(self, request: RequestView, replicas: Sequence[ReplicaView]) -> int:
        """Return the number of the replica that serves ``request``."""
        ...


class RoundRobin:
    """Each replica in turn."""

    def __init__(self) -> None:
        self._next = 0

    def choose_replica(self, request: RequestView, replicas: Sequence[ReplicaView]) -> int:
        """Return the replica after the last one chosen."""
        chosen = self._next % len(replicas)
        self._next = chosen + 1
        return chosen


class LeastLoaded:
    """The replica with the fewest outstanding requests; the first of equals."""

    def choose_replica(self, request: RequestView, replicas: Sequence[ReplicaView]) -> int:
        """Return the replica with the fewest requests that have not finished."""
        return min(range(len(replicas)), key=lambda i: replicas[i].outstanding)


ROUTERS: dict[str, type[Router]] = {"round-robin": RoundRobin, "least-loaded": LeastLoaded}
"""Routers by the name that a deployment gives."""
