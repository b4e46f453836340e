"""When requests arrive: renewal processes, neither rescaled nor clamped.

``vllm bench serve`` stretches its drawn times so that the last one falls exactly on N/rate.
Nothing of the kind happens here: the rate of a run is what the process gave, and the times of
a longer run begin with those of a shorter one. As there, the first request comes one gap
after the start, and ``burstiness`` is the shape of gamma gaps: their coefficient of variation
is ``burstiness ** -0.5``, so below 1 is *more* bursty than Poisson
(vllm/benchmarks/serve.py, ``get_request``).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from simserve.errors import InputError
from simserve.inputs.workload import ArrivalsSpec
from simserve.records.clock import PS_PER_S, PsArray, to_ps
from simserve.traffic.limits import LONGEST_SPAN_DAYS, LONGEST_SPAN_PS, MOST_REQUESTS, check_count

# Standard deviations of a Poisson count drawn beyond its mean: one draw is nearly always enough.
_SPARE_SDS = 3


def first_arrivals_ps(
    arrivals: ArrivalsSpec, num_requests: int, rng: np.random.Generator
) -> PsArray:
    """Return the times of the first ``num_requests`` arrivals: ``int64[num_requests]``.

    All are 0 for ``all-at-once``, which has no rate.

    Raises:
        InputError: if there are too many, or they take longer than the clock can hold.
    """
    check_count("num_requests", num_requests, MOST_REQUESTS)
    if arrivals.rate_per_s is None:
        return np.zeros(num_requests, dtype=np.int64)
    times_s = _times_s(arrivals, arrivals.rate_per_s, num_requests, 0, 0.0, rng)
    _check_span(float(times_s[-1]))
    return _to_ps(times_s)


def arrivals_within_ps(
    arrivals: ArrivalsSpec, duration_s: float, rng: np.random.Generator
) -> PsArray:
    """Return the times of all arrivals up to and including ``duration_s``: ``int64[n]``.

    Raises:
        InputError: if there are none or too many, or the clock cannot hold ``duration_s``.
    """
    rate_per_s = arrivals.rate_per_s
    if rate_per_s is None:
        allowed = "num_requests: all at once take no time"
        raise InputError("workload", "duration_s", duration_s, allowed)
    expected = rate_per_s * duration_s
    check_count("requests in duration_s", expected, MOST_REQUESTS)
    _check_span(duration_s)
    draw = int(expected + _SPARE_SDS * expected**0.5) + _SPARE_SDS
    parts: list[npt.NDArray[np.float64]] = []
    drawn, last_s = 0, 0.0
    while last_s <= duration_s:
        parts.append(_times_s(arrivals, rate_per_s, draw, drawn, last_s, rng))
        drawn, last_s = drawn + draw, float(parts[-1][-1])
        check_count("requests in duration_s", drawn // 2, MOST_REQUESTS)
        draw *= 2
    times_s = np.concatenate(parts)
    # One more than fits by the float, so that the picosecond decides.
    stop = int(np.searchsorted(times_s, duration_s, side="right")) + 1
    times_ps = _to_ps(np.minimum(times_s[:stop], duration_s + 1))
    times_ps = times_ps[times_ps <= to_ps(duration_s)]
    if not len(times_ps):
        got = f"{duration_s} s, in which no request arrives at {rate_per_s} /s"
        raise InputError("workload", "duration_s", got, "a longer time or another seed")
    return times_ps


def _times_s(
    arrivals: ArrivalsSpec,
    rate_per_s: float,
    count: int,
    already: int,
    last_s: float,
    rng: np.random.Generator,
) -> npt.NDArray[np.float64]:
    """Return the ``count`` times that follow the first ``already``, the last at ``last_s``."""
    # A rate or burstiness near the smallest float overflows; _check_span refuses what it gives.
    with np.errstate(all="ignore"):
        if arrivals.process == "constant":  # multiples of the gap: no error builds up
            return np.asarray(np.arange(already + 1, already + count + 1) / rate_per_s)
        if arrivals.burstiness is None:  # Poisson
            gaps_s = rng.standard_exponential(count) / rate_per_s
        else:
            shape = arrivals.burstiness
            gaps_s = rng.standard_gamma(shape, count) / (rate_per_s * shape)
        gaps_s[0] += last_s  # summed in one sequence, whatever the pieces
        return np.cumsum(gaps_s)


def _check_span(span_s: float) -> None:
    if not span_s * PS_PER_S <= LONGEST_SPAN_PS:  # so that not-a-number is refused too
        got = f"arrivals over {span_s / 86_400:.3g} days"
        raise InputError("workload", "arrivals", got, f"at most {LONGEST_SPAN_DAYS} days")


def _to_ps(times_s: npt.NDArray[np.float64]) -> PsArray:
    return np.rint(times_s * PS_PER_S).astype(np.int64)
