"""Waiting queues: first come, first served, or by priority.

Both have the same few methods. A request that was taken out before goes back to the front of
the one, and to its own place in the other.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from typing import Generic, Protocol, TypeVar

from simserve.policy.scheduler import RequestView

Request = TypeVar("Request", bound="HasView")


class HasView(Protocol):
    """Whatever a scheduler remembers of a request."""

    view: RequestView


class FcfsQueue(deque[Request], Generic[Request]):
    """In order of arrival; ``queue[0]`` is the head."""

    put_back = deque.appendleft
    take = deque.popleft


class PriorityQueue(list[Request], Generic[Request]):
    """By priority, then arrival, then id; ``queue[0]`` is the head."""

    def append(self, request: Request) -> None:
        """Add a request at its place, behind its equals."""
        insort(self, request, key=rank)

    put_back = append

    def take(self) -> Request:
        """Remove and return the head."""
        return self.pop(0)


def rank(request: HasView) -> tuple[int, int, str]:
    """Return a sort key: who is smaller comes first."""
    return request.view[3:]


WaitingQueue = FcfsQueue[Request] | PriorityQueue[Request]
