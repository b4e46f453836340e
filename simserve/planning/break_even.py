"""From which load on self-hosting costs less than an API: where both bills are equal.

The API's bill grows with every request; the fleet's in stairs, a replica at a time. So the two
may be equal at several loads: the first is where self-hosting begins to pay, the last where it
pays for good. In between it pays when the newest replica is busy enough.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from simserve.inputs.sourced import Sourced
from simserve.planning.fleet import FleetRule, requests_per_month

MOST_REPLICAS = 2_000
"""Fleets beyond this are not looked at."""


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Mean loads at which both bills are equal, in requests/s; None if they never are."""

    first_per_s: float | None
    for_good_per_s: float | None


def break_even(rule: FleetRule, api_usd_per_request: float) -> BreakEven:
    """Return the loads at which the fleet's bill equals the API's.

    ``for_good_per_s`` is None too if a full replica costs more than the API takes for its
    requests: then stairs may cross the line, but end above it.
    """
    usd_per_rate = api_usd_per_request * requests_per_month(1.0, rule.hours)
    if usd_per_rate <= 0:
        return BreakEven(None, None)
    serving = np.arange(1, MOST_REPLICAS + 1)
    bills = np.array([rule.usd_per_month(int(n)) for n in serving])
    most = np.array([rule.most_rate_per_s(int(n)) for n in serving])
    least = np.append(0.0, most[:-1])
    equal = bills / usd_per_rate
    crosses = np.flatnonzero((least < equal) & (equal <= most))
    if not len(crosses):
        return BreakEven(None, None)
    first, last = float(equal[crosses[0]]), float(equal[crosses[-1]])
    stairs = 1 if rule.offer.gpus is None else rule.offer.gpus // rule.tp  # to a machine
    pays_from_then_on = bool((equal[-stairs:] <= least[-stairs:]).all())
    return BreakEven(first, last if pays_from_then_on else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """One input of the comparison, and how far it may be off; ``basis`` says by whom."""

    name: str
    low: float
    base: float
    high: float
    unit: str
    basis: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Swing:
    """What one input alone does to self-host bill / API bill at the actual load."""

    input: Range
    ratio_at_low: float
    ratio_at_high: float
    break_even_at_low: BreakEven
    break_even_at_high: BreakEven

    @property
    def size(self) -> float:
        """How many times larger the larger ratio is: 1 for an input that does nothing."""
        low, high = sorted((self.ratio_at_low, self.ratio_at_high))
        return high / low if low > 0 else float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Everything that both bills follow from, at one load."""

    rule: FleetRule
    rate_per_s: float
    api_usd_per_request: float

    def ratio(self) -> float:
        """Return the self-host bill over the API bill."""
        own = self.rule.usd_per_month(self.rule.serving(self.rate_per_s))
        asked = self.api_usd_per_request * requests_per_month(self.rate_per_s, self.rule.hours)
        return own / asked if asked > 0 else float("inf")

    def break_even(self) -> BreakEven:
        """Return the loads at which both bills are equal."""
        return break_even(self.rule, self.api_usd_per_request)

    def with_price(self, usd_per_gpu_hour: float) -> Case:
        """Return the case at another price of a GPU, sold as before."""
        offer = self.rule.offer
        price = Sourced(usd_per_gpu_hour * (offer.gpus or 1), "assumed", "range", offer.price.date)
        return replace(self, rule=replace(self.rule, offer=replace(offer, price=price)))

    def with_capacity(self, capacity_per_s: float) -> Case:
        """Return the case with another capacity of a replica."""
        return replace(self, rule=replace(self.rule, capacity_per_s=capacity_per_s))

    def with_peak(self, peak_to_mean: float) -> Case:
        """Return the case with another peak over the mean load."""
        return replace(self, rule=replace(self.rule, peak_to_mean=peak_to_mean))

    def with_api(self, usd_per_request: float) -> Case:
        """Return the case with another price of a request at the API."""
        return replace(self, api_usd_per_request=usd_per_request)


def swing(one: Range, at_low: Case, at_high: Case) -> Swing:
    """Return what the input ``one`` alone does, between its ends."""
    return Swing(
        input=one,
        ratio_at_low=at_low.ratio(),
        ratio_at_high=at_high.ratio(),
        break_even_at_low=at_low.break_even(),
        break_even_at_high=at_high.break_even(),
    )
