"""The load of a scenario as one number that can be turned: a rate, or a number of users."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from simserve.errors import InputError
from simserve.inputs.scenario import Scenario
from simserve.inputs.workload import ArrivalsSpec, WorkloadSpec
from simserve.records.clock import PS_PER_S
from simserve.traffic.generate import generate

LoadKind = Literal["requests/s", "conversations/s", "users"]

# Where nothing says at which rate to begin; the search doubles and halves from there.
_ANY_RATE_PER_S = 1.0
# Users ask one after the other: with fewer questions each, many would be in their first.
REQUESTS_PER_USER = 10
# Conversations that have begun go on, so their number grows for as long as they last. After three
# mean ones (were they exponential) 5 % are missing; ten leave most of a run beyond that.
CONVERSATIONS_PER_RUN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadDial:
    """A scenario whose load can be set; ``start`` is the load to look at first."""

    scenario: Scenario
    kind: LoadKind
    start: float
    think_time_s: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are loads."""
        return self.kind == "users"

    @property
    def waits(self) -> bool:
        """Whether conversations wait for their answers, and thin out after the last began."""
        sessions = self.scenario.workload.sessions
        return sessions is not None and bool(sessions.wait_for_answer)

    @property
    def requests_per_arrival(self) -> float:
        """Requests that a unit of the load brings."""
        return requests_per_arrival(self.scenario.workload)

    def requests_of_conversations(self, load: float, latency_s: float) -> int:
        """Return the requests of a run that is ten conversations long; 0 if they do not wait.

        ``load`` is in conversations per second, each answer takes ``latency_s``.
        """
        if not self.waits:
            return 0
        drawn = generate(self.scenario.workload, self.scenario.seed)
        thinking_ps = 0 if drawn.think_ps is None else int(drawn.think_ps.sum())
        conversations = drawn.users or 1
        turns = len(drawn) / conversations
        lasting_s = thinking_ps / PS_PER_S / conversations + turns * latency_s
        return math.ceil(load * turns * lasting_s * CONVERSATIONS_PER_RUN)

    @property
    def fixed_length(self) -> bool:
        """Whether the number of requests is the workload's own: a trace, or so many seconds."""
        return self.scenario.workload.num_requests is None

    def requests_at(self, load: float) -> int | None:
        """Return how many requests are simulated at ``load``; None if that is not ours to say."""
        count = self.scenario.workload.num_requests
        if count is None or self.kind != "users":
            return count
        return max(count, round(load) * REQUESTS_PER_USER)

    def at(self, load: float, num_requests: int | None = None) -> Scenario:
        """Return the scenario under ``load``, with so many requests if that can be chosen."""
        workload = self.scenario.workload
        changes: dict[str, object] = {}
        if self.kind == "users":
            changes["arrivals"] = ArrivalsSpec(
                process="closed-loop", users=round(load), think_time_s=self.think_time_s
            )
        elif workload.arrivals is not None:
            changes["arrivals"] = workload.arrivals.model_copy(update={"rate_per_s": load})
        elif workload.trace is not None:
            update = {"rate_per_s": load, "time_scale": None}
            changes["trace"] = workload.trace.model_copy(update=update)
        if num_requests is not None and not self.fixed_length:
            changes["num_requests"] = num_requests
        return dataclasses.replace(self.scenario, workload=workload.model_copy(update=changes))


def requests_per_arrival(workload: WorkloadSpec) -> float:
    """Return the requests that an arrival brings: the turns of a conversation on average."""
    sessions = workload.sessions
    return (sessions.turns or sessions.mean_turns or 1.0) if sessions is not None else 1.0


def load_dial(scenario: Scenario, *, users: bool, think_time_s: float | None) -> LoadDial:
    """Return the dial of a scenario: ``users`` asks for a closed loop whatever it says.

    Raises:
        InputError: if its load is not one number.
    """
    workload, arrivals = scenario.workload, scenario.workload.arrivals
    if users or (arrivals is not None and arrivals.process == "closed-loop"):
        return _user_dial(scenario, arrivals, think_time_s)
    if think_time_s is not None:
        raise InputError("--think-time", None, think_time_s, "only with --users")
    if arrivals is not None:
        if arrivals.process == "all-at-once" or arrivals.ramp_up is not None:
            what = arrivals.process if arrivals.ramp_up is None else "a ramp_up"
            allowed = "a process with a mean rate, or --users for a closed loop"
            raise InputError("workload", "arrivals.process", what, allowed)
        kind: LoadKind = "requests/s" if workload.sessions is None else "conversations/s"
        return LoadDial(scenario=scenario, kind=kind, start=_mean_rate_per_s(arrivals))
    rate = workload.trace.rate_per_s if workload.trace is not None else None
    return LoadDial(scenario=scenario, kind="requests/s", start=rate or _ANY_RATE_PER_S)


def _user_dial(
    scenario: Scenario, arrivals: ArrivalsSpec | None, think_time_s: float | None
) -> LoadDial:
    _check_closed_loop(scenario.workload)
    given = arrivals.think_time_s if arrivals is not None else None
    thinking_s = think_time_s if think_time_s is not None else given or 0.0
    users = arrivals.users if arrivals is not None else None
    return LoadDial(
        scenario=scenario, kind="users", start=float(users or 1), think_time_s=thinking_s
    )


def _check_closed_loop(workload: WorkloadSpec) -> None:
    for key in ("trace", "sessions", "duration_s"):
        if getattr(workload, key) is not None:
            allowed = f"a workload without {key}: users ask one request after the other"
            raise InputError("--users", f"workload.{key}", "a value", allowed)


def _mean_rate_per_s(arrivals: ArrivalsSpec) -> float:
    if arrivals.rate_per_s is not None:
        return arrivals.rate_per_s
    if arrivals.steps:
        lasting_s = sum(step.duration_s for step in arrivals.steps)
        return sum(step.requests for step in arrivals.steps) / lasting_s
    return _ANY_RATE_PER_S
