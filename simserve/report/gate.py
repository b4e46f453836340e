"""The verdict of a gate: one line that says why, and a small table."""

from __future__ import annotations

from typing import Any

from simserve.planning.gate import GateRow, GateVerdict, Kept, broken
from simserve.report.columns import filled
from simserve.report.intervals import attainment_dict
from simserve.results.attainment import Attainment

_NAME, _CELL, _INTERVAL = 18, 10, 18


def gate_text(found: GateVerdict) -> str:
    """Return the reason in one line, then the table."""
    lines = [reason(found), ""]
    lines.append(f"Over {_runs(found)}, requests that keep")
    head = f"{'':<{_NAME}}{'asked':>{_CELL}}{'baseline':>{_CELL}}{'now':>{_CELL}}"
    lines.append(f"{head}{'95 % interval':>{_INTERVAL}}")
    for row in found.rows:
        lines += _lines(row)
    for note in found.notes:
        lines += filled(f"Note: {note}", hang="  ")
    if not found.passes:
        lines += filled("'simserve explain', with the options of this scenario, says why.")
    return "\n".join(lines)


def reason(found: GateVerdict) -> str:
    """Return the one line."""
    bad = broken(found.rows)
    if bad:
        worst = bad[0].now
        return f"broken: {worst.name} kept by {worst.share:.1%} of requests, {_asked(worst)} asked"
    if found.newly_unsteady:
        return "broken: most replications have no steady state; that of the baseline is gone"
    doubtful = sum(row.outcome == "may be chance" for row in found.rows)
    already = sum(row.outcome == "broken before" for row in found.rows)
    text = f"passed: {len(found.rows) - doubtful - already} of {len(found.rows)} kept"
    if doubtful:
        text += f", {doubtful} missed but that may be chance"
    if already:
        text += f", {already} broken before too"
    return text


def _runs(found: GateVerdict) -> str:
    return f"{found.replications} replication{'' if found.replications == 1 else 's'}"


def _lines(row: GateRow) -> list[str]:
    now = row.now
    before = "–" if row.before is None else _share(row.before)
    interval = f"{now.low:.1%} to {now.high:.1%}"
    numbers = f"{_asked(now):>{_CELL}}{before:>{_CELL}}{now.share:>{_CELL}.1%}"
    name = now.name if len(now.name) < _NAME else ""
    lines = [] if name else [now.name]
    return [*lines, f"{name:<{_NAME}}{numbers}{interval:>{_INTERVAL}}  {row.outcome}"]


def _asked(now: Attainment) -> str:
    return f"{now.required * 100:.4g}%"


def _share(before: Kept) -> str:
    if before.share is None:
        return "met" if before.met else "missed"
    return f"{before.share:.1%}"


def gate_dict(found: GateVerdict) -> dict[str, Any]:
    """Return everything as JSON-able data."""
    return {
        "passes": found.passes,
        "reason": reason(found),
        "baseline": found.baseline,
        "replications": found.replications,
        "steady": found.steady,
        "objectives": [
            {
                **attainment_dict(row.now),
                "outcome": row.outcome,
                "baseline": None
                if row.before is None
                else {"met": row.before.met, "attained_frac": row.before.share},
            }
            for row in found.rows
        ],
        "notes": list(found.notes),
    }
