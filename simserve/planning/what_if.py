"""The same requests on something else: what a change does to a latency, and to the dollars.

Every change meets the replications of the scenario itself, so differences are those of the
change: common random numbers. Nothing changed gives a difference of exactly nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from simserve.engine.simulate import simulate
from simserve.errors import InputError
from simserve.inputs.scenario import Scenario
from simserve.latency.model import StepLatencyModel
from simserve.planning.other_hardware import LatencyOf, as_it_is
from simserve.planning.processes import as_finished
from simserve.planning.replications import replication_of
from simserve.records.requests import RequestTable
from simserve.records.run_record import REJECTED, RunRecord
from simserve.results.critical_values import student_t
from simserve.results.intervals import Interval
from simserve.results.metrics import Metrics, measure
from simserve.results.samples import Sample
from simserve.results.token_cost import plain_usd_per_mtok
from simserve.results.verdict import judge_load
from simserve.traffic.generate import generate

FEWEST_RUNS = 3
"""With fewer replications, Student's t says next to nothing."""
_OVERLOADED, _STABLE = "overloaded", "stable"
ONE_RUN = f"needs at least {FEWEST_RUNS} replications"

RequestEdit = Callable[[RequestTable, Scenario], RequestTable]
RecordEdit = Callable[[RunRecord, Scenario, StepLatencyModel], RunRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change: another ``scenario``, hardware, or requests; or the ``reason`` why it cannot be.

    ``edit`` changes the requests, ``finish`` the record of the run; the latter is given the
    model of the scenario as it is. ``usd_factor`` multiplies the price of a GPU. A change is
    compared with ``against``; None: with the scenario as it is.
    """

    name: str
    meaning: str
    scenario: Scenario | None
    reason: str | None = None
    latency: LatencyOf = as_it_is
    edit: RequestEdit | None = None
    finish: RecordEdit | None = None
    usd_factor: float = 1.0
    against: Change | None = None

    @property
    def run(self) -> tuple[object, ...]:
        """What decides the run: changes that agree in it share one."""
        return (id(self.scenario), self.latency, id(self.edit), id(self.finish))

    @classmethod
    def impossible(cls, name: str, meaning: str, reason: str) -> Change:
        """Return a change that cannot be made."""
        return cls(name=name, meaning=meaning, scenario=None, reason=reason)


def nothing_changed(scenario: Scenario) -> Change:
    """Return the scenario as it is, to compare with."""
    return Change(name="nothing", meaning="as it is", scenario=scenario)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which number is looked at, over which replications; ``usd_per_gpu_hour`` None: no dollars."""

    metric: str
    percentile: float
    replications: int = 1
    usd_per_gpu_hour: float | None = None

    @property
    def has_intervals(self) -> bool:
        """Whether there are replications enough for intervals."""
        return self.replications >= FEWEST_RUNS


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What one replication of one change shows; ``reason`` says why there is nothing to see."""

    value_s: float | None = None
    usd_per_mtok: float | None = None
    hit_frac: float = 0.0
    unanswered: int = 0  # rejected, or given up
    verdict: str = ""
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a change does: ``value_s`` with it, ``change_s`` from as it is (below 0: better).

    Means over the replications; ``reason`` says why there is none. ``lower_in``,
    ``overloaded_in`` and ``stable_in`` count the replications in which the latency falls, and whose
    verdict is this.
    """

    name: str
    meaning: str
    value_s: float | None
    change_s: Interval | None
    usd_per_mtok: float | None
    usd_change: float | None
    notes: tuple[str, ...]
    reason: str | None
    lower_in: int = 0
    overloaded_in: int = 0
    stable_in: int = 0

    @property
    def gain_s(self) -> float:
        """By how much the latency falls; minus infinity if that is unknown."""
        return -math.inf if self.change_s is None else -self.change_s.value


def effects(
    base: Change,
    changes: Sequence[Change],
    question: Question,
    *,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Effect, list[Effect]]:
    """Return what ``base`` shows, and what each of ``changes`` does to it.

    Raises:
        InputError: if the scenario as it is cannot be run.
    """
    possible = [one for one in (base, *changes) if one.reason is None]
    compared = [one.against for one in possible if one.against is not None]
    runs = list({one.run: one for one in (*possible, *compared)}.values())
    tasks = [_Task(one, question, number) for one in runs for number in _numbers(question)]
    sights: dict[int, Sight] = {}
    for at, sight in as_finished(_look, tasks, workers):
        sights[at] = sight
        if on_progress is not None:
            on_progress(len(sights), len(tasks))
    seen = {
        one.run: [sights[at * question.replications + number] for number in _numbers(question)]
        for at, one in enumerate(runs)
    }
    if seen[base.run][0].reason is not None:
        raise InputError("the scenario", None, seen[base.run][0].reason, "one that runs")
    found = [
        _effect(one, seen[(one.against or base).run], seen.get(one.run)) for one in (base, *changes)
    ]
    return found[0], found[1:]


@dataclass(frozen=True, slots=True)
class _Task:
    change: Change
    question: Question
    number: int


def _numbers(question: Question) -> range:
    return range(question.replications)


def _look(task: _Task) -> Sight:
    """Run one replication of one change."""
    change, question = task.change, task.question
    if change.scenario is None:
        return Sight(reason=change.reason)
    scenario = replication_of(change.scenario, task.number)
    try:
        requests = generate(scenario.workload, scenario.seed)
        if change.edit is not None:
            requests = change.edit(requests, scenario)
        record = simulate(requests, scenario.deployment, change.latency(scenario.deployment))
        if change.finish is not None:
            record = change.finish(record, scenario, as_it_is(scenario.deployment))
    except InputError as error:  # such as a profile that is not of this tp
        return Sight(reason=str(error))
    if requests.users is not None and requests.next_turn is None:  # a closed loop
        record = replace(record, meta=replace(record.meta, users=requests.users))
    return _sight(record, scenario, question)


def _sight(record: RunRecord, scenario: Scenario, question: Question) -> Sight:
    metrics = measure(record)
    admitted = record.outcomes.status != REJECTED
    prompts = int(record.requests.prompt_tokens[admitted].sum())
    hits = int(record.outcomes.cached_tokens[admitted].sum())
    verdict = judge_load(record)
    goes_on = verdict.operating_point and record.meta.users is None
    tokens_per_s = _offered_tokens_per_s(metrics) if goes_on else metrics.total_token_throughput
    return Sight(
        value_s=latency_s(metrics, question.metric, question.percentile),
        usd_per_mtok=_usd_per_mtok(tokens_per_s, scenario, question.usd_per_gpu_hour),
        hit_frac=hits / prompts if prompts else 0.0,
        unanswered=metrics.failed,
        verdict=verdict.name,
    )


def latency_s(metrics: Metrics, metric: str, percentile: float) -> float | None:
    """Return the percentile of a latency, as ``vllm bench serve`` defines both."""
    sample: Sample = metrics.sample(metric)
    return sample.percentile(percentile)


def _offered_tokens_per_s(metrics: Metrics) -> float:
    """Return the tokens of an average request, got or not, times the rate at which they come.

    Throughput is less: it is over the time until the last request is done, when none come.
    """
    if metrics.offered_rate_per_s is None:
        return metrics.total_token_throughput
    tokens = metrics.total_token_throughput * metrics.duration_s
    return tokens / metrics.num_prompts * metrics.offered_rate_per_s


def _usd_per_mtok(
    tokens_per_s: float, scenario: Scenario, usd_per_gpu_hour: float | None
) -> float | None:
    """Return what a million tokens, prompts included, cost if every hour were like this run."""
    if usd_per_gpu_hour is None or not tokens_per_s:
        return None
    gpus = scenario.deployment.tp * scenario.deployment.replicas
    return plain_usd_per_mtok(gpus * usd_per_gpu_hour, tokens_per_s)


def _effect(change: Change, before: Sequence[Sight], after: Sequence[Sight] | None) -> Effect:
    """Return what a change does; ``after`` is None where it was not made."""
    reasons = [change.reason, *(one.reason for one in (*before, *(after or ())))]
    reason = next((one for one in reasons if one is not None), None)
    if after is None or reason is not None:
        after = before = ()
    pairs = list(zip(before, after, strict=True))
    dollars = [
        (old.usd_per_mtok, _times(new.usd_per_mtok, change.usd_factor)) for old, new in pairs
    ]
    return Effect(
        name=change.name,
        meaning=change.meaning,
        value_s=_mean([one.value_s for one in after]),
        change_s=_paired([(old.value_s, new.value_s) for old, new in pairs]),
        usd_per_mtok=_mean([new for _, new in dollars]),
        usd_change=_mean([_less(new, old) for old, new in dollars]),
        notes=tuple(_notes(pairs)) if pairs else (),
        reason=reason,
        lower_in=sum((_less(new.value_s, old.value_s) or 0) < 0 for old, new in pairs),
        overloaded_in=_count(after, _OVERLOADED),
        stable_in=_count(after, _STABLE),
    )


def _count(runs: Sequence[Sight], verdict: str) -> int:
    return sum(one.verdict == verdict for one in runs)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _less(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return math.fsum(there) / len(there) if len(there) == len(values) and there else None


def _paired(pairs: Sequence[tuple[float | None, float | None]]) -> Interval | None:
    """Return the mean change with Student's t interval over replications."""
    changes = [_less(new, old) for old, new in pairs]
    mean = _mean(changes)
    if mean is None:
        return None
    if len(changes) < FEWEST_RUNS:
        return Interval(value=mean, reason=ONE_RUN)
    spread = float(np.std([one for one in changes if one is not None], ddof=1))
    reach = student_t(len(changes) - 1) * spread / math.sqrt(len(changes))
    return Interval(value=mean, low=mean - reach, high=mean + reach)


def _notes(pairs: Sequence[tuple[Sight, Sight]]) -> list[str]:
    """Return what the reader must know beside the numbers: all from the runs."""
    notes = []
    old, new = pairs[0]
    hits = [f"{one.hit_frac:.1%}" for one in (old, new)]
    if hits[0] != hits[1]:
        notes.append(f"prefix hits {' → '.join(hits)}")
    more = sum(after.unanswered - before.unanswered for before, after in pairs)
    if more:
        notes.append(f"{abs(more):,} {'more' if more > 0 else 'fewer'} unanswered")
    before, after = (_count(side, _OVERLOADED) for side in zip(*pairs, strict=True))
    if before != after:
        notes.append(_overload_words(after, _count([new for _, new in pairs], _STABLE), len(pairs)))
    return notes


def _overload_words(overloaded: int, stable: int, runs: int) -> str:
    if overloaded:
        return "overloaded" if overloaded == runs else f"{overloaded} of {runs} overloaded"
    return "overloaded no more" if stable == runs else "too short to tell if overloaded still"
