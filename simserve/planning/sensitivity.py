"""How far the answer moves when one input is a tenth more or less: the most decisive first.

Inputs are the load, the lengths, what prompts share, the price, and the engine's limits. All
else stays, the random numbers too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from simserve.errors import InputError
from simserve.inputs.deployment import Deployment
from simserve.inputs.scenario import Scenario
from simserve.inputs.workload import ArrivalsSpec, WorkloadSpec
from simserve.planning.changed_deployment import with_settings
from simserve.planning.counterfactuals import with_endless_kv
from simserve.planning.perfect_cache import COHORT, with_perfect_cache, with_scaled_hits
from simserve.planning.scaled_requests import with_outputs, with_prompts
from simserve.planning.what_if import Change, Effect, RequestEdit
from simserve.records.requests import RequestTable

STEP = 0.1
"""Inputs are moved by this share, down and up."""
LESS, MORE = 1 - STEP, 1 + STEP
_RATE = "arrival rate"
TP = "tp"
"""The one input that is not moved by a tenth: it is halved and doubled."""
_USERS = "users"


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One input and the two changes of it; ``shown`` says from what to what."""

    name: str
    shown: str
    less: Change
    more: Change


@dataclass(frozen=True, slots=True, kw_only=True)
class Swing:
    """One input and what moving it does to the answer."""

    name: str
    shown: str
    less: Effect
    more: Effect

    @property
    def reach_s(self) -> float:
        """The larger of both changes of the latency, whichever way; -1 if neither is known."""
        known = [one.change_s for one in (self.less, self.more) if one.change_s is not None]
        return max((abs(one.value) for one in known), default=-1.0)


def inputs(scenario: Scenario, requests: RequestTable) -> list[Input]:
    """Return the inputs; ``requests`` are those of the scenario's own seed."""
    deployment = scenario.deployment
    engine = deployment.engine
    return [
        _load(scenario),
        _edited(scenario, "prompt length", with_prompts),
        _edited(scenario, "output length", with_outputs),
        _hits(scenario, requests),
        _limit(scenario, "max_num_batched_tokens", engine.max_num_batched_tokens),
        _limit(scenario, "max_num_seqs", engine.max_num_seqs),
        _tp(scenario),
        Input(
            name="price of a GPU",
            shown=_PERCENT,
            less=_priced(scenario, LESS),
            more=_priced(scenario, MORE),
        ),
    ]


_PERCENT = f"±{STEP:.0%}"


def changes_of(found: Sequence[Input]) -> list[Change]:
    """Return the changes of all inputs: of each, less and then more."""
    return [change for one in found for change in (one.less, one.more)]


def swings(found: Sequence[Input], effects: Sequence[Effect]) -> list[Swing]:
    """Return what each input does, the one that moves the latency most first."""
    pairs = zip(effects[::2], effects[1::2], strict=True)
    result = [
        Swing(name=one.name, shown=one.shown, less=less, more=more)
        for one, (less, more) in zip(found, pairs, strict=True)
    ]
    return sorted(result, key=lambda one: -one.reach_s)


def _named(name: str, word: str) -> str:
    return f"{name} {word}"


def _either(name: str, shown: str, make: Callable[[float], Change | str]) -> Input:
    """Return an input whose change by a factor is made, or refused with a reason."""
    changes = []
    for factor in (LESS, MORE):
        label = f"{factor - 1:+.0%}"
        made = make(factor)
        if isinstance(made, str):
            made = Change.impossible(_named(name, label), label, made)
        changes.append(replace(made, name=_named(name, label)))
    return Input(name=name, shown=shown, less=changes[0], more=changes[1])


def _edited(scenario: Scenario, name: str, edit: Callable[..., RequestTable]) -> Input:
    def make(factor: float) -> Change:
        scaled: RequestEdit = partial(edit, factor=factor)
        return Change(name=name, meaning=name, scenario=scenario, edit=scaled)

    return _either(name, _PERCENT, make)


def _hits(scenario: Scenario, requests: RequestTable) -> Input:
    """Return the hit rate: that of the run, found whatever is in memory, and a tenth from that."""
    name, deployment = "prefix hit rate", scenario.deployment
    reason = None
    if requests.segments is None:
        reason = "no prompt repeats another"
    elif not deployment.engine.enable_prefix_caching:
        reason = "prefix caching is off"
    elif deployment.scheduler != COHORT:
        reason = f"not with scheduler {deployment.scheduler}"
    if reason is not None:
        return _either(name, _PERCENT, lambda _: str(reason))
    endless = with_perfect_cache(with_endless_kv(deployment, requests))
    changed = replace(scenario, deployment=endless)

    def at(factor: float) -> Change:
        edit = partial(with_scaled_hits, deployment=deployment, factor=factor)
        return Change(name=name, meaning=name, scenario=changed, edit=edit)

    same = at(1.0)
    return _either(name, _PERCENT, lambda factor: replace(at(factor), against=same))


def _priced(scenario: Scenario, factor: float) -> Change:
    label = f"{factor - 1:+.0%}"
    return Change(
        name=_named("price of a GPU", label),
        meaning=label,
        scenario=scenario,
        usd_factor=factor,
    )


def _load(scenario: Scenario) -> Input:
    arrivals = scenario.workload.arrivals
    if arrivals is not None and arrivals.users is not None:
        users = arrivals.users
        less, more = (max(1, round(users * factor)) for factor in (LESS, MORE))

        def asked(factor: float) -> Change | str:
            count = less if factor < 1 else more
            if count == users:
                return f"a tenth of {users} users is nobody"
            return _with_workload(scenario, arrivals=arrivals.model_copy(update={"users": count}))

        return _either(_USERS, f"{users} → {less}, {more}", asked)
    return _either(_RATE, _PERCENT, lambda factor: _with_rate(scenario, factor))


def _with_rate(scenario: Scenario, factor: float) -> Change | str:
    """Return the scenario with requests that come ``factor`` times as fast, or why not."""
    workload = scenario.workload
    arrivals, trace = workload.arrivals, workload.trace
    if arrivals is not None:
        update = _faster(arrivals, factor)
        if update is None:
            return "all requests come at once"
        return _with_workload(scenario, arrivals=arrivals.model_copy(update=update))
    if trace is None:
        return "there are no arrivals"
    if trace.rate_per_s is not None:
        change: dict[str, Any] = {"rate_per_s": trace.rate_per_s * factor}
    else:
        change = {"time_scale": (trace.time_scale or 1.0) / factor}
    return _with_workload(scenario, trace=trace.model_copy(update=change))


def _faster(arrivals: ArrivalsSpec, factor: float) -> dict[str, Any] | None:
    """Return what to change of arrivals; None if they have no rate."""
    if arrivals.rate_per_s is not None:
        return {"rate_per_s": arrivals.rate_per_s * factor}
    if arrivals.steps is not None:
        faster = [
            step.model_copy(
                update={
                    "rate_per_s": step.rate_per_s * factor,
                    "to_rate_per_s": None
                    if step.to_rate_per_s is None
                    else step.to_rate_per_s * factor,
                }
            )
            for step in arrivals.steps
        ]
        return {"steps": tuple(faster)}
    if arrivals.start_rate_per_s is not None and arrivals.end_rate_per_s is not None:
        return {
            "start_rate_per_s": arrivals.start_rate_per_s * factor,
            "end_rate_per_s": arrivals.end_rate_per_s * factor,
        }
    return None


def _with_workload(scenario: Scenario, **update: Any) -> Change:
    workload: WorkloadSpec = scenario.workload.model_copy(update=update)
    return Change(name="load", meaning="load", scenario=replace(scenario, workload=workload))


def _limit(scenario: Scenario, key: str, value: int) -> Input:
    less, more = round(value * LESS), round(value * MORE)

    def make(factor: float) -> Change | str:
        changed = less if factor < 1 else more
        if changed == value:
            return f"a tenth of {value} is less than one"
        return _resettled(scenario, lambda one: with_settings(one, **{key: changed}))

    return _either(key, f"{value} → {less}, {more}", make)


def _tp(scenario: Scenario) -> Input:
    tp = scenario.deployment.tp

    def make(factor: float) -> Change | str:
        if factor < 1 and tp == 1:
            return "one GPU is the least"
        changed = tp // 2 if factor < 1 else tp * 2
        return _resettled(scenario, lambda one: with_settings(one, tp=changed))

    shown = f"{tp} → {tp * 2}" if tp == 1 else f"{tp} → {tp // 2}, {tp * 2}"
    found = _either(TP, shown, make)
    return replace(
        found,
        less=replace(found.less, name="tp halved"),
        more=replace(found.more, name="tp doubled"),
    )


def _resettled(scenario: Scenario, change: Callable[[Deployment], Deployment]) -> Change | str:
    try:
        deployment = change(scenario.deployment)
    except InputError as error:
        return str(error)
    changed = replace(scenario, deployment=deployment)
    return Change(name="setting", meaning="setting", scenario=changed)
