"""The report on a calibration: does it repeat, did it drift, what is odd, what to measure next."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from calibrate.ceilings import ceiling_facts
from calibrate.device_names import gpu_of
from calibrate.leave_out import TABLES, LeftOut, left_out
from calibrate.quality import by_sentinel, drift_of, quality_facts, repeat_errors
from calibrate.results import Results, is_ok, read_results
from calibrate.suspects import next_points, short_name, suspects
from simserve.errors import shortened

COLUMNS = 80
_NEXT = 10
_SHOWN = 12
_TENTH = (50, 90)


def report_text(folder: Path, gpu: str | None = None, shown: int = _SHOWN) -> str:
    """Return the report on the journal in ``folder``, at most 80 columns wide.

    Raises:
        InputError: if there is no journal, or no datasheet for its device.
    """
    results = read_results(folder)
    name = gpu_of(results.device, gpu)
    left = {table: left_out(results, table, name) for table in TABLES}
    parts = [
        _head(results),
        _blocks(results),
        _repeatability(results),
        _drift(results),
        _errors(left),
        _suspects(results, name, shown),
        _next([one for some in left.values() for one in some], results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(results: Results) -> str:
    device, software = results.device, results.session["facts"]["software"]
    measured = sum(map(is_ok, results.points.values()))
    lines = [
        f"{results.session['plan']} on {device['name']}, {results.session['started']}",
        f"torch {software['torch']}, {measured} points in {results.seconds:.0f} s",
    ]
    lines += [f"  {key:<28}{value:>12g}" for key, value in ceiling_facts(results).items()]
    return "\n".join(lines)


def _blocks(results: Results) -> str:
    lines = [
        f"{'block':<14}{'measured':>9}{'flagged':>9}{'refused':>9}{'failed':>8}{'set-up ms':>11}"
    ]
    blocks = dict.fromkeys(one["block"] for one in results.points.values())
    for block in blocks:
        own = [one for one in results.points.values() if one["block"] == block]
        counts = Counter(one["status"] for one in own)
        flagged = sum(bool(one.get("flag")) for one in own)
        setups = [1e3 * one["setup_s"] for one in own if "setup_s" in one]
        setup = f"{np.median(setups):11.1f}" if setups else ""
        lines.append(
            f"{block:<14}{counts['ok']:>9}{flagged:>9}{counts['refused']:>9}"
            f"{counts['failed']:>8}{setup}"
        )
    lines += [
        _cut(f"{block}: {many} without a time: {reason}")
        for block, reason, many in results.unmeasured()
    ]
    return "\n".join(lines)


def _repeatability(results: Results) -> str:
    errors = repeat_errors(results)
    if not errors:
        return "Repeatability: no point was measured again"
    facts = quality_facts(results)
    lines = [
        f"Repeatability of {len(errors)} points at the end: median "
        f"{facts['repeat_p50_pct']:.1f} %, p90 {facts['repeat_p90_pct']:.1f} %; the worst:"
    ]
    worst = sorted(errors, key=lambda one: -one[1])[:3]
    lines += [_cut(f"  {error:6.1%}  {short_name(results.points[name])}") for name, error in worst]
    return "\n".join(lines)


def _drift(results: Results) -> str:
    sentinels = by_sentinel(results)
    if not sentinels:
        return ""
    lines = ["Drift: how far a sentinel was from its median at most"]
    for entries in sentinels.values():
        change = entries[-1]["us_p50"] / entries[0]["us_p50"] - 1
        told = f"  {drift_of(entries):6.1%}  {len(entries)} times, last over first {change:+.1%}: "
        lines.append(_cut(told + short_name(entries[0])))
    return "\n".join(lines)


def _errors(left: dict[str, list[LeftOut]]) -> str:
    lines = [
        "A point left out, predicted from the others as the simulator does",
        f"{'table':<14}{'points':>7}{'bias':>8}{'median':>8}{'p90':>8}{'worst':>8}",
    ]
    for table, some in left.items():
        if some:
            errors = np.array([one.error for one in some])
            middle, high = np.percentile(np.abs(errors), _TENTH)
            lines.append(
                f"{table:<14}{len(some):>7}{np.median(errors):>+8.1%}{middle:>8.1%}{high:>8.1%}"
                f"{np.abs(errors).max():>8.1%}"
            )
    return "\n".join(lines) if len(lines) > 2 else ""


def _suspects(results: Results, gpu: str, shown: int) -> str:
    odd = list(suspects(results, gpu))
    if not odd:
        return "No suspicious cell"
    lines = [f"{len(odd)} suspicious cells" + (f", {shown} of them" if len(odd) > shown else "")]
    for one in odd[:shown]:
        name = short_name(results.points[one.name])
        lines.append(_cut(f"  {name}: {one.why}"))
    return "\n".join(lines)


def _next(left: Sequence[LeftOut], results: Results) -> str:
    lines = next_points(left, results, _NEXT)
    return "\n".join(["Worth measuring next", *map(_cut, _indented(lines))]) if lines else ""


def _indented(lines: Iterable[str]) -> Iterable[str]:
    return (f"  {line}" for line in lines)


def _cut(line: str) -> str:
    return shortened(line, COLUMNS)


def wrapped(text: str, indent: str = "") -> str:
    """Return a paragraph of at most 80 columns."""
    return textwrap.fill(text, COLUMNS, initial_indent=indent, subsequent_indent=indent)
