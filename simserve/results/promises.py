"""Objectives as shares: how many of a run's requests must be, and are, within their limits.

``ttft_p95:500`` says the same as "at least 95 % of requests have a TTFT of at most 500 ms", so
a percentile is judged as a share, too. Objectives per request hold together for a request or
not at all; of how many requests they are asked is a choice (``GOOD_SHARE``). So each request
has one number for a promise, its *strain*: the largest of its latencies over their limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from simserve.inputs.slo import ClassSlo, Objective, Slo
from simserve.records.run_record import RunRecord
from simserve.results.batch_means import Series
from simserve.results.gap_series import gap_series
from simserve.results.metrics import RequestLatencies, cancelled, never_answered
from simserve.results.samples import MS_PER_S, FloatArray
from simserve.results.token_times import BoolArray
from simserve.results.warmup import SteadyWindow

GOOD_SHARE = 0.99
"""The share of requests that must meet their per-request objectives, unless another is asked."""


@dataclass(frozen=True, kw_only=True)
class Promise:
    """One thing promised, on one run: it is kept for a request whose ``strain`` is at most 1.

    ``required_share`` is None for per-request objectives, of which a share is yet to be asked.
    ``metrics`` are those it is about. Who was not served has an infinite strain.
    """

    name: str
    required_share: float | None
    metrics: tuple[str, ...]
    strain: Series

    @cached_property
    def kept(self) -> Series:
        """1 for every request (or gap) for which the promise is kept, else 0."""
        return kept_within(self.strain)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Objectives, and of whom they are asked: of a class of requests, or of all others."""

    class_name: str | None
    slo: Slo
    who: BoolArray

    def named(self, objectives: Sequence[Objective]) -> str:
        """Return the objectives as they are written, after the class that has them."""
        words = " ".join(f"{one.name}:{one.limit_ms:g}" for one in objectives)
        return words if self.class_name is None else f"{self.class_name} {words}"


def asked_of(slo: Slo | None, classes: Sequence[ClassSlo], record: RunRecord) -> list[Asked]:
    """Return what is asked of whom; nothing is asked for requests that were cancelled."""
    others = ~cancelled(record)
    found = []
    for one in classes:
        if one.slo is not None:
            who = _members(record, one.name) & ~cancelled(record)
            found.append(Asked(class_name=one.name, slo=one.slo, who=who))
            others &= ~who
    return found if slo is None else [Asked(class_name=None, slo=slo, who=others), *found]


def promises(
    asked: Sequence[Asked],
    record: RunRecord,
    latencies: RequestLatencies,
    window: SteadyWindow,
) -> tuple[Promise, ...]:
    """Return what is promised of the requests in ``window``."""
    found: list[Promise] = []
    for one in asked:
        who = one.who & window.mask()
        single = [objective for objective in one.slo.objectives if objective.percentile is None]
        if single:
            found.append(
                Promise(
                    name=one.named(single),
                    required_share=None,
                    metrics=tuple(objective.metric for objective in single),
                    strain=Series.of_values(_strain(single, latencies)[who]),
                )
            )
        found += [
            Promise(
                name=one.named([objective]),
                required_share=objective.percentile / 100,
                metrics=(objective.metric,),
                strain=_strain_of_answered(objective, record, latencies, who),
            )
            for objective in one.slo.objectives
            if objective.percentile is not None
        ]
    return tuple(found)


def within_limits(
    asked: Sequence[Asked], latencies: RequestLatencies, window: SteadyWindow
) -> Series:
    """Return 1 for every request in ``window`` within all limits that hold for it, else 0.

    A limit on a percentile is taken as one on every request; gaps (ITL) belong to no request.
    """
    strain = np.where(latencies.finished, 0.0, np.inf)
    for one in asked:
        strain = np.where(one.who, _strain(one.slo.objectives, latencies), strain)
    return kept_within(Series.of_values(strain[window.first : window.stop]))


def kept_within(strain: Series) -> Series:
    """Return 1 for every entry whose strain is at most 1, else 0, as often as it counts."""
    return Series(np.where(strain.values <= 1, strain.weights, 0.0), strain.weights)


def _strain(objectives: Sequence[Objective], latencies: RequestLatencies) -> FloatArray:
    """Return the strain of every request: ``float64[requests]``."""
    values_s = {
        "ttft": latencies.ttft_s,
        "tpot": np.nan_to_num(latencies.tpot_s, nan=0.0),  # as vLLM, for a single token
        "e2el": latencies.e2el_s,
    }
    strain: FloatArray = np.where(latencies.finished, 0.0, np.inf)
    for one in objectives:
        if one.metric in values_s:
            strain = np.fmax(strain, values_s[one.metric] * MS_PER_S / one.limit_ms)
    return strain


def _strain_of_answered(
    objective: Objective, record: RunRecord, latencies: RequestLatencies, who: BoolArray
) -> Series:
    """Return the strain of those that a percentile is of: all who wanted an answer."""
    if objective.metric == "itl":
        gaps = gap_series(record, latencies.finished & who)
        return Series(gaps.amounts * MS_PER_S / objective.limit_ms, gaps.weights)
    values_s = {"ttft": latencies.ttft_s, "tpot": latencies.tpot_s, "e2el": latencies.e2el_s}
    late = never_answered(record)
    strain = np.where(
        latencies.finished, values_s[objective.metric] * MS_PER_S / objective.limit_ms, np.inf
    )
    counts = who & (late | (latencies.finished & ~np.isnan(values_s[objective.metric])))
    return Series.of_values(strain[counts])


def _members(record: RunRecord, name: str) -> BoolArray:
    requests = record.requests
    if requests.request_class is None or name not in requests.class_names:
        return np.zeros(len(requests), np.bool_)
    return np.asarray(requests.request_class == requests.class_names.index(name))
