"""Rates that change with time, as the expected number of requests up to each instant.

A curve is asked the other way round: when have so many requests been expected? That turns a
sequence of gaps of mean 1 into arrivals whose rate follows the curve.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from simserve.errors import InputError
from simserve.inputs.workload import ArrivalsSpec, RateStep

_Floats = npt.NDArray[np.float64]

_DAY_S = 86_400.0
# Halvings of the bracket around a time: more than a float64 has digits.
_HALVINGS = 60
# Phases of an on-off process drawn at first; then as many as there are.
_FEWEST_PHASES = 1024
_MOST_PHASES = 10_000_000


class RateCurve(Protocol):
    """A rate over time."""

    def times_s(self, expected: _Floats) -> _Floats:
        """Return when so many requests have been expected."""
        ...

    def expected_by(self, time_s: float) -> float:
        """Return how many requests are expected up to a time."""
        ...


def rate_curve(arrivals: ArrivalsSpec, phases: np.random.Generator | None) -> RateCurve | None:
    """Return the curve of a process, or None if its rate never changes."""
    if arrivals.process == "piecewise" and arrivals.steps is not None:
        return Piecewise(arrivals.steps, arrivals.rate_per_s)
    if arrivals.process == "diurnal" and arrivals.rate_per_s and arrivals.peak_to_mean:
        return Diurnal(
            arrivals.rate_per_s,
            arrivals.peak_to_mean - 1,
            arrivals.period_s or _DAY_S,
            arrivals.peak_at_s,
        )
    if arrivals.process == "on-off" and arrivals.rate_per_s and arrivals.on_s and arrivals.off_s:
        generator = phases if phases is not None else np.random.default_rng(0)
        low_frac = arrivals.off_rate_frac or 0.0
        return OnOff(arrivals.rate_per_s, arrivals.on_s, arrivals.off_s, low_frac, generator)
    return None


class Piecewise:
    """Steps of constant or evenly changing rate, one after another, over and over."""

    def __init__(self, steps: tuple[RateStep, ...], mean_per_s: float | None) -> None:
        lengths_s = np.array([step.duration_s for step in steps])
        counts = np.array([step.requests for step in steps])
        scale = 1.0 if mean_per_s is None else mean_per_s * lengths_s.sum() / counts.sum()
        starts = np.array([step.rate_per_s for step in steps])
        ends = np.array(
            [s.rate_per_s if s.to_rate_per_s is None else s.to_rate_per_s for s in steps]
        )
        self._rate, self._slope = starts * scale, (ends - starts) * scale / lengths_s
        self._lengths_s = lengths_s
        self._edge_s = np.concatenate(([0.0], np.cumsum(lengths_s)))
        self._edge = np.concatenate(([0.0], np.cumsum(counts * scale)))

    def times_s(self, expected: _Floats) -> _Floats:
        """Return when so many requests have been expected."""
        rounds, rest = np.divmod(expected, self._edge[-1])
        # A step without requests is passed over: none can fall into it.
        step = np.searchsorted(self._edge, rest, side="right") - 1
        step = np.minimum(step, len(self._rate) - 1)
        rate, slope, left = self._rate[step], self._slope[step], rest - self._edge[step]
        # Solves rate·t + slope·t²/2 = left in the form that does not cancel.
        root = np.sqrt(np.maximum(rate**2 + 2 * slope * left, 0))
        below = rate + root
        within = np.divide(2 * left, below, out=np.zeros_like(left), where=below > 0)
        within = np.minimum(within, self._lengths_s[step])
        return np.asarray(rounds * self._edge_s[-1] + self._edge_s[step] + within)

    def expected_by(self, time_s: float) -> float:
        """Return how many requests are expected up to a time."""
        rounds, rest = divmod(time_s, self._edge_s[-1])
        step = min(int(np.searchsorted(self._edge_s, rest, side="right")) - 1, len(self._rate) - 1)
        within = rest - self._edge_s[step]
        count = self._rate[step] * within + self._slope[step] * within**2 / 2
        return float(rounds * self._edge[-1] + self._edge[step] + count)


class Diurnal:
    """A sine around a mean rate; its peak is at ``peak_at_s`` (half a period if not given)."""

    def __init__(
        self, mean_per_s: float, swing: float, period_s: float, peak_at_s: float | None
    ) -> None:
        self._mean_per_s, self._swing = mean_per_s, swing
        self._turn_s = period_s / (2 * np.pi)
        self._peak_s = period_s / 2 if peak_at_s is None else peak_at_s

    def times_s(self, expected: _Floats) -> _Floats:
        """Return when so many requests have been expected, by halving a bracket."""
        middle_s = expected / self._mean_per_s
        reach_s = 2 * self._swing * self._turn_s  # the sine never runs ahead by more
        low, high = np.maximum(middle_s - reach_s, 0), middle_s + reach_s
        for _ in range(_HALVINGS):
            half = (low + high) / 2
            early = self._expected(half) < expected
            low, high = np.where(early, half, low), np.where(early, high, half)
        return np.asarray(np.maximum.accumulate((low + high) / 2))

    def expected_by(self, time_s: float) -> float:
        """Return how many requests are expected up to a time."""
        return float(self._expected(np.array([time_s]))[0])

    def _expected(self, time_s: _Floats) -> _Floats:
        wave = np.sin((time_s - self._peak_s) / self._turn_s) + np.sin(self._peak_s / self._turn_s)
        return np.asarray(self._mean_per_s * (time_s + self._swing * self._turn_s * wave))


class OnOff:
    """Bursts and pauses of exponential length: a Markov-modulated process of two states.

    It starts in the state that a look at a random instant would find. ``expected_by`` is the
    mean over all courses; ``times_s`` follows the one that was drawn.
    """

    def __init__(
        self,
        mean_per_s: float,
        on_s: float,
        off_s: float,
        low_frac: float,
        rng: np.random.Generator,
    ) -> None:
        self._mean_per_s, self._rng = mean_per_s, rng
        burst_per_s = mean_per_s * (on_s + off_s) / (on_s + low_frac * off_s)
        self._rates = (burst_per_s, burst_per_s * low_frac)
        self._means_s = (on_s, off_s)
        self._state = int(rng.random() * (on_s + off_s) >= on_s)
        self._edge_s = np.zeros(1)
        self._edge = np.zeros(1)

    def times_s(self, expected: _Floats) -> _Floats:
        """Return when so many requests have been expected."""
        cycle_s = sum(self._means_s)
        if not expected[-1] / self._mean_per_s / cycle_s < _MOST_PHASES / 2:
            allowed = f"longer bursts and pauses: at most {_MOST_PHASES} in a run"
            raise InputError("workload", "arrivals.on_s and off_s", f"{cycle_s:g} s", allowed)
        while self._edge[-1] < expected[-1]:
            self._draw_phases()
        return np.interp(expected, self._edge, self._edge_s)

    def expected_by(self, time_s: float) -> float:
        """Return how many requests are expected up to a time, whatever the course."""
        return self._mean_per_s * time_s

    def _draw_phases(self) -> None:
        count = max(_FEWEST_PHASES, len(self._edge) - 1)  # even, so that bursts begin a draw again
        states = (self._state + np.arange(count)) % 2
        lengths_s = self._rng.standard_exponential(count) * np.take(self._means_s, states)
        counts = lengths_s * np.take(self._rates, states)
        self._edge_s = np.concatenate((self._edge_s, self._edge_s[-1] + np.cumsum(lengths_s)))
        self._edge = np.concatenate((self._edge, self._edge[-1] + np.cumsum(counts)))
