"""How often a kernel is called, and over how many buffers: the arithmetic of a measurement.

The same arithmetic estimates what a plan costs and carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """A replay is some calls in a row, over rotating buffers; it is timed as a whole.

    A captured replay is whole rounds over the buffers (``captures``); else one goes on where
    the one before stopped.

    Replays go on until there are ``replays``, or until they took ``min_s`` and there are
    ``fewest_replays``. ``most_calls`` bounds the nodes of a CUDA graph: capturing one more
    takes the host some 5-50 us. A point is measured a second time, and then flagged, if its
    90th percentile is more than ``noisy_ratio`` of its 10th, or if the GPU's clock was below
    ``slow_clock_frac`` of the session's median. All buffers
    together hold ``cold_caches`` times what the device's last cache does.
    """

    cache_bytes: float
    captures: bool = True
    warm_ups: int = 3
    replays: int = 20
    fewest_replays: int = 5
    min_s: float = 0.020
    most_calls: int = 200
    cold_caches: float = 4.0
    noisy_ratio: float = 1.15
    slow_clock_frac: float = 0.95
    sentinel_every_s: float = 30.0
    repeat_frac: float = 0.05
    point_limit_s: float = 60.0
    start_limit_s: float = 300.0

    def copies(self, cold_bytes: float) -> int:
        """Return how many buffers to rotate through, so that none is found in a cache."""
        if not cold_bytes:
            return 1
        return max(1, min(self.most_calls, ceil(self.cold_caches * self.cache_bytes / cold_bytes)))

    def calls(self, call_s: float, copies: int) -> int:
        """Return the calls of one replay: so many that it takes its share of ``min_s``."""
        wanted = ceil(self.min_s / self.replays / max(call_s, 1e-9))
        if not self.captures:
            return max(1, min(wanted, self.most_calls))
        rounds = max(1, min(ceil(wanted / copies), self.most_calls // copies))
        return copies * rounds

    def replays_of(self, replay_s: float) -> int:
        """Return how many replays are timed, of ``replay_s`` each."""
        enough = ceil(self.min_s / max(replay_s, 1e-9))
        return max(self.fewest_replays, min(self.replays, enough))

    def point_s(self, call_s: float, cold_bytes: float) -> float:
        """Return the seconds of calls that a point of calls of ``call_s`` takes, warm-up included.

        Warm-up is ``warm_ups`` calls and as many replays.
        """
        calls = self.calls(call_s, self.copies(cold_bytes))
        replay_s = calls * call_s
        return self.warm_ups * call_s + (self.warm_ups + self.replays_of(replay_s)) * replay_s
