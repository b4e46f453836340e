"""Which plans are left to simulate, and how many each bound removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from simserve.errors import InputError
from simserve.inputs.deployment import Deployment
from simserve.inputs.slo import ClassSlo
from simserve.latency.load import load_latency_model
from simserve.latency.roofline import RooflineModel
from simserve.planning.plan.bounds import Demand, HardwareBounds, LoneBounds, share_within
from simserve.planning.plan.prices import FleetPrices
from simserve.planning.plan.question import Question
from simserve.planning.plan.race import Plan
from simserve.planning.plan.space import Candidate, refuse_what_is_always_wrong
from simserve.results.samples import MS_PER_S

Bound = Literal["impossible", "offer", "memory", "latency", "rate"]
BOUNDS: tuple[Bound, ...] = get_args(Bound)
# Rounding in a sum of some thousand durations; a plan this close to its bound is simulated.
_MARGIN = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """One removed candidate with so many replicas, and by which bound."""

    bound: Bound
    candidate: Candidate
    replicas: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Screening:
    """What is left, cheapest first, and what was removed."""

    candidates: tuple[Candidate, ...]
    plans: tuple[Plan, ...]
    removals: tuple[Removal, ...]
    total: int
    proven: bool  # whether there is a proof for this latency model

    def removed(self, bound: Bound) -> int:
        """Return how many plans a bound removed."""
        return sum(one.bound == bound for one in self.removals)

    def gone(self, bound: Bound) -> int:
        """Return how many candidates a bound removed with every number of replicas."""
        left = {one.candidate.number for one in self.plans}
        return len({one.candidate.number for one in self.removals if one.bound == bound} - left)


def screen(question: Question, found: Sequence[Candidate], demand: Demand) -> Screening:
    """Return the plans that no bound removes, in order of price.

    Raises:
        InputError: if an input is wrong with every candidate, so that there is nothing to plan.
    """
    prices = FleetPrices(question.prices, question.terms)
    bounds = _Bounds(question, demand)
    plans: list[Plan] = []
    removals: list[Removal] = []
    total = 0
    possible: list[Candidate] = []
    first_router = found[0].router if found else ""
    for candidate in found:
        # With one replica there is nothing to divide: one router stands for all.
        fewest = 1 if candidate.router == first_router else 2
        counts = range(fewest, question.max_gpus // candidate.tp + 1)
        if not counts:
            continue
        total += len(counts)
        possible.append(candidate)
        bound, reason = bounds.of(candidate)
        work = 0.0 if bound else bounds.work(candidate)
        least = (0.0, 0.0) if bound else bounds.least_ms(candidate)
        for replicas in counts:
            price = prices.of(candidate.gpu, candidate.tp, replicas)
            gone: Bound | None = bound
            if gone is None and price is None:
                gone, reason = "offer", f"nobody offers {candidate.tp} × {candidate.gpu}"
            elif gone is None and work > replicas * (1 + _MARGIN):
                gone, reason = "rate", f"work for {work:.2f} replicas"
            if gone is not None or price is None:
                removals.append(
                    Removal(
                        bound=gone or "offer", candidate=candidate, replicas=replicas, reason=reason
                    )
                )
            else:
                ttft_ms, tpot_ms = least
                plans.append(
                    Plan(
                        candidate=candidate,
                        replicas=replicas,
                        price=price,
                        work=work,
                        least_ttft_ms=ttft_ms,
                        least_tpot_ms=tpot_ms,
                    )
                )
    refuse_what_is_always_wrong(possible, bounds.wrong, question.plan.vary)
    plans.sort(key=lambda plan: plan.order)
    return Screening(
        candidates=tuple(possible),
        plans=tuple(plans),
        removals=tuple(removals),
        total=total,
        proven=bounds.proven,
    )


class _Bounds:
    """The bounds of candidates; what they have in common is computed once."""

    def __init__(self, question: Question, demand: Demand) -> None:
        self._question, self._demand = question, demand
        classes = question.scenario.workload.classes or ()
        self._classes = [ClassSlo(one.name, one.slo) for one in classes]
        self._hardware: dict[tuple[Any, ...], HardwareBounds] = {}
        self._lone: dict[tuple[Any, ...], LoneBounds] = {}
        self._work: dict[tuple[Any, ...], float] = {}
        self.proven = question.spec.latency == "roofline"
        self.wrong: dict[int, InputError] = {}  # by the number of a candidate

    def of(self, candidate: Candidate) -> tuple[Bound | None, str]:
        """Return which bound removes a candidate whatever its replicas are, and why."""
        deployment = candidate.deployment
        if deployment is None:
            if candidate.error is not None and candidate.fate != "memory":
                self.wrong[candidate.number] = candidate.error
            return candidate.fate or "impossible", str(candidate.error)
        try:
            model = load_latency_model(deployment)
        except InputError as error:
            key = "deployment.latency"
            where = self._question.origins.where(key)
            self.wrong[candidate.number] = InputError(where, key, error.got, error.allowed)
            return "impossible", str(error)
        if not isinstance(model, RooflineModel) or self._demand.sheds:
            return None, ""
        for name, asked, share in self._shares(deployment):
            required = self._question.good_share if asked is None else asked
            if share < required:
                most = f"alone on a replica at most {share:.1%} of requests keep {name}"
                return "latency", most
        return None, ""

    def work(self, candidate: Candidate) -> float:
        """Return how many replicas the requests keep busy, at least; 0 if nothing is proven."""
        deployment, demand = candidate.deployment, self._demand
        shedding = demand.sheds or demand.closed or not demand.span_s
        if deployment is None or not self.proven or shedding:
            return 0.0
        engine = deployment.engine
        key = (
            *_hardware_key(deployment),
            engine.max_num_seqs,
            engine.max_num_batched_tokens,
            engine.max_model_len,
            deployment.kv.usable_tokens,
        )
        if key not in self._work:
            busy_s = self._of_hardware(deployment).busy_s(demand, deployment)
            self._work[key] = busy_s / demand.span_s
        return self._work[key]

    def least_ms(self, candidate: Candidate) -> tuple[float, float]:
        """Return the p99 of TTFT and the mean TPOT that the requests would have alone."""
        if candidate.deployment is None or not self.proven:
            return 0.0, 0.0
        lone = self._alone(candidate.deployment)
        several = lone.tpot_s[lone.tpot_s > 0]
        tpot_s = float(several.mean()) if several.size else 0.0
        return float(np.percentile(lone.ttft_s, 99)) * MS_PER_S, tpot_s * MS_PER_S

    def _alone(self, deployment: Deployment) -> LoneBounds:
        context = deployment.engine.max_model_len
        key = (*_hardware_key(deployment), context)
        if key not in self._lone:
            self._lone[key] = self._of_hardware(deployment).alone(self._demand, context)
        return self._lone[key]

    def _shares(self, deployment: Deployment) -> list[tuple[str, float | None, float]]:
        slo = self._question.scenario.slo
        return share_within(slo, self._classes, self._demand, self._alone(deployment))

    def _of_hardware(self, deployment: Deployment) -> HardwareBounds:
        key = _hardware_key(deployment)
        if key not in self._hardware:
            self._hardware[key] = HardwareBounds(deployment)
        return self._hardware[key]


def _hardware_key(deployment: Deployment) -> tuple[Any, ...]:
    """Return what decides the roofline of a step."""
    model = deployment.model
    weights = None if model.weights is None else model.weights.method
    return deployment.gpu.name, deployment.tp, weights, model.kv_bytes_per_value
