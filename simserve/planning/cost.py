"""What tokens cost on GPUs of one's own, at the SLO and at the actual load, and at an API.

The fleet is sized by what a replica serves within the SLO. A replica is simulated at that load
and at its share of the actual one; its GPU time says whose the dollars are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from simserve.errors import InputError
from simserve.inputs.deployment import Deployment
from simserve.inputs.prices import (
    GIVEN,
    ApiPrice,
    Offer,
    Power,
    PriceBook,
    age_days,
    thin_choice,
)
from simserve.inputs.scenario import Scenario
from simserve.inputs.sourced import Sourced
from simserve.planning.break_even import Swing
from simserve.planning.capacity import Capacity, find_capacity
from simserve.planning.cost_question import CostQuestion, OffersFor
from simserve.planning.fleet import EVERY_HOUR, MONTHS_PER_YEAR, Bill, FleetRule, monthly_bill
from simserve.planning.operating_point import Load, OperatingPoint, load_of, operate
from simserve.planning.self_host_or_api import ApiComparison, Ranges, compare, swings
from simserve.results.run_facts import assumed_names, remark_of
from simserve.results.token_cost import S_PER_HOUR

_TWO_RUNS = (
    "two recorded vLLM runs beside the simulated ones (docs/validation.md, makespans): measured "
    "over simulated throughput is 0.79 and 1.10"
)
# How far a simulated throughput may be off: the worst that has been compared with measurements.
ROOFLINE_ERROR = (
    Sourced(0.79, "measured", _TWO_RUNS, "2026-11-20"),
    Sourced(1.10, "measured", _TWO_RUNS, "2026-11-20"),
)
_WITH_TABLES = (
    "about three times the error of two recorded runs that were priced from measured tables"
)
TABLES_ERROR = (
    Sourced(0.95, "assumed", _WITH_TABLES, "2026-11-20"),
    Sourced(1.05, "assumed", _WITH_TABLES, "2026-11-20"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaCapacity:
    """The requests/s that one replica serves, who says so, and between which others it lies.

    ``is_known`` is False where it is only the load that the replicas as given have.
    """

    per_s: float
    basis: str
    is_known: bool
    range_per_s: tuple[float, float] | None = None
    range_basis: str = ""
    is_found: bool = False  # by a search that asked for the SLO


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """Joules per output token: GPUs at their limit while busy, and all in, idle hours too."""

    tdp: Sourced | None
    tdp_j_per_output_token: float | None
    all_in: Sourced | None
    all_in_j_per_output_token: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CostReport:
    """The whole answer; ``at_slo`` is None if nobody knows what a replica serves."""

    scenario: Scenario
    question: CostQuestion
    rule: FleetRule
    offers: tuple[Offer, ...]
    capacity: ReplicaCapacity
    rate_per_s: float
    point: OperatingPoint
    now: Bill
    at_slo: Bill | None
    energy: Energy
    apis: tuple[ApiComparison, ...]
    swings: tuple[Swing, ...]
    assumed: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def tokens_per_day(self) -> float:
        """Input and output tokens of a day."""
        per_day = self.rate_per_s * self.question.hours.active * S_PER_HOUR
        return per_day * self.point.tokens_per_request

    @property
    def meets_slo(self) -> bool:
        """Whether the replicas, at their share of the load, keep what is promised.

        A replica whose capacity was found does, whatever chance did to this one run.
        """
        return self.capacity.is_found or self.point.sound


def cost(
    scenario: Scenario,
    question: CostQuestion,
    prices: PriceBook,
    *,
    workers: int = 1,
    on_progress: Callable[[int], None] | None = None,
) -> CostReport:
    """Return what the tokens of ``scenario`` cost, and what an API would ask for them.

    ``on_progress`` is told how many loads were tested in search of a replica's capacity.

    Raises:
        InputError: if a price is unknown, the load cannot be changed as asked, or no replica
            meets the SLO at any load.
    """
    chosen = _apis(scenario, question, prices)
    offers_for = OffersFor(scenario.deployment, question, prices)
    offers_for(1)  # an unknown price is said before anything is simulated
    load = load_of(scenario)
    if load is None:
        capacity, point = _fleet_as_given(scenario, question)
        rate = point.rate_per_s * point.replicas
        rule, offers = _sized(scenario, question, capacity.per_s, rate, offers_for)
    else:
        rate = question.rate_per_s or load.per_s
        capacity = _capacity(scenario, question, load, rate, workers, on_progress)
        rule, offers = _sized(scenario, question, capacity.per_s, rate, offers_for)
        share = rate / rule.serving(rate)
        point = operate(load.on_one_replica(share), share)
    now = monthly_bill(rule, rate, rule.serving(rate), point.time, point.tokens)
    ranges = Ranges(
        offers=tuple(offers),
        throughput_per_s=capacity.range_per_s,
        throughput_basis=capacity.range_basis,
        peak_is_given=question.peak_to_mean is not None or _stated_peak(scenario) is not None,
    )
    apis = compare(chosen, rule, rate, point, ranges)
    remarks = (
        remark_of(scenario.deployment),
        offers_for.dearer_than_on_demand(rule.offer),
        thin_choice([one.usd_per_gpu_hour for one in offers]),
    )
    return CostReport(
        scenario=scenario,
        question=question,
        rule=rule,
        offers=tuple(offers),
        capacity=capacity,
        rate_per_s=rate,
        point=point,
        now=now,
        at_slo=_full_replica(load, rule) if load and capacity.is_known else None,
        energy=_energy(prices.power.get(rule.offer.gpu, Power()), rule, now, point),
        apis=apis,
        swings=swings(apis[0], rule, rate, point, ranges) if apis else (),
        assumed=tuple(_assumed(scenario, question, rule, apis, point)),
        warnings=(*filter(None, remarks), *_warnings(question, rule.offer, apis, point)),
    )


def _fleet_as_given(
    scenario: Scenario, question: CostQuestion
) -> tuple[ReplicaCapacity, OperatingPoint]:
    """Return the run of a load that is no rate, such as so many users: all there is to know."""
    asked = {
        "--rate": question.rate_per_s,
        "--capacity": question.capacity_per_s,
        "--peak-to-mean": question.peak_to_mean,
    }
    for option, value in asked.items():
        if value is not None:
            allowed = "only for a workload with a mean rate: the load of this one is what it is"
            raise InputError(option, None, f"{value:g}", allowed)
    point = operate(scenario)
    basis = "what the replicas as given were asked"
    return ReplicaCapacity(per_s=point.rate_per_s, basis=basis, is_known=False), point


def _capacity(
    scenario: Scenario,
    question: CostQuestion,
    load: Load,
    rate_per_s: float,
    workers: int,
    on_progress: Callable[[int], None] | None,
) -> ReplicaCapacity:
    """Return what a replica serves: as given, as found, or at least its share of the load."""
    given = question.capacity_per_s
    if given is not None:
        return ReplicaCapacity(per_s=given, basis="given: --capacity", is_known=True)
    low, high = _error_of(scenario.deployment)
    if scenario.slo is None:
        share = rate_per_s / scenario.deployment.replicas
        return ReplicaCapacity(
            per_s=share,
            basis="its share of the load as given: there is no SLO to find more",
            is_known=False,
            range_per_s=(share * low.value, share * high.value),
            range_basis=low.source,
        )
    found = find_capacity(load.dial.scenario, workers=workers, on_progress=on_progress)
    if found.load is None:
        raise InputError("--slo", None, str(scenario.slo), "one that a replica meets at some load")
    per_s = load.requests_per_arrival
    return ReplicaCapacity(
        per_s=found.load * per_s,
        basis=f"simulated: the highest load that meets {scenario.slo}",
        is_known=True,
        range_per_s=(
            (found.low or found.load) * per_s * low.value,
            (found.high or found.load) * per_s * high.value,
        ),
        range_basis=f"interval of the search{_open_end(found)}, times {low.source}",
        is_found=True,
    )


def _open_end(found: Capacity) -> str:
    ends = [name for name, end in (("low", found.low), ("high", found.high)) if end is None]
    return f" (its {' and '.join(ends)} end is not known: the answer's own)" if ends else ""


def _sized(
    scenario: Scenario,
    question: CostQuestion,
    capacity_per_s: float,
    rate_per_s: float,
    offers_for: OffersFor,
) -> tuple[FleetRule, list[Offer]]:
    """Return the fleet's rule, at the offer for as many replicas as the load then needs."""
    rule = FleetRule(
        offer=offers_for(1)[0],
        tp=scenario.deployment.tp,
        capacity_per_s=capacity_per_s,
        peak_to_mean=question.peak_to_mean or _stated_peak(scenario) or 1.0,
        spares=question.spares,
        hours=question.hours,
        fixed_usd_per_month=question.fte * question.fte_usd_per_year / MONTHS_PER_YEAR,
    )
    offer, offers = offers_for(rule.serving(rate_per_s) + question.spares)
    return replace(rule, offer=offer), offers


def _full_replica(load: Load, rule: FleetRule) -> Bill:
    """Return the bill of a full machine at the SLO's load, day and night: no spare, no engineer."""
    offer = rule.offer
    serving = 1 if offer.gpus is None else offer.gpus // rule.tp
    full = replace(rule, spares=0, hours=EVERY_HOUR, fixed_usd_per_month=0.0, peak_to_mean=1.0)
    point = operate(load.on_one_replica(rule.capacity_per_s), rule.capacity_per_s)
    return monthly_bill(full, rule.capacity_per_s * serving, serving, point.time, point.tokens)


def _apis(scenario: Scenario, question: CostQuestion, prices: PriceBook) -> list[ApiPrice]:
    if question.apis:
        found = [prices.find_api(name) for name in question.apis]
        return list({one.name: one for one in found}.values())
    return prices.apis_serving(scenario.deployment.model.name, question.today)


def _stated_peak(scenario: Scenario) -> float | None:
    arrivals = scenario.workload.arrivals
    return None if arrivals is None else arrivals.peak_to_mean


def _error_of(deployment: Deployment) -> tuple[Sourced, Sourced]:
    return ROOFLINE_ERROR if deployment.latency == "roofline" else TABLES_ERROR


def _energy(power: Power, rule: FleetRule, bill: Bill, point: OperatingPoint) -> Energy:
    """Return joules per output token of the month."""
    busy_gpu_s = bill.serving * rule.tp * rule.hours.active_per_month * S_PER_HOUR
    busy_gpu_s *= point.time.busy_frac
    paid_gpu_s = bill.gpus_paid * rule.hours.paid_per_month * S_PER_HOUR
    tokens = bill.tokens["output"]
    tdp, all_in = power.tdp_watts, power.all_in_watts
    return Energy(
        tdp=tdp,
        tdp_j_per_output_token=tdp.value * busy_gpu_s / tokens if tdp else None,
        all_in=all_in,
        all_in_j_per_output_token=all_in.value * paid_gpu_s / tokens if all_in else None,
    )


def _assumed(
    scenario: Scenario,
    question: CostQuestion,
    rule: FleetRule,
    apis: tuple[ApiComparison, ...],
    point: OperatingPoint,
) -> list[str]:
    """Return the names of all that the answer rests on and nobody has measured or published."""
    names = assumed_names(scenario.deployment)
    if rule.offer.price.kind == "assumed":
        names.append(f"price of {rule.offer.name}")
    names += [f"price of {one.bill.price.name}" for one in apis if one.bill.price.kind == "assumed"]
    if any(one.bill.price.batch and one.bill.price.batch.kind == "assumed" for one in apis):
        names.append("batch share of the API price")
    if question.peak_to_mean is None and _stated_peak(scenario) is None:
        names.append("peak over mean load")
    if apis and point.tokens.cached_tokens:
        names.append("cache hits at the API")
    return names


def _warnings(
    question: CostQuestion, offer: Offer, apis: tuple[ApiComparison, ...], point: OperatingPoint
) -> list[str]:
    dated = [(offer.name, offer.price.date)] if offer.provider != GIVEN else []
    dated += [(one.bill.price.name, one.bill.price.date) for one in apis]
    warnings = []
    for name, date in dated:
        days = age_days(date, question.today)
        if days > question.most_age_days:
            warnings.append(f"the price of {name} is {days} days old ({date})")
    if point.unanswered_frac:
        warnings.append(
            f"{point.unanswered_frac:.1%} of requests are refused or given up: the others bear "
            "what they cost, and an API is taken to charge nothing for them"
        )
    gone = [one.bill.price for one in apis if one.bill.price.is_retired(question.today)]
    return warnings + [f"{price.name} is listed to end on {price.retired}" for price in gone]
