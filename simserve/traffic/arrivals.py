"""When requests arrive: renewal processes, at a fixed rate or along a rate that changes.

``vllm bench serve`` stretches its drawn times so that the last one falls exactly on N/rate; only
the process ``vllm-bench`` does so here. Elsewhere the rate of a run is what the process gave,
and the times of a longer run begin with those of a shorter one. As there, the first request
comes one gap after the start, and ``burstiness`` is the shape of gamma gaps: their coefficient
of variation is ``burstiness ** -0.5``, so below 1 is *more* bursty than Poisson
(vllm/benchmarks/serve.py, ``get_request``).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from simserve.errors import InputError
from simserve.inputs.workload import ArrivalsSpec
from simserve.records.clock import PS_PER_S, PsArray, to_ps
from simserve.traffic.limits import LONGEST_SPAN_DAYS, LONGEST_SPAN_PS, MOST_REQUESTS, check_count
from simserve.traffic.rate_curves import RateCurve, rate_curve

# Standard deviations of a Poisson count drawn beyond its mean: one draw is nearly always enough.
_SPARE_SDS = 3

_Floats = npt.NDArray[np.float64]


def first_arrivals_ps(
    arrivals: ArrivalsSpec,
    num_requests: int,
    rng: np.random.Generator,
    phases: np.random.Generator | None = None,
) -> PsArray:
    """Return the times of the first ``num_requests`` arrivals: ``int64[num_requests]``.

    All are 0 for ``all-at-once``, which has no rate, and for ``closed-loop``, where arrivals
    depend on answers (``users.asked_by_users``). ``phases`` draws the bursts of ``on-off``.

    Raises:
        InputError: if there are too many, or they take longer than the clock can hold.
    """
    check_count("num_requests", num_requests, MOST_REQUESTS)
    if arrivals.process in ("all-at-once", "closed-loop"):
        return np.zeros(num_requests, dtype=np.int64)
    if arrivals.process == "vllm-bench":
        times_s = _vllm_bench_times_s(arrivals, num_requests, rng)
    else:
        times_s = _Renewal(arrivals, rng, phases).next_times_s(num_requests)
    _check_span(float(times_s[-1]))
    return _to_ps(times_s)


def arrivals_within_ps(
    arrivals: ArrivalsSpec,
    duration_s: float,
    rng: np.random.Generator,
    phases: np.random.Generator | None = None,
) -> PsArray:
    """Return the times of all arrivals up to and including ``duration_s``: ``int64[n]``.

    Raises:
        InputError: if there are none or too many, or the clock cannot hold ``duration_s``.
    """
    if arrivals.process in ("all-at-once", "vllm-bench"):
        allowed = f"num_requests, for {arrivals.process}"
        raise InputError("workload", "duration_s", duration_s, allowed)
    _check_span(duration_s)
    renewal = _Renewal(arrivals, rng, phases)
    expected = renewal.expected_within(duration_s)
    check_count("requests in duration_s", expected, MOST_REQUESTS)
    draw = int(expected + _SPARE_SDS * expected**0.5) + _SPARE_SDS
    parts: list[_Floats] = []
    drawn, last_s = 0, 0.0
    while last_s <= duration_s:
        parts.append(renewal.next_times_s(draw))
        drawn, last_s = drawn + draw, float(parts[-1][-1])
        check_count("requests in duration_s", drawn // 2, MOST_REQUESTS)
        draw *= 2
    times_s = np.concatenate(parts)
    # One more than fits by the float, so that the picosecond decides.
    stop = int(np.searchsorted(times_s, duration_s, side="right")) + 1
    times_ps = _to_ps(np.minimum(times_s[:stop], duration_s + 1))
    times_ps = times_ps[times_ps <= to_ps(duration_s)]
    if not len(times_ps):
        rate = "the given rates" if arrivals.rate_per_s is None else f"{arrivals.rate_per_s} /s"
        got = f"{duration_s} s, in which no request arrives at {rate}"
        raise InputError("workload", "duration_s", got, "a longer time or another seed")
    return times_ps


class _Renewal:
    """Independent gaps, drawn piece by piece and summed in one sequence.

    Where the rate changes, the sums are expected numbers of requests, and the curve says when
    that many have been expected: the gaps of a Poisson process then give a Poisson process
    with that rate (Çinlar, Introduction to Stochastic Processes, 1975, section 4.7).
    """

    def __init__(
        self,
        arrivals: ArrivalsSpec,
        rng: np.random.Generator,
        phases: np.random.Generator | None,
    ) -> None:
        self._arrivals, self._rng = arrivals, rng
        self._curve: RateCurve | None = rate_curve(arrivals, phases)
        self._rate_per_s = 1.0 if self._curve is not None else arrivals.rate_per_s or 1.0
        self._drawn, self._last = 0, 0.0

    def expected_within(self, duration_s: float) -> float:
        """Return how many requests are expected in the first ``duration_s``."""
        if self._curve is not None:
            return self._curve.expected_by(duration_s)
        return self._rate_per_s * duration_s

    def next_times_s(self, count: int) -> _Floats:
        """Return the next ``count`` times."""
        with np.errstate(all="ignore"):  # an absurd rate overflows; _check_span refuses it
            if self._arrivals.process == "constant":  # multiples of the gap: no error builds up
                places = np.arange(self._drawn + 1, self._drawn + count + 1)
                sums = np.asarray(places / self._rate_per_s)
            else:
                gaps = _gaps(self._arrivals.burstiness, count, self._rng, self._rate_per_s)
                gaps[0] += self._last  # summed in one sequence, whatever the pieces
                sums = np.cumsum(gaps)
        self._drawn, self._last = self._drawn + count, float(sums[-1])
        return sums if self._curve is None else self._curve.times_s(sums)


def _gaps(
    burstiness: float | None, count: int, rng: np.random.Generator, rate: float | _Floats
) -> _Floats:
    """Return gaps of mean ``1 / rate``: exponential, or gamma of that shape."""
    if burstiness is None:
        return np.asarray(rng.standard_exponential(count) / rate)
    return np.asarray(rng.standard_gamma(burstiness, count) / (rate * burstiness))


def _vllm_bench_times_s(
    arrivals: ArrivalsSpec, num_requests: int, rng: np.random.Generator
) -> _Floats:
    """Return the times of ``vllm bench serve`` (its process, not its random numbers).

    At a fixed rate they are stretched so that the last is exactly ``num_requests / rate``; a
    ramp goes by request number, not by time, and is not stretched.
    """
    with np.errstate(all="ignore"):
        if arrivals.rate_per_s is None:
            rates_per_s = _ramp_rates_per_s(arrivals, num_requests)
            return np.cumsum(_gaps(arrivals.burstiness, num_requests, rng, rates_per_s))
        sums = np.cumsum(_gaps(arrivals.burstiness, num_requests, rng, 1.0))
        if sums[-1] == 0:  # gaps too bursty for a float: vLLM sends all at once, too
            return sums
        times_s = sums / sums[-1] * (num_requests / arrivals.rate_per_s)
        return np.asarray(times_s)


def _ramp_rates_per_s(arrivals: ArrivalsSpec, num_requests: int) -> _Floats:
    """Return the rate at every request (vllm/benchmarks/serve.py, _get_current_request_rate)."""
    start, end = arrivals.start_rate_per_s or 1.0, arrivals.end_rate_per_s or 1.0
    progress = np.arange(num_requests) / max(num_requests - 1, 1)
    if arrivals.ramp_up == "linear":
        return np.asarray(start + (end - start) * progress)
    return np.asarray(start * (end / start) ** progress)


def _check_span(span_s: float) -> None:
    if not span_s * PS_PER_S <= LONGEST_SPAN_PS:  # so that not-a-number is refused too
        got = f"arrivals over {span_s / 86_400:.3g} days"
        raise InputError("workload", "arrivals", got, f"at most {LONGEST_SPAN_DAYS} days")


def _to_ps(times_s: _Floats) -> PsArray:
    return np.rint(times_s * PS_PER_S).astype(np.int64)
