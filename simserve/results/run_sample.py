"""What one run contributes to estimates: its latencies in order of time, and where it is steady.

Small enough to travel between processes, unlike the record with all its steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from simserve.records.clock import PS_PER_S
from simserve.records.run_record import RunRecord
from simserve.results.batch_means import Series
from simserve.results.gap_series import gap_series
from simserve.results.metrics import RequestLatencies, request_latencies
from simserve.results.promises import Promise, asked_of, promises, within_limits
from simserve.results.run_facts import RunFacts
from simserve.results.samples import FloatArray
from simserve.results.verdict import Verdict, VerdictName
from simserve.results.warmup import SteadyWindow, steady_window, whole_run

RATES = ("requests", "output_tokens")
"""What is counted per second of arrivals."""
_CHANGING = {"piecewise": "goes in steps", "diurnal": "follows the day"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSample:
    """One run.

    ``unsteady`` says why it has no steady state; ``changes`` whether that is so by design,
    because the rate itself changes. ``latencies`` has a series per metric (``LATENCY_METRICS``),
    ``rates`` one for each of ``RATES``. ``within`` marks who is within the limits of all
    objectives, percentile ones too.
    """

    seed: int
    verdict: VerdictName
    unsteady: str | None
    changes: bool
    window: SteadyWindow
    latencies: Mapping[str, Series]
    rates: Mapping[str, Series]
    promises: tuple[Promise, ...]
    within: Series

    @classmethod
    def of(
        cls, record: RunRecord, verdict: Verdict, facts: RunFacts, *, gaps: bool = True
    ) -> RunSample:
        """Return what a run contributes; without ``gaps``, no waits between tokens (ITL)."""
        latencies = request_latencies(record)
        changing = changing_rate(facts)
        if changing is not None:
            window = whole_run(record)
        else:
            window = _window(record, latencies, _arrivals(facts))
        series = _latency_series(record, latencies, window, gaps=gaps)
        asked = asked_of(facts.slo(), facts.class_slos(), record)
        return cls(
            seed=facts.seed,
            verdict=verdict.name,
            unsteady=changing or _unsteady(verdict, window, bool(latencies.finished.any())),
            changes=changing is not None,
            window=window,
            latencies=series,
            rates=_rate_series(record, latencies, window),
            promises=promises(asked, record, latencies, window),
            within=within_limits(asked, latencies, window),
        )


def changing_rate(facts: RunFacts) -> str | None:
    """Return why the workload itself has no steady state, if so."""
    arrivals = _arrivals(facts)
    process = arrivals.get("process", "")
    if process == "all-at-once":
        return "all requests come at once"
    if process in _CHANGING:
        return f"the rate of arrivals {_CHANGING[process]}"
    return "the rate of arrivals ramps up" if arrivals.get("ramp_up") else None


def _window(
    record: RunRecord, latencies: RequestLatencies, arrivals: Mapping[str, Any]
) -> SteadyWindow:
    users = arrivals.get("users")
    at_once = users is not None and not arrivals.get("think_time_s")
    return steady_window(record, latencies, starts_empty=not at_once, users=users)


def _arrivals(facts: RunFacts) -> Mapping[str, Any]:
    return facts.resolved["workload"].get("arrivals") or {}


def _unsteady(verdict: Verdict, window: SteadyWindow, any_finished: bool) -> str | None:
    if not any_finished:
        return "no request was finished"
    if verdict.name == "undecided":
        return "the run is too short to show a steady state"
    if verdict.name != "stable":
        return f"the run is {verdict.name}"
    if not window.settled:
        return "warm-up and drain are most of the run (a longer one may settle)"
    return None


def _latency_series(
    record: RunRecord, latencies: RequestLatencies, window: SteadyWindow, *, gaps: bool
) -> dict[str, Series]:
    """Return the latencies of finished requests in the window, by metric."""
    by_request = {
        "ttft": np.where(latencies.finished, latencies.ttft_s, np.nan),
        "tpot": latencies.tpot_s,
        "e2el": latencies.e2el_s,
    }
    found = {}
    for name, values in by_request.items():
        inside = values[window.first : window.stop]
        found[name] = Series.of_values(inside[~np.isnan(inside)])
    if gaps:
        found["itl"] = gap_series(record, latencies.finished & window.mask())
    return found


def _rate_series(
    record: RunRecord, latencies: RequestLatencies, window: SteadyWindow
) -> dict[str, Series]:
    """Return what the requests of the window add, per second since the arrival before."""
    first = max(window.first, 1)  # the first of all has none before it
    inside = slice(first, max(window.stop, first))
    gaps_s = np.diff(record.requests.arrival_ps)[first - 1 : inside.stop - 1] / PS_PER_S
    finished = latencies.finished[inside]
    tokens = np.where(finished, record.outcomes.generated_tokens[inside], 0)
    amounts: dict[str, FloatArray] = {
        "requests": finished.astype(np.float64),
        "output_tokens": tokens.astype(np.float64),
    }
    if not gaps_s.sum():  # all at once
        nothing = np.empty(0)
        return {name: Series(nothing, nothing) for name in RATES}
    return {name: Series(amounts[name], gaps_s) for name in RATES}
