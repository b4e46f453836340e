"""Waiting queues: first come, first served, or by priority.

Both have the same few methods. A request that was taken out before goes back to the front of
the one, and to its own place in the other.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from typing import Any, Generic, Protocol, TypeVar

Request = TypeVar("Request", bound="SupportsLessThan")


class SupportsLessThan(Protocol):
    """Anything that has an order."""

    def __lt__(self, other: Any, /) -> bool: ...


class FcfsQueue(deque[Request], Generic[Request]):
    """In order of arrival; ``queue[0]`` is the head."""

    put_back = deque.appendleft
    take = deque.popleft


class PriorityQueue(list[Request], Generic[Request]):
    """In the order of the requests' ``<``; ``queue[0]`` is the head."""

    def append(self, request: Request) -> None:
        """Add a request at its place, behind its equals."""
        insort(self, request)

    put_back = append

    def take(self) -> Request:
        """Remove and return the head."""
        return self.pop(0)


WaitingQueue = FcfsQueue[Request] | PriorityQueue[Request]
