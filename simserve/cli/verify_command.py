"""``simserve verify``: replay cases recorded from a real scheduler, step by step."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from simserve.cli.exits import ANSWER_IS_NO

if TYPE_CHECKING:
    from simserve.parity.verify import CaseReport


def verify(
    case: Annotated[
        list[str],
        typer.Argument(metavar="CASE", help="Case files: NAME.case.json or .json.gz."),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the reports as a JSON array.")
    ] = False,
) -> None:
    """Compare every step with a schedule recorded from a real engine.

    Prints the number of diverging steps of each case and, if there are any, the
    first. The exit status is 1 if a step diverges.

    \b
    Example:
      simserve verify cases/*.case.json
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    from simserve.parity.verify import verify_case

    reports = []
    for path in case:
        report = verify_case(path)
        reports.append(report)
        if not as_json:
            typer.echo(_told(report))
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(report) for report in reports], indent=2))
    if not all(report.same for report in reports):
        raise typer.Exit(ANSWER_IS_NO)


def _told(report: CaseReport) -> str:
    line = f"{report.name}: {report.diverging_steps} diverging steps of {report.steps}"
    if not report.detail:
        return line
    return "\n  ".join([line, *report.detail.splitlines()])
