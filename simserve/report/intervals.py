"""Numbers with their intervals as text and as JSON: one run's, or those of replications."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from simserve.planning.calibration import CalibrationBand
from simserve.planning.precision import PreciseRuns
from simserve.report.columns import filled, labelled
from simserve.results.attainment import Attainment
from simserve.results.intervals import Interval
from simserve.results.samples import MS_PER_S, three_digits
from simserve.results.steady_state import STATISTICS, SteadyState

SHORT_OF = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2el": "E2E"}
"""Latencies as they are called in tables."""
_LABEL_WIDTH, _CELL_WIDTH = 6, 14
_INDENT = "  "
# Digits of a half-width that are shown; its number is then shown as finely.
_DIGITS = 2
NO_INTERVAL = "–"
TOO_FEW_ANSWERED = "too few were answered"
"""What a percentile of all requests came to, if it falls on those that got no answer."""


def steady_state_lines(state: SteadyState, band: CalibrationBand | None = None) -> list[str]:
    """Return the intervals as lines of at most 80 columns, with what was left out and why."""
    if state.reason is not None:
        return filled(f"No steady-state intervals: {state.reason}.", hang=_INDENT)
    lines = filled(_title(state), hang=_INDENT)
    lines += _table(state, band.half_widths_s if band is not None else {})
    lines += [
        line
        for reason, names in _reasons(state).items()
        for line in filled(f"{NO_INTERVAL} {', '.join(names)}: {reason}", _INDENT, _INDENT * 2)
    ]
    if len(state.runs) == 1 and _reasons(state):
        lines += filled("--precision 5% replicates until every p99 is known.", _INDENT, _INDENT)
    lines += filled(_rates(state), _INDENT, _INDENT)
    if band is not None:
        lines += filled(_about(band), _INDENT, _INDENT)
    return lines


def replication_lines(
    state: SteadyState,
    kept: Sequence[Attainment],
    band: CalibrationBand,
    precise: PreciseRuns | None,
) -> list[str]:
    """Return what several replications say: intervals, objectives, and the precision reached."""
    lines = steady_state_lines(state, band)
    if precise is not None:
        lines += filled(_INDENT + precision_words(precise), hang=_INDENT)
    if kept and state.reason is not None:
        lines += labelled([("SLO", "not shown to be met: there is no steady state to judge it on")])
    elif kept:
        lines += labelled([("" if at else "SLO", _kept(one)) for at, one in enumerate(kept)])
    return lines


def precision_words(precise: PreciseRuns) -> str:
    """Return whether the precision that was asked for was reached."""
    runs, wanted = len(precise.state.runs), f"{precise.wanted_frac * 100:.3g} %"
    metric = SHORT_OF[precise.worst_metric]
    if precise.reached:
        return (
            f"Precision: after {runs} replications every p99 is known to within {wanted}; "
            f"{metric}'s, the widest, to ±{precise.worst_frac:.2%}."
        )
    if precise.state.reason is not None:
        why = "more runs do not make a steady state; longer ones may"
        return f"Precision {wanted} cannot be reached: {why}."
    got = "has no interval yet"
    if precise.worst_frac is not None:
        got = f"is known to ±{precise.worst_frac:.2%} only"
    return f"Precision {wanted} not reached after {runs} replications: {metric}'s p99 {got}."


def replications_dict(
    state: SteadyState,
    kept: Sequence[Attainment],
    band: CalibrationBand,
    precise: PreciseRuns | None,
) -> dict[str, Any]:
    """Return everything above as JSON-able data; latencies in ms."""
    return {
        **steady_state_dict(state),
        "calibration": {
            "half_widths_ms": {
                metric: {name: half * MS_PER_S for name, half in found.items()}
                for metric, found in band.half_widths_s.items()
            },
            "source": band.source,
            "reason": band.reason,
        },
        "slo": [attainment_dict(one) for one in kept],
        "precision": None
        if precise is None
        else {
            "wanted_frac": precise.wanted_frac,
            "worst_frac": precise.worst_frac,
            "worst_metric": precise.worst_metric,
            "reached": precise.reached,
        },
    }


def steady_state_dict(state: SteadyState) -> dict[str, Any]:
    """Return the intervals and what they rest on as JSON-able data; latencies in ms."""
    return {
        "replications": [
            {
                "seed": run.seed,
                "verdict": run.verdict,
                "unsteady": run.unsteady,
                "warmup_requests": run.window.first,
                "warmup_s": run.window.warmup_s,
                "drain_requests": run.window.drain_requests,
                "drain_s": run.window.drain_s,
            }
            for run in state.runs
        ],
        "reason": state.reason,
        "whole_runs": state.whole_runs,
        "latency_ms": {
            metric: {name: one.as_dict(MS_PER_S) for name, one in found.items()}
            for metric, found in state.latencies.items()
        },
        "per_second": {name: one.as_dict() for name, one in state.rates.items()},
    }


def attainment_dict(one: Attainment) -> dict[str, Any]:
    """Return one promise as JSON-able data."""
    return {
        "name": one.name,
        "required_frac": one.required,
        "attained_frac": one.share,
        "low_frac": one.low,
        "high_frac": one.high,
        "met": one.met,
    }


def _title(state: SteadyState) -> str:
    runs = state.runs
    title = "Steady state in ms, ± 95 % interval"
    if state.whole_runs:
        return f"Whole runs in ms, ± 95 % interval · {len(runs)} replications, nothing left out"
    if len(runs) == 1:
        left_out = _left_out(runs[0].window.first, runs[0].window.warmup_s, "first")
        drain = _left_out(runs[0].window.drain_requests, runs[0].window.drain_s, "last")
        return f"{title} · {left_out} left out as warm-up, {drain} as drain"
    first = [run.window.first for run in runs]
    last = [run.window.drain_requests for run in runs]
    return (
        f"{title} · {len(runs)} replications, of each the first {_range(first)} requests left "
        f"out as warm-up, the last {_range(last)} as drain"
    )


def _left_out(requests: int, lasting_s: float, which: str) -> str:
    return f"{which} {requests:,} requests ({three_digits(lasting_s)} s)"


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _table(state: SteadyState, calibration: Mapping[str, Mapping[str, float]]) -> list[str]:
    lines = [_row("", STATISTICS)]
    for metric, short in SHORT_OF.items():
        found = state.latencies.get(metric)
        if found is None:
            continue
        lines.append(_row(short, [_cell(found.get(name)) for name in STATISTICS]))
        band = calibration.get(metric)
        if band:
            lines.append(_row("", [_calibrated(found, band, name) for name in STATISTICS]))
    return lines


def _row(label: str, cells: Iterable[str]) -> str:
    return (
        f"{label:<{_LABEL_WIDTH}}" + "".join(f"{cell:>{_CELL_WIDTH}}" for cell in cells)
    ).rstrip()


def _cell(interval: Interval | None) -> str:
    half = interval.half_width if interval is not None else None
    if interval is None or half is None:
        return NO_INTERVAL
    return with_half_width(interval.value * MS_PER_S, half * MS_PER_S)


def _calibrated(found: Mapping[str, Interval], band: Mapping[str, float], name: str) -> str:
    """Return the half-width from calibration, beneath that from sampling."""
    if name not in found or found[name].half_width is None or name not in band:
        return ""
    decimals = _decimals(band[name] * MS_PER_S)
    return f"±{band[name] * MS_PER_S:,.{decimals}f} cal"


def with_half_width(value: float, half: float) -> str:
    """Return ``value ±half``, both to the second digit of ``half``."""
    decimals = _decimals(half)
    return f"{value:,.{decimals}f} ±{half:,.{decimals}f}"


def _decimals(half: float) -> int:
    """Return the decimals that show ``_DIGITS`` digits of ``half``, at most three."""
    decimals = 3
    while decimals and half >= 10 ** (_DIGITS - decimals):
        decimals -= 1
    return decimals


def _reasons(state: SteadyState) -> dict[str, list[str]]:
    """Return why there are dashes: for each reason, which."""
    found: dict[str, list[str]] = {}
    for metric, statistics in state.latencies.items():
        by_reason: dict[str, list[str]] = {}
        for name, one in statistics.items():
            if one.reason is not None:
                by_reason.setdefault(one.reason, []).append(name)
        for reason, names in by_reason.items():
            which = "all" if len(names) == len(STATISTICS) else ", ".join(names)
            found.setdefault(reason, []).append(f"{SHORT_OF[metric]} {which}")
    return found


def _rates(state: SteadyState) -> str:
    words = []
    for name, unit in (("requests", "requests/s"), ("output_tokens", "output tokens/s")):
        interval = state.rates.get(name)
        if interval is None or interval.half_width is None:
            words.append(f"{NO_INTERVAL} {unit}")
        else:
            words.append(f"{with_half_width(interval.value, interval.half_width)} {unit}")
    return ", ".join(words)


def _about(band: CalibrationBand) -> str:
    if band.reason is not None:
        return f"No calibration band: {band.reason}."
    return f"cal: had the tables been measured again; from {band.source}."


def _kept(one: Attainment) -> str:
    word = "met" if one.met else "missed"
    sure = "" if one.surely_met or one.surely_missed else ", but that may be chance"
    return (
        f"{one.name}: kept by {one.share:.2%} of requests ({one.low:.2%} to {one.high:.2%}), "
        f"{one.required * 100:.4g} % asked: {word}{sure}"
    )
