"""What is asked of a planner, and how long its runs are."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from simserve.errors import InputError
from simserve.inputs.deployment import Deployment, DeploymentSpec
from simserve.inputs.model_catalogue import load_model
from simserve.inputs.plan_spec import PlanSpec
from simserve.inputs.prices import PriceBook
from simserve.inputs.prices_file import Terms
from simserve.inputs.scenario import Scenario
from simserve.inputs.validation import Origins
from simserve.inputs.workload import WorkloadSpec
from simserve.planning.load_tests import LATENCIES_PER_RUN, LONGEST_FACTOR
from simserve.planning.loads import load_dial
from simserve.planning.replications import replication_seed
from simserve.records.requests import RequestTable
from simserve.results.promises import GOOD_SHARE
from simserve.results.samples import MS_PER_S
from simserve.traffic.generate import generate

REPLICATIONS = 20
"""Whole runs of a finalist: 19 or 20 of them keep an SLO that is kept with 95 %."""
FRESH_SEEDS = 10
PROBABILITY = 0.95
MOST_GPUS = 64
# Of a whole run, and at least so many requests: a first look that overload does not survive.
SHORT_SHARE = 0.25
FEWEST_REQUESTS = 1000
# A context is granted in whole pieces of so many tokens.
_CONTEXT_STEP = 1024
# Seeds that no search has seen begin here among the named replications.
_FIRST_FRESH = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The scenario, whose deployment is a stand-in, and what may be deployed instead.

    ``spec`` is what the deployment has in common; ``fixed`` are its keys that the command line
    gives. ``probability`` is that with which a run keeps the SLO.
    """

    scenario: Scenario
    spec: DeploymentSpec
    origins: Origins
    plan: PlanSpec
    prices: PriceBook
    fixed: frozenset[str] = frozenset()
    terms: Terms = "on-demand"
    max_gpus: int = MOST_GPUS
    probability: float = PROBABILITY
    good_share: float = GOOD_SHARE
    replications: int = REPLICATIONS
    fresh_seeds: int = FRESH_SEEDS
    spares: int = 1

    def check(self) -> None:
        """Refuse a question without an answer.

        Raises:
            InputError: if nothing is promised, or an option is out of its range.
        """
        workload = self.scenario.workload
        if self.scenario.slo is None and not any(one.slo for one in workload.classes or ()):
            raise InputError("--slo", None, "no objective", "such as 'ttft_p95:500 tpot_p95:50'")
        arrivals = workload.arrivals
        if arrivals is not None and arrivals.process == "all-at-once":
            raise InputError("workload", "arrivals.process", "all-at-once", "a load that goes on")


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """Makes the scenarios that are run: of every plan with the same requests.

    ``whole`` and ``short`` are numbers of requests, None where the workload has its own.
    """

    scenario: Scenario
    whole: int | None
    short: int | None

    @classmethod
    def of(cls, scenario: Scenario) -> Runs:
        """Return runs long enough to show a load that keeps the SLO."""
        count = scenario.workload.num_requests
        if count is None:
            return cls(scenario=scenario, whole=None, short=None)
        for_latencies, for_conversations = _needed(scenario)
        # Conversations have no such limit: shorter runs would not show their load, but its rise.
        whole = max(count, min(for_latencies, count * LONGEST_FACTOR), for_conversations)
        short = min(whole, max(math.ceil(whole * SHORT_SHARE), FEWEST_REQUESTS))
        return cls(scenario=scenario, whole=whole, short=short)

    def at(self, deployment: Deployment, replicas: int, number: int, *, short: bool) -> Scenario:
        """Return replication ``number`` of a plan with so many replicas of ``deployment``."""
        return dataclasses.replace(
            self.scenario,
            deployment=dataclasses.replace(deployment, replicas=replicas),
            workload=self._workload(self.short if short else self.whole),
            seed=replication_seed(self.scenario.seed, number),
        )

    def requests(self, number: int = 0) -> RequestTable:
        """Return what is asked in replication ``number``, the whole of it."""
        seed = replication_seed(self.scenario.seed, number)
        return generate(self._workload(self.whole), seed)

    def _workload(self, count: int | None) -> WorkloadSpec:
        workload = self.scenario.workload
        return workload if count is None else workload.model_copy(update={"num_requests": count})


def fresh_number(place: int) -> int:
    """Return the number of a replication that only the confirmation runs."""
    return _FIRST_FRESH + place


def _needed(scenario: Scenario) -> tuple[int, int]:
    """Return how many requests come in as many latencies, and conversations, as a run should have.

    The latencies are the longest that the SLO allows a mean request. The second number is 0 where
    nobody waits for an answer before going on.
    """
    arrivals = scenario.workload.arrivals
    if arrivals is None or arrivals.process == "closed-loop":
        return 0, 0
    objectives = () if scenario.slo is None else scenario.slo.objectives
    limits = {one.metric: one.limit_ms / MS_PER_S for one in objectives}
    tokens = float(generate(scenario.workload, scenario.seed).output_tokens.mean())
    latency_s = limits.get("e2el", limits.get("ttft", 0.0) + limits.get("tpot", 0.0) * tokens)
    dial = load_dial(scenario, users=False, think_time_s=None)
    requests_per_s = dial.start * dial.requests_per_arrival
    return (
        math.ceil(requests_per_s * latency_s * LATENCIES_PER_RUN),
        dial.requests_of_conversations(dial.start, latency_s),
    )


def context_tokens(question: Question, runs: Runs) -> int:
    """Return the context that is asked for, or else what the longest request takes.

    Where the workload sets no limit to its lengths, that is the longest of all replications that
    are to be run: none of them is refused for its length.
    """
    if question.spec.max_model_len is not None:
        return question.spec.max_model_len
    workload = runs.scenario.workload
    plain = (workload.prefix, workload.segments, workload.sessions, workload.classes)
    tokens = 0
    if not any(plain) and workload.prompt_tokens is not None and workload.output_tokens is not None:
        ends = [
            one.fixed or one.max or (one.histogram.upto[-1] if one.histogram else None)
            for one in (workload.prompt_tokens, workload.output_tokens)
        ]
        if ends[0] is not None and ends[1] is not None:
            tokens = ends[0] + ends[1]
    if not tokens:
        fresh = map(fresh_number, range(question.fresh_seeds))
        tables = map(runs.requests, (*range(question.replications), *fresh))
        tokens = max(int((one.prompt_tokens + one.output_tokens).max()) for one in tables)
    key = "deployment.model"
    longest = load_model(question.spec.model, question.origins.where(key), key)
    return min(-(-tokens // _CONTEXT_STEP) * _CONTEXT_STEP, longest.max_position_embeddings)
