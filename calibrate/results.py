"""A journal as what came out of it: the last word on every point, repeats, sentinels, facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrate.measure.journal import (
    END,
    FILE,
    POINT,
    REPEAT,
    SENTINEL,
    SESSION,
    Entry,
    read_journal,
)
from calibrate.plans.choose import make_plan
from simserve.errors import InputError

OK = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """``points`` and ``repeats`` by name; ``sentinels`` in the order of their measuring.

    ``session`` is the last of ``sessions``: a journal may have been continued.
    """

    where: str
    session: Entry
    sessions: Sequence[Entry]
    points: dict[str, Entry]
    repeats: dict[str, Entry]
    sentinels: Sequence[Entry]
    seconds: float

    @property
    def device(self) -> dict[str, Any]:
        """The facts of the device."""
        found: dict[str, Any] = self.session["facts"]["device"]
        return found

    def measured(self, table: str) -> list[Entry]:
        """Return the points of a table that have a time."""
        return [one for one in self.points.values() if one["table"] == table and is_ok(one)]

    def unmeasured(self) -> list[tuple[str, str, int]]:
        """Return block, reason and number of the points that have no time."""
        counts = Counter(
            (one["block"], one.get("error", "")) for one in self.points.values() if not is_ok(one)
        )
        return [(block, reason, many) for (block, reason), many in sorted(counts.items())]

    def not_reached(self) -> list[tuple[str, int]]:
        """Return, by block, how many points were asked for and never tried."""
        asked: dict[str, str] = {}
        for session in self.sessions:
            plan = make_plan(session["plan"], **session["asked"])
            asked |= {point.name: point.block for point in plan.points}
        counts = Counter(block for name, block in asked.items() if name not in self.points)
        return sorted(counts.items())


def is_ok(entry: Entry) -> bool:
    """Return whether a point has a time."""
    return bool(entry["status"] == OK)


def read_results(folder: Path) -> Results:
    """Return what the journal in ``folder`` says.

    Raises:
        InputError: if there is none, or it has no point.
    """
    path = folder / FILE
    entries = list(read_journal(path))
    sessions = [one for one in entries if one["kind"] == SESSION]
    if not sessions:
        raise InputError(str(path), None, "an empty journal", "the --out folder of a run")
    return Results(
        where=str(path),
        session=sessions[-1],
        sessions=sessions,
        points={one["name"]: one for one in entries if one["kind"] == POINT},
        repeats={one["name"]: one for one in entries if one["kind"] == REPEAT},
        sentinels=[one for one in entries if one["kind"] == SENTINEL and is_ok(one)],
        seconds=sum(float(one["seconds"]) for one in entries if one["kind"] == END),
    )
