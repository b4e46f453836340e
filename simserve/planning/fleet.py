"""A fleet and its month: replicas for the peak, spares, paid hours, and where the money goes.

The fleet has one size all day; nothing is switched off but in the hours that are not paid.
Every dollar of the bill is on exactly one line, and the lines that made no token (idle, hours
without traffic, spares, GPUs that a machine has too many) are spread over those that did.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from simserve.inputs.prices import Offer
from simserve.results.token_cost import S_PER_HOUR, TOKENS_PER_MTOK, GpuTime, TokenCount

DAYS_PER_MONTH = 365 / 12
MONTHS_PER_YEAR = 12
HOURS_PER_DAY = 24.0
TOKEN_KINDS = ("input", "cached_input", "output")
# 1 over the largest float step of a division: a load of exactly n replicas needs n, not n + 1.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """Hours of a day: with traffic, and paid for."""

    active: float = HOURS_PER_DAY
    paid: float = HOURS_PER_DAY

    @property
    def active_per_month(self) -> float:
        """Hours of a month with traffic."""
        return self.active * DAYS_PER_MONTH

    @property
    def paid_per_month(self) -> float:
        """Hours of a month that are paid for."""
        return self.paid * DAYS_PER_MONTH


EVERY_HOUR = Hours()


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRule:
    """How many replicas a load needs, and what they cost.

    ``capacity_per_s`` is what one replica serves within the SLO; the fleet is sized for
    ``peak_to_mean`` times the mean load of the active hours, plus ``spares``.
    """

    offer: Offer
    tp: int
    capacity_per_s: float
    peak_to_mean: float
    spares: int
    hours: Hours
    fixed_usd_per_month: float = 0.0

    def serving(self, rate_per_s: float) -> int:
        """Return the replicas that a mean load needs at its peak: at least one."""
        needed = rate_per_s * self.peak_to_mean / self.capacity_per_s
        return max(1, math.ceil(needed * (1 - _ROUNDING)))

    def most_rate_per_s(self, serving: int) -> float:
        """Return the highest mean load that ``serving`` replicas carry."""
        return serving * self.capacity_per_s / self.peak_to_mean

    def usd_per_month(self, serving: int) -> float:
        """Return the bill of a month: ``serving`` replicas, spares, and what is fixed."""
        per_hour = self.offer.usd_per_hour(serving + self.spares, self.tp)
        return per_hour * self.hours.paid_per_month + self.fixed_usd_per_month


def requests_per_month(rate_per_s: float, hours: Hours) -> float:
    """Return the requests of a month at a mean rate in the active hours."""
    return rate_per_s * hours.active_per_month * S_PER_HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """One month: every dollar on one line, and what a million tokens cost.

    ``lines`` has the token kinds (GPU time in steps) and then the overheads. ``attributed``
    spreads the overheads over the token kinds in proportion; both sum to ``usd``.
    """

    usd: float
    lines: dict[str, float]
    attributed: dict[str, float]
    usd_per_mtok: dict[str, float | None]
    requests: float
    tokens: dict[str, float]
    serving: int
    spares: int
    gpus_paid: int

    @property
    def usd_per_request(self) -> float:
        """The bill over its requests."""
        return self.usd / self.requests

    @property
    def blended_usd_per_mtok(self) -> float:
        """The bill over all tokens, input and output alike."""
        return self.usd / sum(self.tokens.values()) * TOKENS_PER_MTOK

    @property
    def overhead_frac(self) -> float:
        """The share of the bill that was not spent inside steps."""
        return 1 - sum(self.lines[kind] for kind in TOKEN_KINDS) / self.usd


def monthly_bill(
    rule: FleetRule, rate_per_s: float, serving: int, time: GpuTime, tokens: TokenCount
) -> Bill:
    """Return the bill of ``serving`` replicas that share ``rate_per_s``.

    ``time`` and ``tokens`` are of a run at the load that one of them then has: they say how
    an active hour divides, and how many tokens of each kind a request brings.
    """
    hours, replica = rule.hours, rule.offer.usd_per_gpu_hour * rule.tp
    gpus = rule.offer.gpus_paid(serving + rule.spares, rule.tp)
    active = serving * hours.active_per_month * replica
    unused = gpus - (serving + rule.spares) * rule.tp
    # Without a first-time hit, what was found was a preempted prompt: input, computed again.
    cached_ps = time.cached_ps if tokens.cached_tokens else 0
    lines = {
        "input": active * (time.input_ps + time.cached_ps - cached_ps) / time.total_ps,
        "cached_input": active * cached_ps / time.total_ps,
        "output": active * time.output_ps / time.total_ps,
        "idle": active * time.idle_ps / time.total_ps,
        "hours_without_traffic": serving
        * (hours.paid_per_month - hours.active_per_month)
        * replica,
        "spares": rule.spares * hours.paid_per_month * replica,
        "unused_gpus": unused * hours.paid_per_month * rule.offer.usd_per_gpu_hour,
        "engineering": rule.fixed_usd_per_month,
    }
    usd = rule.usd_per_month(serving)
    direct = sum(lines[kind] for kind in TOKEN_KINDS)
    attributed = {kind: usd * lines[kind] / direct for kind in TOKEN_KINDS}
    requests = requests_per_month(rate_per_s, hours)
    per_request = requests / tokens.requests
    counts = {
        "input": tokens.input_tokens * per_request,
        "cached_input": tokens.cached_tokens * per_request,
        "output": tokens.output_tokens * per_request,
    }
    return Bill(
        usd=usd,
        lines=lines,
        attributed=attributed,
        usd_per_mtok={
            kind: attributed[kind] / counts[kind] * TOKENS_PER_MTOK if counts[kind] else None
            for kind in TOKEN_KINDS
        },
        requests=requests,
        tokens=counts,
        serving=serving,
        spares=rule.spares,
        gpus_paid=gpus,
    )
