"""Objectives judged on a run: per request as ``--goodput`` does, and by percentile.

A bare objective (``ttft:500``) is asked of every request; a request counts as good if it
meets all of them, and one of a single token has a TPOT of 0, as in vLLM. One that was
rejected or never finished is not good. A percentile objective (``ttft_p95:500``) compares
that percentile, never a mean. An overloaded run meets nothing: its latencies depend on how
long it was watched.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simserve.inputs.slo import Objective, Slo
from simserve.records.run_record import RunRecord
from simserve.results.metrics import Metrics, RequestLatencies, request_latencies
from simserve.results.samples import MS_PER_S
from simserve.results.token_times import BoolArray
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
class SloReport:
    """All objectives; ``good_requests`` is None without per-request ones."""

    objectives: tuple[ObjectiveReport, ...]
    good_requests: int | None
    good_frac: float | None
    goodput_per_s: float | None
    met: bool
    reason: str


def judge_slo(slo: Slo, record: RunRecord, metrics: Metrics, verdict: Verdict) -> SloReport:
    """Judge every objective of ``slo`` on a run."""
    latencies = request_latencies(record)
    good = latencies.finished.copy()
    single = [objective for objective in slo.objectives if objective.percentile is None]
    reports = []
    for objective in slo.objectives:
        if objective.percentile is None:
            meets = _requests_within(objective, latencies)
            good &= meets
            reports.append(_per_request(objective, meets))
        else:
            reports.append(_by_percentile(objective, metrics))
    good_requests = int(good.sum()) if single else None
    met, reason = _overall(reports, verdict)
    return SloReport(
        objectives=tuple(reports),
        good_requests=good_requests,
        good_frac=_share(good_requests, len(good)) if good_requests is not None else None,
        goodput_per_s=_share(good_requests, metrics.duration_s)
        if good_requests is not None
        else None,
        met=met,
        reason=reason,
    )


def _requests_within(objective: Objective, latencies: RequestLatencies) -> BoolArray:
    values_s = {
        "ttft": latencies.ttft_s,
        "tpot": np.nan_to_num(latencies.tpot_s, nan=0.0),
        "e2el": latencies.e2el_s,
    }[objective.metric]
    return np.asarray(latencies.finished & (values_s * MS_PER_S <= objective.limit_ms))


def _per_request(objective: Objective, meets: BoolArray) -> ObjectiveReport:
    return ObjectiveReport(
        name=objective.name,
        limit_ms=objective.limit_ms,
        attained_frac=_share(int(meets.sum()), len(meets)),
        value_ms=None,
        met=bool(meets.all()),
    )


def _by_percentile(objective: Objective, metrics: Metrics) -> ObjectiveReport:
    percentile = objective.percentile if objective.percentile is not None else 50.0
    value_s = metrics.sample(objective.metric).percentile(percentile)
    # Requests of one token have neither TPOT nor ITL: nothing is late unless nothing finished.
    met = metrics.completed > 0 if value_s is None else value_s * MS_PER_S <= objective.limit_ms
    return ObjectiveReport(
        name=objective.name,
        limit_ms=objective.limit_ms,
        attained_frac=None,
        value_ms=None if value_s is None else value_s * MS_PER_S,
        met=met,
    )


def _overall(reports: list[ObjectiveReport], verdict: Verdict) -> tuple[bool, str]:
    missed = [report.name for report in reports if not report.met]
    if not verdict.operating_point:
        return False, "not met: the deployment is overloaded"
    if missed:
        return False, f"not met: {', '.join(missed)}"
    return True, "met"


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0
