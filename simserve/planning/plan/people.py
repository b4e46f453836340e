"""From people to a load and back: the busiest hour of an audience, and users who ask at once.

How many people ask, how often, and how long their texts are is assumed before there is a service.
So each of these has a range, and the winner is looked at both ends of every one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from simserve.inputs.plan_spec import AudienceSpec, PlanSpec, RangedNumber
from simserve.inputs.scenario import Scenario
from simserve.inputs.workload import ArrivalsSpec, HistogramSpec, LengthSpec
from simserve.planning.loads import requests_per_arrival
from simserve.planning.plan.outcomes import Outcome
from simserve.planning.plan.race import Plan, Race
from simserve.planning.replications import replication_seed

# Runs at every end of a range, and for every number of users.
RUNS = 4
# Requests of a closed loop: so many in all, or so many of each user.
FEWEST_REQUESTS, REQUESTS_PER_USER = 400, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """What the winner does at one end of a range."""

    value: float
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A named number that the load rests on, and what becomes of the winner within its range."""

    name: str
    number: RangedNumber
    low: End
    high: End


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """So many users who ask one question after the other, and what they see of a plan.

    ``kept`` counts the runs whose steady part keeps the SLO: at first everybody asks at once.
    """

    plan: Plan
    users: int
    outcomes: tuple[Outcome, ...]
    kept: int


def at_peak(scenario: Scenario, audience: AudienceSpec | None) -> Scenario:
    """Return the scenario at the rate of the audience's busiest hour."""
    if audience is None:
        return scenario
    return _at_rate(scenario, audience.peak_rate_per_s())


def inputs_of(race: Race, plan: Plan, spec: PlanSpec) -> list[Input]:
    """Return the named inputs, each moved to both ends of its range, one at a time."""
    ends: list[tuple[str, RangedNumber, float, Scenario]] = []
    base = race.runs.at(plan.deployment, plan.replicas, 0, short=False)
    audience = spec.audience
    if audience is not None:
        each, share = audience.requests_per_user_per_day, audience.peak_hour_share
        for value in (each.low, each.high):
            moved = _at_rate(base, audience.peak_rate_per_s(requests_per_user=value))
            ends.append(("requests per user and day", each, value, moved))
        for value in (share.low, share.high):
            moved = _at_rate(base, audience.peak_rate_per_s(share=value))
            ends.append(("share of the busiest hour", share, value, moved))
    factors = (("prompt_tokens", spec.prompt_factor), ("output_tokens", spec.output_factor))
    for which, factor in factors:
        for value in (factor.low, factor.high) if factor is not None else ():
            name = f"{which.replace('_', ' ')}, times"
            if factor is not None:
                ends.append((name, factor, value, _with_lengths(base, which, value)))
    tasks = [_replicated(scenario, at) for *_, scenario in ends for at in range(RUNS)]
    found = iter(race.run(tasks))
    known = [
        (name, number, End(value=value, outcomes=tuple(next(found) for _ in range(RUNS))))
        for name, number, value, _ in ends
    ]
    return [
        Input(name=name, number=number, low=low, high=high)
        for (name, number, low), (_, _, high) in zip(known[::2], known[1::2], strict=True)
    ]


def crowds(race: Race, plans: Sequence[Plan], users: Sequence[int]) -> list[Crowd]:
    """Return what so many users see who ask again as soon as they are answered."""
    places = [(plan, count) for plan in plans for count in users]
    tasks = [
        _replicated(_crowded(race, plan, count), at) for plan, count in places for at in range(RUNS)
    ]
    found = iter(race.run(tasks))
    known = [(plan, count, tuple(next(found) for _ in range(RUNS))) for plan, count in places]
    return [
        Crowd(plan=plan, users=count, outcomes=outcomes, kept=race.steadily_kept(outcomes))
        for plan, count, outcomes in known
    ]


def _crowded(race: Race, plan: Plan, users: int) -> Scenario:
    base = race.runs.at(plan.deployment, plan.replicas, 0, short=False)
    arrivals = ArrivalsSpec(process="closed-loop", users=users, think_time_s=0.0)
    update = {
        "arrivals": arrivals,
        "num_requests": max(FEWEST_REQUESTS, users * REQUESTS_PER_USER),
        "duration_s": None,
    }
    return dataclasses.replace(base, workload=base.workload.model_copy(update=update))


def _replicated(scenario: Scenario, number: int) -> Scenario:
    return dataclasses.replace(scenario, seed=replication_seed(scenario.seed, number))


def _at_rate(scenario: Scenario, rate_per_s: float) -> Scenario:
    """Return the scenario with so many *requests* per second, whatever arrives."""
    arrivals = scenario.workload.arrivals
    if arrivals is None:
        return scenario
    per_s = rate_per_s / requests_per_arrival(scenario.workload)
    workload = scenario.workload.model_copy(
        update={"arrivals": arrivals.model_copy(update={"rate_per_s": per_s})}
    )
    return dataclasses.replace(scenario, workload=workload)


def _with_lengths(scenario: Scenario, which: str, factor: float) -> Scenario:
    spec: LengthSpec | None = getattr(scenario.workload, which)
    if spec is None:
        return scenario
    workload = scenario.workload.model_copy(update={which: _scaled(spec, factor)})
    return dataclasses.replace(scenario, workload=workload)


def _scaled(spec: LengthSpec, factor: float) -> LengthSpec:
    """Return lengths ``factor`` times as long; ``min`` and ``max`` stay, as limits do."""
    if spec.fixed is not None:
        return LengthSpec(fixed=max(1, round(spec.fixed * factor)))
    if spec.histogram is not None:
        upto = tuple(max(1, round(one * factor)) for one in spec.histogram.upto)
        histogram = HistogramSpec(
            upto=upto, weights=spec.histogram.weights, above=round(spec.histogram.above * factor)
        )
        return spec.model_copy(update={"histogram": histogram})
    median, p95 = spec.median or 1.0, spec.p95 or 2.0
    return spec.model_copy(update={"median": median * factor, "p95": p95 * factor})
