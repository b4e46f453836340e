"""Two runs side by side: what differs beyond chance, request by request where they pair.

Requests pair if both runs have as many, with equal prompts in the same order (or under the same
names), sent at the same times. Then what differs is known request by request, and the mean
difference has an interval of its own; if the runs are too short or too unsteady for one, it still
counts as sure if B is on the same side of A in every tenth of the run. Otherwise the intervals of
both runs are compared; if they overlap, the difference may be chance. Where a sample carries
no interval nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from simserve.records.requests import IntArray
from simserve.results.batch_means import Series
from simserve.results.intervals import Estimates, Interval
from simserve.results.measured import RATES, STATISTICS, Measurement
from simserve.results.metrics import LATENCY_METRICS
from simserve.results.samples import FloatArray

PAIRED_START_S = 0.1
"""Requests that are sent within this of each other met the same load: far below a latency."""

PARTS = 10
"""Parts of a run in each of which B must be on the same side of A, and how many pairs that takes:
were both sides as likely, and the parts independent, it would happen once in 512 times."""
FEWEST_PAIRS = 100

# Files hold seconds; what is less than this is their rounding.
_NOTHING_S = 1e-9

Answer = Literal["higher", "lower", "same", "chance", "unknown"]
"""``chance``: the difference may be chance; ``unknown``: there is no interval to tell by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One number of both runs; ``unit`` is seconds, or per second for rates.

    ``paired`` is the mean difference over paired requests, B less A, and ``by_parts`` says that
    the answer rests on its sign in every part of the run.
    """

    name: str
    statistic: str
    a: float
    b: float
    a_interval: Interval | None
    b_interval: Interval | None
    paired: Interval | None
    answer: Answer
    by_parts: bool = False

    @property
    def change_frac(self) -> float | None:
        """By how much B is more than A; None where A is 0."""
        return self.b / self.a - 1 if self.a else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedErrors:
    """How far B is from A, request by request, over those that have the metric in both."""

    metric: str
    requests: int
    mean_s: float  # signed
    mean_abs_s: float
    median_abs_frac: float | None  # of A's latency
    p95_abs_frac: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two runs: A is what B is measured by. ``not_compared`` says what could not be, and why."""

    a: Measurement
    b: Measurement
    rows: tuple[Row, ...]
    errors: tuple[PairedErrors, ...]
    not_compared: tuple[str, ...]
    differing: tuple[str, ...]  # settings of two simulated runs


def compare(a: Measurement, b: Measurement) -> Comparison:
    """Return what B has in common with A, and what not."""
    pairs = _pairs(a, b)
    paired: Mapping[str, tuple[FloatArray, FloatArray]] = {}
    not_compared = []
    if isinstance(pairs, str):
        not_compared.append(f"requests one by one: {pairs}")
    else:
        paired = _both(a, b, *pairs)
    rows = []
    for metric in LATENCY_METRICS:
        missing = _missing(a, b, metric)
        if missing:
            not_compared.append(missing)
            continue
        rows += _rows(a, b, metric, paired.get(metric))
    for rate in RATES:
        if rate in a.rates and rate in b.rates:
            rows.append(_rate_row(rate, a.rates[rate], b.rates[rate]))
        else:
            not_compared.append(f"{rate}: not in {(b if rate in a.rates else a).where}")
    return Comparison(
        a=a,
        b=b,
        rows=tuple(rows),
        errors=tuple(_errors(metric, *both) for metric, both in paired.items() if len(both[0])),
        not_compared=tuple(not_compared),
        differing=tuple(_differing(a, b)),
    )


def _missing(a: Measurement, b: Measurement, metric: str) -> str | None:
    lacking = [one.where for one in (a, b) if metric not in one.statistics_s]
    return f"{metric}: not in {' and '.join(lacking)}" if lacking else None


def _pairs(a: Measurement, b: Measurement) -> tuple[IntArray, IntArray] | str:
    """Return which request of A is which of B, or why that cannot be said."""
    for one in (a, b):
        if one.requests is None:
            return f"{one.where} has statistics only"
    count = a.requests or 0
    if count != b.requests:
        return f"{count:,} requests and {b.requests:,}"
    of_a = of_b = np.arange(count)
    if (
        a.ids is not None
        and b.ids is not None
        and set(a.ids) == set(b.ids)
        and len(set(a.ids)) == count
    ):
        place = {name: at for at, name in enumerate(b.ids)}
        of_b = np.array([place[name] for name in a.ids], dtype=np.int64)
    if a.prompt_tokens is None or b.prompt_tokens is None:
        return "prompt lengths are not in both"
    unlike = int((a.prompt_tokens[of_a] != b.prompt_tokens[of_b]).sum())
    if unlike:
        return f"{unlike:,} of {count:,} prompts are of another length"
    if a.start_s is not None and b.start_s is not None and count:
        apart_s = float(np.abs(a.start_s[of_a] - b.start_s[of_b]).max())
        if apart_s > PAIRED_START_S:
            return f"they were sent up to {apart_s:.3g} s apart"
    return of_a, of_b


def _both(
    a: Measurement, b: Measurement, of_a: IntArray, of_b: IntArray
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Return the latencies of the pairs in which both have one, by metric."""
    found = {}
    for metric in LATENCY_METRICS:
        if metric in a.series_s and metric in b.series_s:
            one, other = a.series_s[metric][of_a], b.series_s[metric][of_b]
            there = ~(np.isnan(one) | np.isnan(other))
            one, other = one[there], other[there]
            found[metric] = (one, np.where(np.abs(other - one) < _NOTHING_S, one, other))
    return found


def _rows(
    a: Measurement, b: Measurement, metric: str, both: tuple[FloatArray, FloatArray] | None
) -> list[Row]:
    estimates = [_estimates(one, metric) for one in (a, b)]
    rows = []
    for statistic in STATISTICS:
        values = [one.statistics_s[metric].get(statistic) for one in (a, b)]
        if values[0] is None or values[1] is None:
            continue
        intervals = [None if one is None else _interval(one, statistic) for one in estimates]
        pairs = both if statistic == "mean" else None
        paired = _paired(pairs) if pairs is not None else None
        answer = _answer(values[0], values[1], intervals[0], intervals[1], paired)
        unknown = paired is None or paired.low is None
        every = _in_every_part(*pairs) if pairs is not None and unknown else None
        rows.append(
            Row(
                name=metric,
                statistic=statistic,
                a=values[0],
                b=values[1],
                a_interval=intervals[0],
                b_interval=intervals[1],
                paired=paired,
                answer=every or answer,
                by_parts=every is not None,
            )
        )
    return rows


def _rate_row(rate: str, a: float, b: float) -> Row:
    return Row(
        name=rate,
        statistic="mean",
        a=a,
        b=b,
        a_interval=None,
        b_interval=None,
        paired=None,
        answer="same" if a == b else "unknown",
    )


def _estimates(one: Measurement, metric: str) -> Estimates | None:
    series = one.series_s.get(metric)
    return None if series is None else Estimates([Series.of_values(series[~np.isnan(series)])])


def _interval(estimates: Estimates, statistic: str) -> Interval | None:
    if statistic == "mean":
        return estimates.mean()
    return estimates.percentile(float(statistic[1:]))


def _paired(both: tuple[FloatArray, FloatArray]) -> Interval | None:
    return Estimates([Series.of_values(both[1] - both[0])]).mean()


def _in_every_part(a: FloatArray, b: FloatArray) -> Answer | None:
    """Return on which side of A B is in every part of the run; None if not in every."""
    if len(a) < FEWEST_PAIRS:
        return None
    means = [float(part.mean()) for part in np.array_split(b - a, PARTS)]
    if min(means) > 0:
        return "higher"
    return "lower" if max(means) < 0 else None


def _answer(
    a: float, b: float, one: Interval | None, other: Interval | None, paired: Interval | None
) -> Answer:
    """Return what may be said of a difference: by pairs if that is possible, else by overlap."""
    if paired is not None and paired.low is not None and paired.high is not None:
        if paired.low == paired.high == 0:
            return "same"
        if paired.low > 0:
            return "higher"
        return "lower" if paired.high < 0 else "chance"
    if a == b:
        return "same"
    if one is None or other is None or one.low is None or other.low is None:
        return "unknown"
    if one.high is not None and other.low > one.high:
        return "higher"
    return "lower" if other.high is not None and other.high < one.low else "chance"


def _errors(metric: str, a: FloatArray, b: FloatArray) -> PairedErrors:
    errors = b - a
    there = a > 0
    shares = np.abs(errors[there]) / a[there]
    return PairedErrors(
        metric=metric,
        requests=len(a),
        mean_s=float(errors.mean()),
        mean_abs_s=float(np.abs(errors).mean()),
        median_abs_frac=float(np.median(shares)) if len(shares) else None,
        p95_abs_frac=float(np.percentile(shares, 95)) if len(shares) else None,
    )


def _differing(a: Measurement, b: Measurement) -> list[str]:
    """Return the settings in which two simulated runs differ, as ``key: A → B``."""
    if a.resolved is None or b.resolved is None:
        return []
    one, other = _flat(a.resolved), _flat(b.resolved)
    return [
        f"{key}: {one.get(key, '–')} → {other.get(key, '–')}"
        for key in sorted({*one, *other})
        if one.get(key) != other.get(key)
    ]


_UNSAID = ("source", "kind", "terms", "launch_line", "numbers")
_WORDLESS = ("value", "settings")


def _flat(value: object, path: str = "") -> dict[str, object]:
    """Return a resolved scenario's values by dotted key, without where they are from."""
    if isinstance(value, Mapping):
        found: dict[str, object] = {}
        for key, one in value.items():
            if key not in _UNSAID:
                found |= _flat(one, path if key in _WORDLESS else f"{path}.{key}".strip("."))
        return found
    if isinstance(value, list | tuple):
        return {path: ", ".join(map(str, value))}
    return {path: value}
