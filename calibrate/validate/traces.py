"""Synthetic requests for replays: lengths and arrivals of a shape, at a rate, for some time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simserve.policy.limits import SchedulerLimits
from simserve.records.clock import PS_PER_S
from simserve.records.requests import RequestTable
from simserve.records.run_record import RunRecord

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceShape:
    """Log-normal lengths by median and spread (of the logarithm), cut at ``most_*``.

    Gaps between arrivals are gamma distributed; ``burstiness`` 1 is Poisson, less is burstier.
    """

    name: str
    prompt_median: int
    prompt_spread: float
    most_prompt: int
    output_median: int
    output_spread: float
    most_output: int
    burstiness: float = 1.0


def steady(shape: TraceShape, rate_per_s: float, seconds: float, seed: int) -> RequestTable:
    """Return requests that arrive at ``rate_per_s`` for ``seconds``; at least one."""
    return ramp(shape, (rate_per_s,), seconds, seed)


def ramp(
    shape: TraceShape, rates_per_s: tuple[float, ...], seconds: float, seed: int
) -> RequestTable:
    """Return requests at several rates one after the other, each for an equal share."""
    rng = np.random.default_rng(seed)
    share_s = seconds / len(rates_per_s)
    arrivals = [
        part * share_s + _arrivals(rng, rate, share_s, shape.burstiness)
        for part, rate in enumerate(rates_per_s)
    ]
    return _table(shape, np.concatenate(arrivals), rng)


def burst(shape: TraceShape, count: int, seed: int) -> RequestTable:
    """Return ``count`` requests that arrive at once: served at capacity until few are left."""
    return _table(shape, np.zeros(count), np.random.default_rng(seed))


def capacity_per_s(record: RunRecord, limits: SchedulerLimits) -> float:
    """Return the requests per second that an engine finishes while more of them wait.

    Of a burst: from when as many have finished as run at once, so that those who came first
    have left, until the queue is empty. A burst too small for that counts as a whole.
    """
    steps = record.steps[0].expand()
    ended = np.sort(record.outcomes.finish_ps)
    queued = np.flatnonzero(steps["waiting"] > 0)
    first = min(limits.max_running, len(ended)) - 1
    until_ps = int(steps["end_ps"][queued[-1]]) if len(queued) else 0
    last = int(np.searchsorted(ended, until_ps, side="right")) - 1
    if last - first < limits.max_running // 2:
        first, last = -1, len(ended) - 1
    since_ps = int(ended[first]) if first >= 0 else int(record.requests.arrival_ps[0])
    return (last - first) / ((int(ended[last]) - since_ps) / PS_PER_S)


def _arrivals(
    rng: np.random.Generator, rate_per_s: float, seconds: float, burstiness: float
) -> FloatArray:
    expected = rate_per_s * seconds
    count = int(expected + 10 * expected**0.5 / min(burstiness, 1.0) + 10)  # more than will come
    gaps = rng.gamma(burstiness, 1 / (burstiness * rate_per_s), count)
    times = np.cumsum(gaps)
    within = times[times < seconds]
    return within if len(within) else times[:1] * 0


def _table(shape: TraceShape, arrival_s: FloatArray, rng: np.random.Generator) -> RequestTable:
    count = len(arrival_s)
    prompts = _lengths(rng, count, shape.prompt_median, shape.prompt_spread, shape.most_prompt)
    outputs = _lengths(rng, count, shape.output_median, shape.output_spread, shape.most_output)
    return RequestTable(
        arrival_ps=np.round(arrival_s * PS_PER_S).astype(np.int64),
        prompt_tokens=prompts,
        output_tokens=outputs,
    )


def _lengths(
    rng: np.random.Generator, count: int, median: int, spread: float, most: int
) -> IntArray:
    drawn = median * np.exp(spread * rng.standard_normal(count))
    return np.clip(np.round(drawn), 1, most).astype(np.int64)
