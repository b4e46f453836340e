"""How far a calibration can be trusted: does a point repeat, did the machine drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np

from calibrate.measure.journal import Entry
from calibrate.results import Results, is_ok

_PERCENT = 100.0


def repeat_errors(results: Results) -> list[tuple[str, float]]:
    """Return name and ``|second / first - 1|`` of every point that was measured again."""
    found = []
    for name, again in results.repeats.items():
        first = results.points.get(name)
        if first is not None and is_ok(first) and is_ok(again):
            found.append((name, abs(again["us_p50"] / first["us_p50"] - 1)))
    return found


def drift_of(entries: Sequence[Entry]) -> float:
    """Return how far a sentinel's times are from their median at most, as a fraction."""
    times = [one["us_p50"] for one in entries]
    middle = median(times)
    return float(max(abs(one / middle - 1) for one in times))


def by_sentinel(results: Results) -> Mapping[str, list[Entry]]:
    """Return the measurements of each sentinel, in order."""
    found: dict[str, list[Entry]] = {}
    for one in results.sentinels:
        found.setdefault(one["name"], []).append(one)
    return found


def quality_facts(results: Results) -> dict[str, float]:
    """Return repeatability, drift and the share of flagged points, in percent."""
    facts: dict[str, float] = {}
    errors = [error for _, error in repeat_errors(results)]
    if errors:
        middle, high = np.percentile(errors, (50, 90))
        facts["repeats"] = len(errors)
        facts["repeat_p50_pct"] = round(_PERCENT * float(middle), 2)
        facts["repeat_p90_pct"] = round(_PERCENT * float(high), 2)
    drifts = [drift_of(one) for one in by_sentinel(results).values() if len(one) > 1]
    if drifts:
        facts["drift_pct"] = round(_PERCENT * max(drifts), 2)
    measured = [one for one in results.points.values() if is_ok(one)]
    if measured:
        flagged = sum(bool(one.get("flag")) for one in measured)
        facts["flagged_pct"] = round(_PERCENT * flagged / len(measured), 2)
    return facts
