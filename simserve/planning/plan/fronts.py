"""Pareto fronts: plans of which no other is better in one thing and as good in the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

ItemT = TypeVar("ItemT")


def pareto(
    items: Sequence[ItemT], less: Callable[[ItemT], float], also_less: Callable[[ItemT], float]
) -> list[ItemT]:
    """Return the items that nothing dominates, by rising ``less``.

    Both numbers are better the smaller they are. Of items that are equal in both, the first is
    kept.
    """
    best = float("inf")
    front: list[ItemT] = []
    for item in sorted(items, key=lambda one: (less(one), also_less(one))):
        if also_less(item) < best:
            best = also_less(item)
            front.append(item)
    return front
