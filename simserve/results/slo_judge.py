"""Objectives judged on a run: per request as ``--goodput`` does, and by percentile.

A bare objective (``ttft:500``) is asked of every request; a request counts as good if it
meets all of them, and one of a single token has a TPOT of 0, as in vLLM. One that was
rejected or never finished is not good. A percentile objective (``ttft_p95:500``) compares
that percentile, never a mean; who was rejected or timed out counts there as later than anybody
who was answered. An overloaded run meets nothing: its latencies depend on how
long it was watched. Nor does one whose requests in the system still grew at the end: a longer one
may show either.

A class of requests that has objectives of its own is judged by these, over its requests alone;
the general ones are asked of all others. Requests of which nothing is asked one by one count
neither as good nor as bad.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from simserve.inputs.slo import ClassSlo, Objective, Slo
from simserve.records.run_record import RunRecord
from simserve.results.metrics import (
    Metrics,
    RequestLatencies,
    cancelled,
    never_answered,
    request_latencies,
)
from simserve.results.samples import MS_PER_S, FloatArray, Sample
from simserve.results.token_times import BoolArray, count_tokens, pooled_gaps, step_clock
from simserve.results.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveReport:
    """One objective: what was asked and what came out.

    ``attained_frac`` is the share of all requests that meet a per-request objective;
    ``value_ms`` the value of a percentile objective, None if nothing could be measured.
    """

    name: str
    limit_ms: float
    attained_frac: float | None
    value_ms: float | None
    met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassReport:
    """One class of requests; ``objectives`` are its own, empty if the general ones are asked.

    ``good_requests``, their share of the class and their rate are None if nothing is asked of
    its requests one by one.
    """

    name: str
    requests: int
    objectives: tuple[ObjectiveReport, ...]
    good_requests: int | None
    good_frac: float | None
    goodput_per_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SloReport:
    """All objectives; ``good_requests`` is None without per-request ones.

    ``objectives`` are the general ones, asked of all but the classes with their own.
    ``good_frac`` is the share of those requests of which something is asked.
    """

    objectives: tuple[ObjectiveReport, ...]
    good_requests: int | None
    good_frac: float | None
    goodput_per_s: float | None
    met: bool
    reason: str
    classes: tuple[ClassReport, ...] = ()


def judge_slo(
    slo: Slo | None,
    record: RunRecord,
    metrics: Metrics,
    verdict: Verdict,
    classes: Sequence[ClassSlo] = (),
) -> SloReport:
    """Judge every objective of ``slo``, and those that classes have of their own, on a run."""
    run = _Run(record, request_latencies(record), metrics)
    kept = ~cancelled(record)
    members = {one.name: run.members(one.name) & kept for one in classes}
    others = kept
    asked_of: list[tuple[str | None, Slo, BoolArray]] = []
    for name, own in ((one.name, one.slo) for one in classes if one.slo is not None):
        others = others & ~members[name]
        asked_of.append((name, own, members[name]))
    if slo is not None:
        asked_of.insert(0, (None, slo, others))
    reports = {name: run.judged(objectives, who) for name, objectives, who in asked_of}
    good, asked = np.zeros_like(others), np.zeros_like(others)
    for _, objectives, who in asked_of:
        if any(one.percentile is None for one in objectives.objectives):
            asked |= who
            good |= who & run.good(objectives)
    met, reason = _overall(reports, verdict)
    return SloReport(
        objectives=reports.get(None, ()),
        **run.goodness(good, asked),
        met=met,
        reason=reason,
        classes=tuple(
            ClassReport(
                name=name,
                requests=int(who.sum()),
                objectives=reports.get(name, ()),
                **run.goodness(good & who, asked & who),
            )
            for name, who in members.items()
        ),
    )


class _Goodness(TypedDict):
    good_requests: int | None
    good_frac: float | None
    goodput_per_s: float | None


@dataclass(frozen=True, slots=True)
class _Run:
    record: RunRecord
    latencies: RequestLatencies
    metrics: Metrics

    def members(self, name: str) -> BoolArray:
        """Return who belongs to a class."""
        requests = self.record.requests
        if requests.request_class is None or name not in requests.class_names:
            return np.zeros(len(requests), np.bool_)
        return np.asarray(requests.request_class == requests.class_names.index(name))

    def judged(self, slo: Slo | None, who: BoolArray) -> tuple[ObjectiveReport, ...]:
        """Return what came of objectives that are asked of some requests."""
        return tuple(
            _per_request(one, _requests_within(one, self.latencies)[who])
            if one.percentile is None
            else self.by_percentile(one, one.percentile, who)
            for one in (slo.objectives if slo is not None else ())
        )

    def by_percentile(
        self, objective: Objective, percentile: float, who: BoolArray
    ) -> ObjectiveReport:
        """Return what came of a percentile, in which who got no answer is later than anybody.

        So it is a higher percentile of those who were answered; above 100, nobody's. Gaps (ITL)
        belong to answers, and there it is the same.
        """
        sample = self.sample(objective.metric, who)
        late = int((never_answered(self.record) & who).sum())
        if objective.metric != "itl" and sample.size:
            percentile = percentile * (sample.size + late) / sample.size  # 100 stays 100
        value_s = sample.percentile(percentile) if percentile <= 100 else None
        if value_s is None:
            # Requests of one token have neither TPOT nor ITL: nothing is late unless nothing
            # finished.
            finished = bool((self.latencies.finished & who).any()) or not who.any()
            met = finished and percentile <= 100
        else:
            met = value_s * MS_PER_S <= objective.limit_ms
        return ObjectiveReport(
            name=objective.name,
            limit_ms=objective.limit_ms,
            attained_frac=None,
            value_ms=None if value_s is None else value_s * MS_PER_S,
            met=met,
        )

    def good(self, slo: Slo) -> BoolArray:
        """Return which requests meet all that is asked of them one by one."""
        good = self.latencies.finished.copy()
        for one in slo.objectives:
            if one.percentile is None:
                good &= _requests_within(one, self.latencies)
        return good

    def sample(self, metric: str, who: BoolArray) -> Sample:
        """Return a latency of some requests."""
        if who.all():
            return self.metrics.sample(metric)
        chosen = who & self.latencies.finished
        if metric == "itl":
            clock = step_clock(self.record)
            return pooled_gaps(clock, count_tokens(self.record, clock, chosen))
        values_s = _values_s(metric, self.latencies)[chosen]
        return Sample(values_s[~np.isnan(values_s)])

    def goodness(self, good: BoolArray, asked: BoolArray) -> _Goodness:
        """Return how many are good of those asked, which share of them, and at what rate."""
        if not asked.any():
            return {"good_requests": None, "good_frac": None, "goodput_per_s": None}
        count = int(good.sum())
        return {
            "good_requests": count,
            "good_frac": _share(count, int(asked.sum())),
            "goodput_per_s": _share(count, self.metrics.duration_s),
        }


def _values_s(metric: str, latencies: RequestLatencies) -> FloatArray:
    return {"ttft": latencies.ttft_s, "tpot": latencies.tpot_s, "e2el": latencies.e2el_s}[metric]


def _requests_within(objective: Objective, latencies: RequestLatencies) -> BoolArray:
    values_s = _values_s(objective.metric, latencies)
    if objective.metric == "tpot":
        values_s = np.nan_to_num(values_s, nan=0.0)
    return np.asarray(latencies.finished & (values_s * MS_PER_S <= objective.limit_ms))


def _per_request(objective: Objective, meets: BoolArray) -> ObjectiveReport:
    return ObjectiveReport(
        name=objective.name,
        limit_ms=objective.limit_ms,
        attained_frac=_share(int(meets.sum()), len(meets)),
        value_ms=None,
        met=bool(meets.all()),
    )


def _overall(
    reports: Mapping[str | None, tuple[ObjectiveReport, ...]], verdict: Verdict
) -> tuple[bool, str]:
    missed = [
        one.name if name is None else f"{one.name} of {name}"
        for name, objectives in reports.items()
        for one in objectives
        if not one.met
    ]
    if not verdict.operating_point:
        return False, "not met: the deployment is overloaded"
    if missed:
        return False, f"not met: {', '.join(missed)}"
    if verdict.growing:
        return False, (
            "not shown to be met: met in this run, but requests in the system still grew at the "
            "last arrival"
        )
    if verdict.name != "stable":
        return True, f"met in this run, which is {verdict.name} and shows no steady state"
    return True, "met"


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0
