"""The plan: screen the candidates, race what is left, confirm the winner, look around it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from simserve.planning.plan.backends import Backend
from simserve.planning.plan.bounds import Demand
from simserve.planning.plan.fronts import pareto
from simserve.planning.plan.outcomes import Outcome
from simserve.planning.plan.people import Crowd, Input, at_peak, crowds, inputs_of
from simserve.planning.plan.prices import FleetPrices
from simserve.planning.plan.question import Question, Runs, context_tokens
from simserve.planning.plan.race import FIRST_RUNS, HEAT_RUNS, Plan, Probability, Race
from simserve.planning.plan.screen import Screening, screen
from simserve.planning.plan.space import Axes, Candidate, axes_for, candidates
from simserve.planning.plan.store import OutcomeStore
from simserve.planning.replications import is_random

# Dearer plans than so many times the winner are not looked at for the fronts.
FRONT_PRICE_RATIO = 2.5


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSize:
    """The winner with other numbers of replicas."""

    plan: Plan
    what: str
    probability: Probability


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanAnswer:
    """Everything that was found; ``winner`` is None if no plan keeps the SLO.

    ``unconfirmed`` are plans before it that passed the race and not the fresh seeds. ``settings``
    are plans on the winner's GPUs; the fronts are of plans that keep the SLO. ``alternative``
    costs as much and leaves more of the limits, with a coarser model.
    """

    question: Question
    runs: Runs
    axes: Axes
    context_tokens: int
    screening: Screening
    race: Race
    winner: Plan | None
    alternative: Plan | None
    unconfirmed: tuple[Plan, ...]
    sizes: tuple[FleetSize, ...]
    settings: tuple[Plan, ...]
    price_front: tuple[Plan, ...]
    speed_front: tuple[Plan, ...]
    inputs: tuple[Input, ...]
    crowds: tuple[Crowd, ...]

    def lost_at(self, *stages: str) -> int:
        """Return how many plans failed one of these heats."""
        return sum(one.lost_at in stages for one in self.screening.plans)

    @property
    def priced_out(self) -> int:
        """Plans that were never simulated, for they cost no less than the winner."""
        return sum(one.stage == "waiting" and one.lost_at is None for one in self.screening.plans)


def make_plan(
    question: Question,
    backend: Backend,
    store: OutcomeStore,
    *,
    on_progress: Callable[[int], None] | None = None,
) -> PlanAnswer:
    """Return the cheapest deployment that keeps the SLO, and what surrounds it.

    Raises:
        InputError: if the question cannot be asked, or a run cannot be computed or kept.
    """
    question.check()
    scenario = at_peak(question.scenario, question.plan.audience)
    question = dataclasses.replace(question, scenario=scenario)
    runs = Runs.of(scenario)
    if not is_random(scenario):  # one run is all there is to see
        question = dataclasses.replace(question, replications=1, fresh_seeds=0)
    context = context_tokens(question, runs)
    spec = question.spec.model_copy(update={"max_model_len": context})
    where = question.origins.where("deployment.model")
    axes = axes_for(spec, question.plan, question.prices, question.terms, question.fixed, where)
    found = candidates(axes, spec, question.origins)
    screening = screen(question, found, Demand.of(runs.requests()))
    race = Race(
        runs,
        backend,
        store,
        replications=question.replications,
        probability=question.probability,
        good_share=question.good_share,
        on_progress=on_progress,
    )
    winner, unconfirmed = _winner(race, screening.plans, question)
    around = _Around(question, race, screening, winner)
    settings = around.settings()
    answer = PlanAnswer(
        question=question,
        runs=runs,
        axes=axes,
        context_tokens=context,
        screening=screening,
        race=race,
        winner=winner,
        alternative=around.alternative(),
        unconfirmed=tuple(unconfirmed),
        sizes=around.sizes(),
        settings=settings,
        price_front=around.fronts[0],
        speed_front=around.fronts[1],
        inputs=tuple(inputs_of(race, winner, question.plan)) if winner else (),
        crowds=around.crowds(),
    )
    store.write_table([race.outcomes[key] for key in sorted(race.outcomes)])
    return answer


def _winner(
    race: Race, plans: Sequence[Plan], question: Question
) -> tuple[Plan | None, list[Plan]]:
    """Return the first plan that fresh seeds confirm, and those that they did not."""
    unconfirmed: list[Plan] = []
    for plan in race.winners(plans):
        if race.confirm(plan, question.fresh_seeds):
            return plan, unconfirmed
        unconfirmed.append(plan)
    return None, unconfirmed


class _Around:
    """What there is to know beside the winner: other fleets, other settings, the fronts."""

    def __init__(
        self, question: Question, race: Race, screening: Screening, winner: Plan | None
    ) -> None:
        self._question, self._race = question, race
        self._screening, self._winner = screening, winner
        self._prices = FleetPrices(question.prices, question.terms)
        self._few = min(FIRST_RUNS, question.replications)
        self.fronts = self._fronts()

    def sizes(self) -> tuple[FleetSize, ...]:
        """Return one replica less, the winner, and the spares."""
        winner = self._winner
        if winner is None:
            return ()
        wanted = [(winner.replicas - 1, "one less"), (winner.replicas, "the winner")]
        if self._question.spares:
            spares = self._question.spares
            word = "one spare" if spares == 1 else f"{spares} spares"
            wanted.append((winner.replicas + spares, f"with {word}"))
        plans = [
            (self._with_replicas(winner.candidate, count), what)
            for count, what in wanted
            if count > 0
        ]
        known = [(plan, what) for plan, what in plans if plan is not None]
        self._race.replicate_all([plan for plan, _ in known], self._question.replications)
        return tuple(
            FleetSize(plan=plan, what=what, probability=self._race.probability(plan.runs))
            for plan, what in known
        )

    def settings(self) -> tuple[Plan, ...]:
        """Return plans of the winner's GPUs with every other setting, in order of preference."""
        winner = self._winner
        if winner is None:
            return ()
        same = [
            plan
            for plan in self._screening.plans
            if plan.candidate.gpu == winner.candidate.gpu
            and plan.candidate.tp == winner.candidate.tp
            and plan.replicas == winner.replicas
            and plan.candidate.router == winner.candidate.router
        ]
        self._race.replicate_all(same, self._few)
        return tuple(same)

    def alternative(self) -> Plan | None:
        """Return the plan of the winner's price that leaves more of the limits, if one does."""
        winner = self._winner
        if winner is None:
            return None
        equals = [
            plan
            for plan in self._screening.plans
            if plan.rank[0] == winner.rank[0] and plan.runs and self._race.keeps(plan.runs)
        ]
        best = self._race.by_room(equals)[0]
        return best if self._race.has_more_room(best, winner) else None

    def crowds(self) -> tuple[Crowd, ...]:
        """Return what users see who ask at the same time: of the winner, and of other weights."""
        users = self._question.plan.users
        if self._winner is None or not users:
            return ()
        chosen: dict[object, Plan] = {
            self._winner.candidate.settings.get("quantization"): self._winner
        }
        rest = {
            key: value
            for key, value in self._winner.candidate.settings.items()
            if key != "quantization"
        }
        for plan in self._screening.plans:
            settings = dict(plan.candidate.settings)
            weights = settings.pop("quantization", None)
            if settings == rest and plan.replicas == self._winner.replicas:
                chosen.setdefault(weights, plan)
        return tuple(crowds(self._race, list(chosen.values()), users))

    def _with_replicas(self, candidate: Candidate, count: int) -> Plan | None:
        for plan in self._screening.plans:
            if plan.candidate is candidate and plan.replicas == count:
                return plan
        price = self._prices.of(candidate.gpu, candidate.tp, count)
        return None if price is None else Plan(candidate=candidate, replicas=count, price=price)

    def _fronts(self) -> tuple[tuple[Plan, ...], tuple[Plan, ...]]:
        """Return the fronts of price against TTFT, and of tokens per GPU against per user.

        First from short runs, then from whole ones of those that came out on a front.
        """
        if self._winner is None:
            return (), ()
        fleets = self._affordable(self._winner.price.usd_per_hour * FRONT_PRICE_RATIO)
        while True:
            by_price = pareto(fleets, _usd_per_hour, _p99_ttft_ms)
            by_speed = pareto(fleets, _gpus, _ms_per_token)
            on_front = {id(plan) for plan in (*by_price, *by_speed)}
            new = [one for one in fleets if id(one) in on_front and len(one.runs) < self._few]
            if not new:
                return tuple(by_price), tuple(by_speed)
            self._race.replicate_all(new, self._few)
            fleets = [plan for plan in fleets if not plan.runs or self._race.keeps(plan.runs)]

    def _affordable(self, most_usd_per_hour: float) -> list[Plan]:
        """Return plans that keep the SLO in a short run, of each candidate the cheapest.

        Those are left out whose requests would be behind both fronts if they were alone.
        """
        found: dict[int, Plan] = {}
        plans = [
            plan
            for plan in self._screening.plans
            if plan.price.usd_per_hour <= most_usd_per_hour and plan.lost_at is None
        ]
        for plan in plans:
            if plan.stage != "waiting":
                found.setdefault(plan.candidate.number, plan)
        waiting = [plan for plan in plans if plan.stage == "waiting"]
        while waiting:
            fronts = _Fronts.of(list(found.values()))
            heat: list[Plan] = []
            rest: list[Plan] = []
            taken = set(found)
            for plan in waiting:
                number = plan.candidate.number
                if number in found or fronts.are_before(plan):
                    continue
                if number in taken or len(heat) == HEAT_RUNS:
                    rest.append(plan)
                else:
                    taken.add(number)
                    heat.append(plan)
            if heat:
                self._race.heat(heat)
            for plan in heat:
                if plan.lost_at is None:
                    found[plan.candidate.number] = plan
            waiting = rest
        return sorted(found.values(), key=lambda plan: plan.order)


@dataclass(frozen=True, slots=True)
class _Fronts:
    """The fronts so far, as pairs of numbers that are better the smaller they are."""

    price: list[tuple[float, float]]
    speed: list[tuple[float, float]]

    @classmethod
    def of(cls, plans: Sequence[Plan]) -> _Fronts:
        return cls(
            price=[(_usd_per_hour(one), _p99_ttft_ms(one)) for one in plans],
            speed=[(_gpus(one), _ms_per_token(one)) for one in plans],
        )

    def are_before(self, plan: Plan) -> bool:
        """Whether a plan could not be on either, whatever its requests have to wait for."""
        by_price = any(
            usd <= _usd_per_hour(plan) and ms <= plan.least_ttft_ms for usd, ms in self.price
        )
        return by_price and any(
            gpus <= _gpus(plan) and ms <= plan.least_tpot_ms for gpus, ms in self.speed
        )


def mean_of(outcomes: Sequence[Outcome], metric: str, statistic: str) -> float:
    """Return the mean over runs of a latency's statistic, in ms; infinite if it has none."""
    values = [one.latency_ms.get(metric, {}).get(statistic) for one in outcomes]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else float("inf")


def output_tokens_per_s(plan: Plan) -> float:
    """Return the tokens per second that a plan generates, as its runs show it."""
    seen = plan.seen
    return sum(one.output_tokens_per_s for one in seen) / len(seen)


def _usd_per_hour(plan: Plan) -> float:
    return plan.price.usd_per_hour


def _gpus(plan: Plan) -> float:
    """Return the GPUs that share the tokens of the workload: the same tokens for every plan."""
    return float(plan.gpus)


def _p99_ttft_ms(plan: Plan) -> float:
    return mean_of(plan.seen, "ttft", "p99")


def _ms_per_token(plan: Plan) -> float:
    return mean_of(plan.seen, "tpot", "mean")
