"""A scenario's load in requests per second, and what one replica does at such a load.

The replica is simulated, its GPU time attributed, its tokens counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from simserve.errors import InputError
from simserve.inputs.scenario import Scenario
from simserve.inputs.workload import ArrivalProcess, ArrivalsSpec
from simserve.latency.load import load_latency_model
from simserve.planning.api_bill import Usage, usage_of
from simserve.planning.loads import LoadDial, load_dial
from simserve.planning.run_scenario import run
from simserve.results.result import Result
from simserve.results.token_cost import GpuTime, TokenCount, attribute, count_served
from simserve.results.warmup import full_until_ps
from simserve.traffic.generate import generate
from simserve.traffic.replay import mean_rate_per_s

STEADY_REQUESTS = 3000
"""So many show a steady load, as in the shipped chat workload."""
_STEADY = ("poisson", "constant", "gamma")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """A run at ``rate_per_s`` requests per second on each of ``replicas``.

    ``tokens`` and ``usage`` are of all requests that came: those of ``unanswered_frac`` of them,
    who were refused or gave up, got nothing that counts.
    """

    rate_per_s: float
    replicas: int
    time: GpuTime
    tokens: TokenCount
    usage: Usage
    verdict: str
    sound: bool  # an operating point that meets the SLO, if there is one
    reason: str
    prefix_bound_frac: float | None
    unanswered_frac: float = 0.0

    @property
    def tokens_per_request(self) -> float:
        """Input and output tokens of a request on average."""
        return self.tokens.tokens / self.tokens.requests


def operate(scenario: Scenario, rate_per_s: float | None = None) -> OperatingPoint:
    """Return what a run of ``scenario`` as it stands shows.

    ``rate_per_s`` is the load of all its replicas, if that is known; else it is what arrived.

    Raises:
        InputError: if no request finished, so that nothing can be divided among tokens.
    """
    result = run(scenario)
    tokens = count_served(result.record)
    if not tokens.requests:
        raise InputError(scenario.name, "workload", "no request that finishes", "at least one")
    came = len(result.record.requests)
    offered = result.metrics.offered_rate_per_s or result.metrics.request_throughput
    return OperatingPoint(
        rate_per_s=(rate_per_s or offered) / scenario.deployment.replicas,
        replicas=scenario.deployment.replicas,
        time=attribute(
            result.record, load_latency_model(scenario.deployment), _comes_until_ps(result)
        ),
        tokens=replace(tokens, requests=came),
        usage=usage_of(result.record),
        verdict=result.verdict.name,
        sound=_is_sound(result),
        reason=_reason(result),
        prefix_bound_frac=result.prefix_bound_frac,
        unanswered_frac=1 - tokens.requests / came,
    )


def _comes_until_ps(result: Result) -> int:
    """Return until when the load is there: what comes after it is the end of the run, not idle."""
    return full_until_ps(result.record, result.record.meta.users)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much a scenario asks of one replica, and how to ask for another amount.

    The dial turns arrivals; of conversations each is ``requests_per_arrival`` requests.
    """

    dial: LoadDial
    per_s: float  # requests per second, of all replicas of the scenario
    requests_per_arrival: float

    def on_one_replica(self, rate_per_s: float) -> Scenario:
        """Return the scenario with one replica that gets ``rate_per_s`` requests per second."""
        return self.dial.at(
            rate_per_s / self.requests_per_arrival, self.dial.scenario.workload.num_requests
        )


def load_of(scenario: Scenario) -> Load | None:
    """Return the load of a scenario; None if it is not a rate, or cannot be changed.

    Of a trace it is the rate at which its requests come.
    """
    arrivals = scenario.workload.arrivals
    if arrivals is not None and (
        arrivals.process in ("closed-loop", "all-at-once") or arrivals.ramp_up is not None
    ):
        return None
    single = replace(scenario, deployment=replace(scenario.deployment, replicas=1))
    dial = load_dial(_steady(single), users=False, think_time_s=None)
    turns = dial.requests_per_arrival
    trace = scenario.workload.trace
    if trace is None or arrivals is not None or trace.rate_per_s is not None:
        return Load(dial=dial, per_s=dial.start * turns, requests_per_arrival=turns)
    found = mean_rate_per_s(generate(scenario.workload, scenario.seed))
    return None if found is None else Load(dial=dial, per_s=found, requests_per_arrival=1)


def _steady(scenario: Scenario) -> Scenario:
    """Return the scenario at a rate that stays, and no longer than it takes to see it.

    The daily wave of a diurnal process is in the size of the fleet, so a replica is looked at in
    between; bursts of seconds or minutes stay. A steady process for so many hours is known
    after some thousand requests.
    """
    workload, arrivals = scenario.workload, scenario.workload.arrivals
    if arrivals is None or arrivals.process not in (*_STEADY, "diurnal"):
        return scenario
    changes: dict[str, object] = {}
    if arrivals.process == "diurnal":
        process: ArrivalProcess = "poisson" if arrivals.burstiness is None else "gamma"
        changes["arrivals"] = ArrivalsSpec(
            process=process, rate_per_s=arrivals.rate_per_s, burstiness=arrivals.burstiness
        )
    if workload.duration_s is not None:
        changes |= {"duration_s": None, "num_requests": STEADY_REQUESTS}
    return replace(scenario, workload=workload.model_copy(update=changes))


def _is_sound(result: Result) -> bool:
    if result.slo_report is not None:
        return result.slo_report.met
    return result.verdict.operating_point


def _reason(result: Result) -> str:
    if result.slo_report is not None and not result.slo_report.met:
        return result.slo_report.reason
    return result.verdict.reason
