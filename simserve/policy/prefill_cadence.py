"""``prefill_schedule_interval``: prefill is held back so that decoding runs uninterrupted.

While anybody decodes, a step may carry prefill only ``interval`` executed steps after the last
one that did. The hold ends early once a step that was free to admit could not empty the waiting
queue (vLLM 0.33.0, ``v1/core/sched/scheduler.py``, "local prefill cadence").
"""

from __future__ import annotations


class PrefillCadence:
    """Counts executed steps and says when prefill is held back."""

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self.holds = False  # in the step that is being planned
        self._executed = 0
        self._last_prefill = -interval
        self._capacity_bound = False
        self._deferred: set[int] = set()  # passed over while waiting, not admitted since

    def begin(self, anybody_decodes: bool) -> None:
        """Decide whether the step now being planned holds prefill back."""
        since = self._executed + 1 - self._last_prefill
        self.holds = anybody_decodes and since < self.interval and not self._capacity_bound

    def pass_over(self, request: int) -> None:
        """Note that the waiting loop passed a request over."""
        self._deferred.add(request)

    def forget(self, request: int) -> None:
        """Note that a request was admitted, or finished while it waited."""
        self._deferred.discard(request)

    def admitted_all(self, waiting: int) -> None:
        """Note how many wait after the waiting loop of a step."""
        if not self.holds:
            self._capacity_bound = waiting > len(self._deferred)

    def end(self, tokens: int, prefilled: bool) -> None:
        """Note that a step was planned, and whether it carries prefill."""
        self._executed += tokens > 0
        if prefilled:
            self._last_prefill = self._executed
