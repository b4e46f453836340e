"""Who the requests around a percentile are, beside all others: what a waterfall cannot say.

A waterfall names whose work a request waited for. A burst, long prompts and one crowded replica
all make it wait for others; they differ in who waits, and when.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from simserve.records.clock import PS_PER_S
from simserve.records.requests import IntArray
from simserve.records.run_record import RunRecord
from simserve.results.token_times import finished_requests

SHORTEST_WINDOW_S = 1.0
"""Arrivals are counted over as long as the latency lasts, and over no less than this."""
_CHANCE = 0.05
"""What happens more often than this without any reason is called chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trait:
    """One property in the mean: of the requests around the percentile, and of all.

    ``replica`` is the one that has most of these, where the trait is the share that it has.
    ``may_be_chance``: so few requests meet as many others, or the same replica, for no reason.
    """

    name: str
    these: float
    all: float
    is_share: bool = False
    replica: int | None = None
    may_be_chance: bool = False

    @property
    def ratio(self) -> float:
        """By how much these differ from all; 1 where all have none of it."""
        return self.these / self.all if self.all else 1.0


PROMPT, OUTPUT, CACHED = "prompt tokens", "output tokens", "prompt tokens in the cache"
ARRIVALS = "requests/s just before them"


def traits(record: RunRecord, who: IntArray, latency_s: float, metric: str) -> tuple[Trait, ...]:
    """Return what sets the requests ``who`` apart from all that finished.

    ``latency_s`` is their mean latency. Prompts that were all computed, and a single replica, are
    not worth a line. Arrivals just before a request matter to its TTFT alone.
    """
    requests, out = record.requests, record.outcomes
    finished = np.flatnonzero(finished_requests(record))
    found = [
        Trait(name=name, these=float(values[who].mean()), all=float(values[finished].mean()))
        for name, values in (
            (PROMPT, requests.prompt_tokens),
            (OUTPUT, out.generated_tokens),
        )
    ]
    if out.cached_tokens[finished].any():
        these, everyone = (
            float(out.cached_tokens[some].sum() / requests.prompt_tokens[some].sum())
            for some in (who, finished)
        )
        found.append(Trait(name=CACHED, these=these, all=everyone, is_share=True))
    if metric == "ttft":
        found += _arrivals(record, who, latency_s)
    replicas = len(record.steps)
    if replicas > 1:
        most = int(np.bincount(out.replica[who], minlength=replicas).argmax())
        these, everyone = (float((out.replica[some] == most).mean()) for some in (who, finished))
        found.append(
            Trait(
                name=f"requests on replica {most}",
                these=these,
                all=everyone,
                is_share=True,
                replica=most,
                may_be_chance=replicas * _probability(these, everyone, len(who)) > _CHANCE,
            )
        )
    return tuple(found)


def _arrivals(record: RunRecord, who: IntArray, latency_s: float) -> list[Trait]:
    """Return how fast requests came before these, and on average; nothing if all came at once."""
    arrival_ps = record.requests.arrival_ps
    lasting_s = float(arrival_ps[-1] - arrival_ps[0]) / PS_PER_S
    if not lasting_s:
        return []
    mean_per_s = (len(arrival_ps) - 1) / lasting_s
    window_ps = round(min(max(latency_s, SHORTEST_WINDOW_S), lasting_s) * PS_PER_S)
    came = who - np.searchsorted(arrival_ps, arrival_ps[who] - window_ps)
    per_s = float(came.mean()) / (window_ps / PS_PER_S)
    seen_s = min(_apart(arrival_ps[who], window_ps) * window_ps / PS_PER_S, lasting_s)
    others = len(arrival_ps) - 1
    share, usual = (min(rate * seen_s / others, 1.0) for rate in (per_s, mean_per_s))
    chance = _probability(share, usual, others)
    return [Trait(name=ARRIVALS, these=per_s, all=mean_per_s, may_be_chance=chance > _CHANCE)]


def _apart(times_ps: IntArray, least_ps: int) -> int:
    """Return how many of the times are as far apart as that: a crowd is seen once."""
    count, before_ps = 0, -math.inf
    for time_ps in np.sort(times_ps).tolist():
        if time_ps - before_ps >= least_ps:
            count, before_ps = count + 1, time_ps
    return count


def _probability(share: float, usual: float, trials: int) -> float:
    """Return Chernoff's bound of how likely it is that at least ``share`` of ``trials`` succeed.

    Each succeeds with the probability ``usual`` (Annals of Mathematical Statistics, 1952).
    """
    if share <= usual:
        return 1.0
    divergence = share * math.log(share / usual)
    if share < 1:
        divergence += (1 - share) * math.log((1 - share) / (1 - usual))
    return math.exp(-trials * divergence)
