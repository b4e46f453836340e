"""What ``calibrate run`` tells while it measures, and what it leaves behind in any case."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import typer

from calibrate.measure.journal import POINT, Entry, Journal
from calibrate.measure.run import Wanted, run_plan
from calibrate.measure.session import OUT_OF_TIME, LostMachineError
from calibrate.plans.plan import Plan
from calibrate.plans.point import Point
from calibrate.profile_writer import write_profile
from calibrate.quality import quality_facts
from calibrate.results import read_results
from simserve.errors import InputError, shortened

_EVERY_S = 10.0
_COLUMNS = 80


def run_and_report(wanted: Wanted, gpu: str | None) -> None:
    """Run a plan, tell how it goes, and write the profile; also if it is interrupted."""
    teller = _Teller()
    try:
        reason = run_plan(wanted, teller.started, teller.finished)
    except KeyboardInterrupt:
        teller.note("interrupted; the same command goes on from here")
        _write(wanted, gpu)
        raise
    except LostMachineError:  # what was measured before is worth as much
        _write(wanted, gpu)
        raise
    _summary(wanted, teller, reason)
    _write(wanted, gpu)


@dataclass(slots=True)
class _Teller:
    """Prints a line every ten seconds, and one for each kernel that fails."""

    counts: Counter[str] = field(default_factory=Counter)
    _todo: int = 0
    _start: float = field(default_factory=time.monotonic)
    _told: float = field(default_factory=time.monotonic)
    _failures: set[str] = field(default_factory=set)

    def started(self, plan: Plan, journal: Journal, facts: Mapping[str, Any]) -> None:
        """Tell what is going to be measured, where."""
        done = journal.finished(POINT)
        left = [point for point in plan.points if point.name not in done]
        self._todo = len(left)
        had = len(plan.points) - len(left)
        self.note(
            f"{plan.name} on {facts['device']['name']}: {len(left):,} points, about "
            f"{plan.seconds(left):.0f} s" + (f" ({had:,} are there)" if had else "")
        )

    def finished(self, kind: str, point: Point, entry: Entry) -> None:
        """Count a point; a failure is told once per block and reason."""
        if kind != POINT:
            return
        self.counts[entry["status"]] += 1
        if entry["status"] != "ok":
            reason = f"{point.block} {entry['status']}: {entry.get('error', '')}"
            if reason not in self._failures:
                self._failures.add(reason)
                self.note(f"  {reason}")
        if time.monotonic() - self._told >= _EVERY_S:
            self._told = time.monotonic()
            done = sum(self.counts.values())
            self.note(f"  {done:,} of {self._todo:,} points, {self._told - self._start:.0f} s")

    def note(self, line: str) -> None:
        """Print one line on stderr."""
        typer.echo(shortened(line, _COLUMNS), err=True)


def _summary(wanted: Wanted, teller: _Teller, reason: str) -> None:
    results = read_results(wanted.out)
    counts = Counter(one["status"] for one in results.points.values())
    told = ", ".join(f"{many:,} {status}" for status, many in sorted(counts.items()))
    typer.echo(f"{told} of {results.session['points']:,} points")
    if reason == OUT_OF_TIME:
        typer.echo("stopped at the time limit; the same command goes on from here")
    facts = quality_facts(results)
    if "repeat_p50_pct" in facts:
        typer.echo(
            f"repeatability: median {facts['repeat_p50_pct']:.1f} %, p90 "
            f"{facts['repeat_p90_pct']:.1f} % of {facts['repeats']:.0f} points"
        )
    if "drift_pct" in facts:
        typer.echo(f"drift of a sentinel: at most {facts['drift_pct']:.1f} %")
    typer.echo(f"flagged: {facts.get('flagged_pct', 0.0):.1f} %")


def _write(wanted: Wanted, gpu: str | None) -> None:
    """Write the profile; with nothing to put into it, say so."""
    try:
        typer.echo(f"profile: {write_profile(wanted.out, gpu=gpu)}")
    except InputError as error:
        typer.echo(f"calibrate: no profile: {error}", err=True)
