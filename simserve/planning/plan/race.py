"""The race to the cheapest plan: short runs first, whole runs of those that are left.

Plans stand in order of price, and all meet the same requests: in one short run, then in a few
whole ones, then in all. The cheapest ones that are not decided go a heat further together. A plan
leaves at the first heat that it fails. Plans of one price that make the model equally coarse go to
the last heat by the room that a few whole runs leave them within the SLO; the first that passes is
the answer. Heats do not depend on how many processes compute them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from simserve.inputs.deployment import Deployment
from simserve.inputs.scenario import Scenario
from simserve.planning.plan.backends import Backend
from simserve.planning.plan.outcomes import Kept, Outcome
from simserve.planning.plan.prices import FleetPrice
from simserve.planning.plan.question import Runs, fresh_number
from simserve.planning.plan.space import Candidate
from simserve.planning.plan.store import OutcomeStore
from simserve.results.attainment import wilson

# Runs that are computed together: enough for some processes, few enough to stop early.
HEAT_RUNS = 16
# Whole runs of the second heat.
FIRST_RUNS = 4
# Of a limit: less is not worth settings that are not the preferred ones, and is within chance.
ROOM_THAT_MATTERS = 0.1
# More runs than this share without a steady state, and the plan has none.
_UNSTEADY_SHARE = 0.5

Stage = Literal["waiting", "short", "some", "all"]


@dataclass(slots=True, kw_only=True)
class Plan:
    """A candidate with so many replicas, its price, and what its runs have shown so far.

    ``stage`` is the last heat that it passed; ``lost_at`` the one that it failed.
    """

    candidate: Candidate
    replicas: int
    price: FleetPrice
    work: float = 0.0  # replicas that are busy all the time, at least
    least_ttft_ms: float = 0.0  # of requests that are alone, the 99th percentile
    least_tpot_ms: float = 0.0  # of the same, the mean
    stage: Stage = "waiting"
    lost_at: Stage | None = None
    short: Outcome | None = None
    runs: list[Outcome] = field(default_factory=list)
    fresh: list[Outcome] = field(default_factory=list)

    @property
    def rank(self) -> tuple[float, int, int]:
        """Cheapest first; of equally dear ones, those that keep the model as it is given."""
        return round(self.price.usd_per_hour, 6), *self.candidate.coarsening

    @property
    def order(self) -> tuple[float, int, int, int, int]:
        """By rank; of one rank the preferred settings first, then the fewer replicas."""
        return *self.rank, self.candidate.number, self.replicas

    @property
    def is_undecided(self) -> bool:
        """Whether a few whole runs have yet to show what it does."""
        return self.lost_at is None and self.stage in ("waiting", "short")

    @property
    def deployment(self) -> Deployment:
        """The deployment of one replica."""
        if self.candidate.deployment is None:
            raise ValueError("a plan needs a deployment that fits")
        return self.candidate.deployment

    @property
    def gpus(self) -> int:
        """GPUs that serve."""
        return self.replicas * self.candidate.tp

    @property
    def seen(self) -> list[Outcome]:
        """The whole runs, or else the short one."""
        return self.runs or ([self.short] if self.short is not None else [])


@dataclass(frozen=True, slots=True)
class Probability:
    """How many of so many runs kept the SLO; ``low`` to ``high`` is Wilson's interval."""

    kept: int
    runs: int
    low: float
    high: float

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], good_share: float) -> Probability:
        """Return the probability that a run keeps its promises, as these show it."""
        kept, runs = sum(one.met(good_share) for one in outcomes), len(outcomes)
        low, high = wilson(kept / runs, runs) if runs else (0.0, 1.0)
        return cls(kept=kept, runs=runs, low=low, high=high)

    @property
    def share(self) -> float:
        """The share of runs that kept it."""
        return self.kept / self.runs if self.runs else 0.0


class Race:
    """Runs heats of plans; outcomes that the store has are not run again."""

    def __init__(
        self,
        runs: Runs,
        backend: Backend,
        store: OutcomeStore,
        *,
        replications: int,
        probability: float,
        good_share: float,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        self.runs, self._backend, self.store = runs, backend, store
        self._replications, self._probability = replications, probability
        self._good_share, self._on_progress = good_share, on_progress
        self.outcomes: dict[str, Outcome] = {}

    def winners(self, plans: Sequence[Plan]) -> Iterator[Plan]:
        """Yield the plans, in their order, that pass every heat; of one rank by their room."""
        at = 0
        for _, group in itertools.groupby(plans, key=lambda plan: plan.rank):
            equals = list(group)
            while any(plan.is_undecided for plan in equals):
                self.heat(self._undecided(plans[at:]))
            at += len(equals)
            for plan in self.by_room(equals):
                if plan.stage != "all":
                    self.heat([plan])
                if plan.lost_at is None:
                    yield plan

    def used_of_slo(self, plan: Plan) -> float:
        """Return how much of a limit the plan uses, of the promise that it is closest to."""
        of_promise: dict[str, list[Kept]] = {}
        for kept in (kept for one in plan.seen for kept in one.kept):
            of_promise.setdefault(kept.name, []).append(kept)
        return max(map(_used, of_promise.values()), default=0.0)

    def has_more_room(self, plan: Plan, other: Plan) -> bool:
        """Whether a plan leaves more of the limits than another, by an amount that matters."""
        return self.used_of_slo(plan) < self.used_of_slo(other) - ROOM_THAT_MATTERS

    def by_room(self, equals: Sequence[Plan]) -> list[Plan]:
        """Return who is left: first, as preferred, those about as far from the limits as any."""
        left = [plan for plan in equals if plan.lost_at is None]
        best = min(left, key=self.used_of_slo, default=None)
        return sorted(left, key=lambda plan: best is not None and self.has_more_room(best, plan))

    def heat(self, plans: Sequence[Plan]) -> None:
        """Run the next heat of each plan, all of them together."""
        numbers = {id(plan): self._next(plan) for plan in plans}
        tasks = [
            self._task(plan, number, short=plan.stage == "waiting")
            for plan in plans
            for number in numbers[id(plan)]
        ]
        found = iter(self.run(tasks))
        for plan in plans:
            self._advance(plan, [next(found) for _ in numbers[id(plan)]])

    def confirm(self, plan: Plan, seeds: int) -> bool:
        """Run seeds that nothing was chosen by; return whether they keep the SLO as asked."""
        tasks = [self._task(plan, fresh_number(at), short=False) for at in range(seeds)]
        plan.fresh = self.run(tasks)
        return not seeds or self._is_enough(plan.fresh)

    def replicate(self, plan: Plan, count: int) -> list[Outcome]:
        """Return the first ``count`` whole runs of a plan, whatever they show."""
        numbers = range(len(plan.runs), count)
        plan.runs += self.run([self._task(plan, number, short=False) for number in numbers])
        return plan.runs[:count]

    def replicate_all(self, plans: Sequence[Plan], count: int) -> None:
        """Let every plan have ``count`` whole runs, all computed together."""
        tasks, owners = [], []
        for plan in plans:
            for number in range(len(plan.runs), count):
                tasks.append(self._task(plan, number, short=False))
                owners.append(plan)
        for plan, outcome in zip(owners, self.run(tasks), strict=True):
            plan.runs.append(outcome)

    def run(self, tasks: Sequence[Scenario]) -> list[Outcome]:
        """Return the outcome of every task, in their order; each is kept when it is there."""
        digests = [task.digest() for task in tasks]
        self.outcomes |= self.store.get_all(digests)
        todo: dict[str, Scenario] = {}
        for digest, task in zip(digests, tasks, strict=True):
            if digest not in self.outcomes:
                todo.setdefault(digest, task)
        for _, outcome in self._backend.outcomes(list(todo.values())):
            self.store.put(outcome)
            self.outcomes[outcome.digest] = outcome
            if self._on_progress is not None:
                self._on_progress(len(self.outcomes))
        return [self.outcomes[digest] for digest in digests]

    def probability(self, outcomes: Sequence[Outcome]) -> Probability:
        """Return the probability that a run keeps its promises."""
        return Probability.of(outcomes, self._good_share)

    def keeps(self, outcomes: Sequence[Outcome]) -> bool:
        """Whether most runs are steady, and as many as is asked for keep the SLO."""
        return self._is_enough(outcomes)

    def steadily_kept(self, outcomes: Sequence[Outcome]) -> int:
        """Return of how many runs the steady part keeps the SLO."""
        return sum(one.met_when_steady(self._good_share) for one in outcomes)

    def _task(self, plan: Plan, number: int, *, short: bool) -> Scenario:
        return self.runs.at(plan.deployment, plan.replicas, number, short=short)

    def _next(self, plan: Plan) -> range:
        """Return which replications the next heat of a plan runs."""
        if plan.stage == "waiting":
            return range(1)
        stop = min(FIRST_RUNS, self._replications) if plan.stage == "short" else self._replications
        return range(len(plan.runs), stop)

    def _advance(self, plan: Plan, outcomes: Sequence[Outcome]) -> None:
        if plan.stage == "waiting":
            plan.short = outcomes[0]
            passed = not plan.short.surely_missed(self._good_share)
            _pass(plan, "short", passed)
            return
        plan.runs += outcomes
        stage: Stage = "all" if len(plan.runs) >= self._replications else "some"
        _pass(plan, stage, self._is_enough(plan.runs) if stage == "all" else self._may(plan.runs))

    def _undecided(self, plans: Sequence[Plan]) -> list[Plan]:
        """Return the next plans to run: none behind the rank of one that may be the answer."""
        chosen: list[Plan] = []
        runs = 0
        rank = None
        for plan in plans:
            if plan.lost_at is not None:
                continue
            if rank is not None and plan.rank != rank:
                break
            if not plan.is_undecided:
                rank = plan.rank
                continue
            runs += len(self._next(plan))
            if chosen and runs > HEAT_RUNS:
                break
            chosen.append(plan)
        return chosen

    def _may(self, runs: Sequence[Outcome]) -> bool:
        """Whether the runs that are to come could still make it enough."""
        missed = sum(not one.met(self._good_share) for one in runs)
        return self._replications - missed >= self._probability * self._replications

    def _is_enough(self, runs: Sequence[Outcome]) -> bool:
        unsteady = sum(not one.steady for one in runs)
        kept = sum(one.met(self._good_share) for one in runs)
        return unsteady <= _UNSTEADY_SHARE * len(runs) and kept >= self._probability * len(runs)


def _used(kept: Sequence[Kept]) -> float:
    """Return how much of the limit of one promise is used, in the mean over runs."""
    return sum(math.inf if one.used is None else one.used for one in kept) / len(kept)


def _pass(plan: Plan, stage: Stage, passed: bool) -> None:
    if passed:
        plan.stage = stage
    else:
        plan.lost_at = stage
