"""Two runs side by side as text in 80 columns and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simserve.planning.where_it_changed import Parts
from simserve.report.columns import enumerated, filled, labelled
from simserve.report.intervals import SHORT_OF
from simserve.report.plain_words import PART_WORDS
from simserve.results.compare import Comparison, PairedErrors, Row
from simserve.results.intervals import Interval
from simserve.results.measured import RATES, Measurement
from simserve.results.metrics import LATENCY_METRICS
from simserve.results.samples import MS_PER_S
from simserve.results.waterfall import COMPONENTS

_SHORT_OF = {
    **SHORT_OF,
    "request_throughput": "requests/s",
    "output_throughput": "output tokens/s",
}
_ANSWERS = {
    "higher": "higher",
    "lower": "lower",
    "same": "the same",
    "chance": "may be chance",
    "unknown": "no interval",
}
_SURE = ("higher", "lower")
_INDENT = "  "
_NAME, _NUMBER, _CHANGE = 17, 15, 10
_PART, _CELL = 26, 9
_IN_SECONDS_FROM_S = 100.0  # more milliseconds than a cell holds
# A part that makes up less of the change than this is not named.
_WORTH_SAYING = 0.1
# Differences of settings that are listed; two models differ in everything.
_MOST_DIFFERENCES = 12


def compare_text(found: Comparison, parts: Sequence[Parts] = ()) -> str:
    """Return the report; ``parts`` are those of two simulated runs."""
    lines = labelled([("A", _about(found.a)), ("B", _about(found.b))])
    lines += ["", *_table(found)]
    if found.errors:
        lines += ["", *_errors(found)]
    if parts:
        lines += ["", *_where(parts)]
    lines += ["", *filled(f"Verdict: {verdict(found)}")]
    lines += [line for text in _parts_words(found, parts) for line in filled(text)]
    if found.differing:
        shown = found.differing[:_MOST_DIFFERENCES]
        more = len(found.differing) - len(shown)
        rest = f" … and {more} more" if more else ""
        lines += filled(f"Settings that differ: {'; '.join(shown)}{rest}", hang=_INDENT)
    notes = [f"{which}: {note}" for which, one in _sides(found) for note in one.notes]
    lines += [line for note in notes for line in filled(note, hang=_INDENT)]
    for one in found.not_compared:
        lines += filled(f"Not compared: {one}", hang=_INDENT)
    return "\n".join(lines)


def verdict(found: Comparison) -> str:
    """Return what may be claimed of the mean latencies, in words."""
    means = {row.name: row for row in found.rows if row.statistic == "mean"}
    latencies = [means[name] for name in LATENCY_METRICS if name in means]
    if not latencies:
        return "there is no latency that both runs have"
    sure = [row for row in latencies if row.answer in _SURE]
    open_ones = [row for row in latencies if row.answer == "chance"]
    unknown = [row for row in latencies if row.answer == "unknown"]
    same = [row for row in latencies if row.answer == "same"]
    parts = []
    for by_parts, basis in ((False, "beyond chance"), (True, "in every tenth of the run")):
        words = [
            f"{_SHORT_OF[row.name]} is {_percent(row)} {row.answer}"
            for row in sure
            if row.by_parts is by_parts
        ]
        if words:
            parts.append(f"in B, {enumerated(words)} on average, {basis}")
    if same:
        parts.append(f"{_names(same)} {_is(same)} the same")
    if open_ones:
        parts.append(f"that {_names(open_ones)} {_differ(open_ones)} may be chance")
    if unknown:
        parts.append(f"of {_names(unknown)} nothing can be claimed, for want of intervals")
    text = "; ".join(parts)
    unsound = [which for which, one in _sides(found) if one.verdict == "overloaded"]
    if unsound:
        text += f". {' and '.join(unsound)} overloaded: latencies depend on how long the run is"
    return text + "."


def _sides(found: Comparison) -> tuple[tuple[str, Measurement], tuple[str, Measurement]]:
    return ("A", found.a), ("B", found.b)


def _about(one: Measurement) -> str:
    words = [one.where, f"{one.kind}, {'simulated' if one.simulated else 'measured'}"]
    if one.model:
        words.append(one.model)
    if one.completed is not None:
        words.append(f"{one.completed:,} finished")
    if one.failed:
        words.append(f"{one.failed:,} did not")
    if one.verdict:
        words.append(one.verdict)
    return ", ".join(words)


def _table(found: Comparison) -> list[str]:
    head = (
        f"{'in ms':<{_NAME}}{'A':>{_NUMBER}}{'B':>{_NUMBER}}{'B/A - 1':>{_CHANGE}}  beyond chance"
    )
    lines = [head]
    for row in found.rows:
        latency = row.name in LATENCY_METRICS
        factor = MS_PER_S if latency else 1
        name = _SHORT_OF[row.name] + (f" {row.statistic}" if latency else "")
        cells = [
            _cell(value * factor, interval, factor)
            for value, interval in ((row.a, row.a_interval), (row.b, row.b_interval))
        ]
        change = "–" if row.change_frac is None else _change(row.change_frac)
        answer = _ANSWERS[row.answer] if latency else ""
        if row.by_parts:
            answer += " (tenths)"
        elif row.paired is not None and row.paired.low is not None:
            answer += " (pairs)"
        line = f"{name:<{_NAME}}{cells[0]:>{_NUMBER}}{cells[1]:>{_NUMBER}}{change:>{_CHANGE}}"
        lines.append(f"{line}  {answer}".rstrip())
    return lines


def _change(frac: float) -> str:
    return f"{frac:+,.0%}" if abs(frac) >= 1 else f"{frac:+.1%}"


def _cell(value: float, interval: Interval | None, factor: float) -> str:
    half = interval.half_width if interval is not None else None
    return _number(value) if half is None else f"{_number(value)} ±{_number(half * factor)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _errors(found: Comparison) -> list[str]:
    pairs = max(one.requests for one in found.errors)
    lines = filled(f"Request by request ({pairs:,} pairs), B less A in ms", hang=_INDENT)
    head = f"{'':<{_NAME}}{'mean':>{_CHANGE}}{'mean |error|':>{_NUMBER}}"
    lines.append(f"{head}{'median |error|':>{_NUMBER}}{'p95 |error|':>{_NUMBER}}")
    return lines + [_error_line(one) for one in found.errors]


def _error_line(one: PairedErrors) -> str:
    shares = [
        "–" if value is None else f"{value:.1%}"
        for value in (one.median_abs_frac, one.p95_abs_frac)
    ]
    mean = f"{one.mean_s * MS_PER_S:+.3g}"
    line = f"{_SHORT_OF[one.metric]:<{_NAME}}{mean:>{_CHANGE}}"
    line += f"{_number(one.mean_abs_s * MS_PER_S):>{_NUMBER}}"
    return line + "".join(f"{share:>{_NUMBER}}" for share in shares)


def _where(parts: Sequence[Parts]) -> list[str]:
    """Return the parts of each latency, of all requests and of the tail beside each other."""
    lines = []
    for metric in dict.fromkeys(one.metric for one in parts):
        both = [one for one in parts if one.metric == metric]
        longest_s = max(side.latency_s for one in both for side in (one.a, one.b))
        unit, per_s = ("s", 1.0) if longest_s >= _IN_SECONDS_FROM_S else ("ms", MS_PER_S)
        heads = "".join(f"{one.a.name:>{3 * _CELL}}" for one in both)
        lines.append(f"{f'Where the {_SHORT_OF[metric]} went, {unit}':<{_PART}}{heads}")
        lines.append(f"{'':<{_PART}}{''.join(f'{x:>{_CELL}}' for x in ('A', 'B', 'B - A') * 2)}")
        for part in COMPONENTS:
            if any(side.parts_s[part] for one in both for side in (one.a, one.b)):
                sides = [(one.a.parts_s[part], one.b.parts_s[part]) for one in both]
                lines.append(_part_line(f"{_INDENT}{PART_WORDS[part]}", sides, per_s))
        sums = [(one.a.latency_s, one.b.latency_s) for one in both]
        lines.append(_part_line(_SHORT_OF[metric], sums, per_s))
    return lines


def _part_line(name: str, sides: Sequence[tuple[float, float]], per_s: float) -> str:
    cells = [
        cell
        for a, b in sides
        for cell in (_digits(a * per_s), _digits(b * per_s), _signed((b - a) * per_s))
    ]
    return f"{name:<{_PART}}{''.join(f'{cell:>{_CELL}}' for cell in cells)}"


def _digits(value: float) -> str:
    value = round(abs(value), 2)
    if not value:
        return "0"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _signed(value: float) -> str:
    text = _digits(value)
    return text if text == "0" else f"{'-' if value < 0 else '+'}{text}"


def _parts_words(found: Comparison, parts: Sequence[Parts]) -> list[str]:
    """Say which parts make a mean that is sure to differ, and the tail beside it.

    Of an overloaded run nothing: what its requests wait for changes with how long it goes on.
    """
    if "overloaded" in (found.a.verdict, found.b.verdict):
        return []
    sure = {row.name for row in found.rows if row.statistic == "mean" and row.answer in _SURE}
    return [
        f"Of the {_signed(one.latency_change_s * MS_PER_S)} ms of {_SHORT_OF[one.metric]} "
        f"{'on average' if one.is_all else f'at {one.a.name}'}: {_largest(one)}."
        for one in parts
        if one.metric in sure and one.latency_change_s
    ]


def _largest(one: Parts) -> str:
    """Return the parts that make up the change, those on its side first."""
    shares = {name: change / one.latency_change_s for name, change in one.change_s.items()}
    worth = [name for name in shares if abs(shares[name]) >= _WORTH_SAYING]
    worth.sort(key=lambda name: (shares[name] < 0, -abs(shares[name])))
    return enumerated(
        [f"{PART_WORDS[name]} {_signed(one.change_s[name] * MS_PER_S)}" for name in worth]
    )


def _percent(row: Row) -> str:
    change = 0.0 if row.change_frac is None else abs(row.change_frac)
    return f"{change:,.0%}" if change >= 1 else f"{change:.1%}"


def _names(rows: list[Row]) -> str:
    return enumerated([_SHORT_OF[row.name] for row in rows])


def _is(rows: list[Row]) -> str:
    return "are" if len(rows) > 1 else "is"


def _differ(rows: list[Row]) -> str:
    return "differ" if len(rows) > 1 else "differs"


def compare_dict(found: Comparison, parts: Sequence[Parts] = ()) -> dict[str, Any]:
    """Return everything as JSON-able data; latencies in ms."""
    return {
        "a": _side_dict(found.a),
        "b": _side_dict(found.b),
        "rows": [_row_dict(row) for row in found.rows],
        "pairs": [
            {
                "metric": one.metric,
                "requests": one.requests,
                "mean_error_ms": one.mean_s * MS_PER_S,
                "mean_abs_error_ms": one.mean_abs_s * MS_PER_S,
                "median_abs_error_frac": one.median_abs_frac,
                "p95_abs_error_frac": one.p95_abs_frac,
            }
            for one in found.errors
        ],
        "parts": [
            {
                "metric": one.metric,
                "requests": one.a.name,
                **{
                    f"{side}_ms": {name: value * MS_PER_S for name, value in band.parts_s.items()}
                    for side, band in (("a", one.a), ("b", one.b))
                },
            }
            for one in parts
        ],
        "verdict": verdict(found),
        "not_compared": list(found.not_compared),
        "differing_settings": list(found.differing),
    }


def _side_dict(one: Measurement) -> dict[str, Any]:
    return {
        "where": one.where,
        "kind": one.kind,
        "simulated": one.simulated,
        "model": one.model,
        "completed": one.completed,
        "failed": one.failed,
        "verdict": one.verdict,
        "notes": list(one.notes),
    }


def _row_dict(row: Row) -> dict[str, Any]:
    factor = 1 if row.name in RATES else MS_PER_S
    intervals = {"a": row.a_interval, "b": row.b_interval, "paired": row.paired}
    return {
        "name": row.name,
        "statistic": row.statistic,
        "unit": "1/s" if row.name in RATES else "ms",
        "a": row.a * factor,
        "b": row.b * factor,
        "change_frac": row.change_frac,
        "beyond_chance": row.answer,
        "in_every_tenth": row.by_parts,
        "intervals": {
            name: one.as_dict(factor) for name, one in intervals.items() if one is not None
        },
    }
