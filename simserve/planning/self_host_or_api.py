"""The fleet beside APIs at the actual load: bills, break-even with its band, what decides.

The band takes the best and the worst end of every range at once; a swing moves one input alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from simserve.inputs.prices import ApiPrice, Offer
from simserve.inputs.sourced import Sourced
from simserve.planning.api_bill import ApiBill, api_bill
from simserve.planning.break_even import BreakEven, Case, Range, Swing, swing
from simserve.planning.fleet import FleetRule, requests_per_month
from simserve.planning.operating_point import OperatingPoint

# A sine that never falls below 0 has at most this peak over its mean.
HIGHEST_DAILY_PEAK = Sourced(
    2.0, "assumed", "the highest peak of a daily sine that never falls below 0", "2026-11-20"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """How far the inputs may be off; None or nothing for one that is given."""

    offers: tuple[Offer, ...]  # the offers that the price was chosen from
    throughput_per_s: tuple[float, float] | None  # of a replica
    throughput_basis: str
    peak_is_given: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiComparison:
    """One API beside the fleet, at the actual load; bills are of a month."""

    bill: ApiBill
    usd: float
    batch_usd: float | None
    self_host_ratio: float  # the fleet's bill over the API's
    break_even: BreakEven
    best: BreakEven  # cheap GPUs, high throughput, dear API
    worst: BreakEven  # the opposite


def compare(
    prices: Iterable[ApiPrice],
    rule: FleetRule,
    rate_per_s: float,
    point: OperatingPoint,
    ranges: Ranges,
) -> tuple[ApiComparison, ...]:
    """Return the APIs beside the fleet, cheapest first."""
    requests = requests_per_month(rate_per_s, rule.hours)
    found = []
    for price in prices:
        bill = api_bill(point.usage, price)
        case = Case(rule=rule, rate_per_s=rate_per_s, api_usd_per_request=bill.usd_per_request)
        batch = bill.batch_usd_per_request
        found.append(
            ApiComparison(
                bill=bill,
                usd=bill.usd_per_request * requests,
                batch_usd=None if batch is None else batch * requests,
                self_host_ratio=case.ratio(),
                break_even=case.break_even(),
                best=_end(case, ranges, best=True, api=bill.high_usd_per_request),
                worst=_end(case, ranges, best=False, api=bill.low_usd_per_request),
            )
        )
    return tuple(sorted(found, key=lambda one: (one.usd, one.bill.price.name)))


def _end(case: Case, ranges: Ranges, *, best: bool, api: float) -> BreakEven:
    """Return the break-even with every range at its best end for the fleet, or its worst."""
    pick: Callable[[Iterable[float]], float] = min if best else max
    case = case.with_api(api).with_price(pick(_gpu_prices(case.rule, ranges.offers)))
    if ranges.throughput_per_s is not None:
        case = case.with_capacity(ranges.throughput_per_s[1 if best else 0])
    return case.break_even()


def _gpu_prices(rule: FleetRule, offers: Sequence[Offer]) -> list[float]:
    return [one.usd_per_gpu_hour for one in offers] or [rule.offer.usd_per_gpu_hour]


def swings(
    reference: ApiComparison,
    rule: FleetRule,
    rate_per_s: float,
    point: OperatingPoint,
    ranges: Ranges,
) -> tuple[Swing, ...]:
    """Return what each uncertain input does alone to the two bills, the most decisive first."""
    case = Case(
        rule=rule, rate_per_s=rate_per_s, api_usd_per_request=reference.bill.usd_per_request
    )
    found = [
        *_price_swing(case, ranges),
        *_throughput_swing(case, ranges),
        *_api_swing(case, reference),
        *_peak_swing(case, ranges),
        *_cache_swing(case, reference, point),
    ]
    return tuple(sorted(found, key=lambda one: -one.size))


def _price_swing(case: Case, ranges: Ranges) -> Iterable[Swing]:
    prices = _gpu_prices(case.rule, ranges.offers)
    low, high = min(prices), max(prices)
    if low < high:
        one = Range(
            name="price of a GPU",
            low=low,
            base=case.rule.offer.usd_per_gpu_hour,
            high=high,
            unit="$/GPU-hour",
            basis=f"{len(prices)} offers in the price list",
            kind="imported",
        )
        yield swing(one, case.with_price(low), case.with_price(high))


def _throughput_swing(case: Case, ranges: Ranges) -> Iterable[Swing]:
    if ranges.throughput_per_s is None:
        return
    low, high = ranges.throughput_per_s
    one = Range(
        name="throughput of a replica",
        low=low,
        base=case.rule.capacity_per_s,
        high=high,
        unit="requests/s",
        basis=ranges.throughput_basis,
        kind="simulated",
    )
    yield swing(one, case.with_capacity(low), case.with_capacity(high))


def _api_swing(case: Case, reference: ApiComparison) -> Iterable[Swing]:
    bill = reference.bill
    low, high = bill.low_usd_per_request, bill.high_usd_per_request
    if low < high:
        one = Range(
            name="price of the API",
            low=low,
            base=bill.usd_per_request,
            high=high,
            unit="$/request",
            basis="two price lists disagree",
            kind=bill.price.kind,
        )
        yield swing(one, case.with_api(low), case.with_api(high))


def _peak_swing(case: Case, ranges: Ranges) -> Iterable[Swing]:
    if ranges.peak_is_given:
        return
    base, high = case.rule.peak_to_mean, HIGHEST_DAILY_PEAK
    one = Range(
        name="peak over mean load",
        low=base,
        base=base,
        high=high.value,
        unit="times",
        basis=high.source,
        kind=high.kind,
    )
    yield swing(one, case, case.with_peak(high.value))


def _cache_swing(case: Case, reference: ApiComparison, point: OperatingPoint) -> Iterable[Swing]:
    """The API's own cache may find nothing, or all that an unlimited one would."""
    bound = point.prefix_bound_frac or 0.0
    if not (bound or point.tokens.cached_tokens):
        return
    price = reference.bill.price
    without = api_bill(point.usage.with_hits(0.0), price).usd_per_request
    unlimited = api_bill(point.usage.with_hits(bound), price).usd_per_request
    if without == unlimited:
        return
    one = Range(
        name="cache hits at the API",
        low=0.0,
        base=point.tokens.cached_tokens / point.tokens.prompt_tokens,
        high=bound,
        unit="of prompt tokens",
        basis="none, or those of an unlimited cache",
        kind="assumed",
    )
    yield swing(one, case.with_api(without), case.with_api(unlimited))
