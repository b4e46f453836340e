"""``simserve sweep``: one scenario at every point of a grid of settings, one row each."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simserve.cli import options as given
from simserve.cli.exits import ANSWER_IS_NO
from simserve.cli.progress import progress
from simserve.errors import InputError
from simserve.report.columns import WIDTH, filled

if TYPE_CHECKING:
    from simserve.planning.sweep import SweepPoint


Vary = Annotated[
    list[str] | None,
    typer.Option(
        "--vary",
        metavar="KEY=A,B,C",
        help="A key of --set and the values it takes. Repeatable: the grid is the product.",
    ),
]
Link = Annotated[
    list[str] | None,
    typer.Option(
        "--link",
        metavar="KEY1=KEY2",
        help="Keys that vary together; one that has no --vary takes the other's values.",
    ),
]
Workers = Annotated[
    int, typer.Option("--workers", metavar="N", help="Processes; rows do not depend on it.")
]
Replications = Annotated[
    int,
    typer.Option(
        "--replications",
        metavar="N",
        help="Run every point N times with other seeds: intervals over all of them.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Skip the points that --out holds already.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE|DIR",
        help="FILE.csv, FILE.parquet, or a directory for summary.csv and one JSON a point.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the points and run nothing.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print every column as JSON instead of a table.")
]


@given.of_scenario()
def sweep(
    ctx: typer.Context,
    scenario: given.ScenarioFile = None,
    vary: Vary = None,
    link: Link = None,
    replications: Replications = 1,
    workers: Workers = 1,
    resume: Resume = False,
    out: Out = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Simulate every combination of some settings: one row per point.

    Points are joined by their seed: the same requests meet every setting. A point
    that does not fit on its GPUs is a row with the reason. A sweep that is killed
    goes on with --resume. With --slo, the exit status is 1 if no point meets it.

    \b
    Examples:
      simserve sweep --vary max_num_seqs=16,64,256 --out batch.csv
      simserve sweep chat.yaml --vary tp=1,2 --vary seed=0,1,2 --workers 4
      simserve sweep --vary rate_per_s=1,2,4,8 --slo 'ttft_p95:500' --json
      simserve sweep --vary max_num_seqs=16,64,256 --replications 4
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    choice = given.ScenarioChoice.of_params(ctx.params)
    points = _points(choice, vary or (), link or (), replications)
    given.say_notes(next((point.scenario for point in points if point.scenario), None))
    if dry_run:
        rows = [_planned(point) for point in points]
    else:
        rows = _rows(points, choice, out, workers=workers, resume=resume)
    typer.echo(json.dumps(rows, indent=2) if as_json else table(rows, list(points[0].values)))
    for remark in _remarks(points):
        typer.echo("\n".join(filled(f"Note  {remark}.", hang="      ")), err=as_json)
    if not dry_run and not any(_is_good(row) for row in rows):
        raise typer.Exit(ANSWER_IS_NO)


def _points(
    choice: given.ScenarioChoice, vary: Sequence[str], link: Sequence[str], replications: int
) -> list[SweepPoint]:
    from simserve.planning.sweep import load_points
    from simserve.planning.sweep_grid import grid, parse_axis, parse_link

    if not vary:
        raise InputError("--vary", None, None, "key=value,value,... at least once")
    points = grid([parse_axis(text) for text in vary], [parse_link(text) for text in link])
    return load_points(choice.load, points, replications)


def _rows(
    points: Sequence[SweepPoint],
    choice: given.ScenarioChoice,
    out: Path | None,
    *,
    workers: int,
    resume: bool,
) -> list[dict[str, Any]]:
    from simserve.planning.sweep import run_points
    from simserve.planning.sweep_files import SweepFiles

    files = SweepFiles(out, choice.files()) if out is not None else None
    with progress("points") as on_progress:
        done = run_points(
            points, files=files, workers=workers, resume=resume, on_progress=on_progress
        )
    return list(done.rows)


def _planned(point: SweepPoint) -> dict[str, Any]:
    from simserve.planning.sweep import DOES_NOT_FIT

    if point.scenario is None:
        return {**point.values, "verdict": DOES_NOT_FIT, "reason": point.reason}
    return {**point.values, "verdict": "to-run", "scenario_digest": point.scenario.digest()}


def _remarks(points: Sequence[SweepPoint]) -> list[str]:
    """Return what has to be said of the engines, GPUs and latency models, each once."""
    from simserve.results.run_facts import remark_of

    scenarios = [point.scenario for point in points if point.scenario is not None]
    remarks = [remark_of(one.deployment) for one in scenarios]
    return [one for one in dict.fromkeys(remarks) if one is not None]


def _is_good(row: dict[str, Any]) -> bool:
    """Return whether the point fits, and meets the SLO if there is one."""
    from simserve.planning.sweep import DOES_NOT_FIT

    return row["verdict"] != DOES_NOT_FIT and row.get("slo_met") is not False


HEADLINES = {
    "median_ttft_ms": "TTFT p50",
    "p99_ttft_ms": "p99 ms",
    "median_tpot_ms": "TPOT p50",
    "p99_tpot_ms": "p99 ms",
    "output_throughput": "tok/s out",
}
"""The metrics that the printed table shows, and their headings; the file has them all."""
STEADY_HEADLINES = {
    "steady_mean_ttft_ms": "TTFT mean",
    "steady_p99_ttft_ms": "p99 ms",
    "steady_mean_tpot_ms": "TPOT mean",
    "steady_p99_tpot_ms": "p99 ms",
}
"""Those of several replications, each with its interval."""


def table(rows: Sequence[dict[str, Any]], varied: Sequence[str]) -> str:
    """Return the rows as text: varied keys, verdict, headline metrics, reason.

    A table that is too wide has its headings in several lines, and else fewer metrics.
    """
    replicated = any("replications" in row for row in rows)
    headlines = STEADY_HEADLINES if replicated else HEADLINES
    shown = [*varied, "verdict", "slo_met", *headlines]
    always = headlines if replicated else ()  # a dash where no point carries an interval
    columns = [name for name in shown if name in always or any(name in row for row in rows)]
    header = [headlines.get(name, name.rpartition(".")[2]) for name in columns]
    cells = [[_cell_of(row, name) for name in columns] for row in rows]
    lines = _aligned([header, *cells])
    if _is_wide(lines):
        header_lines = _folded(header)
        lines = _aligned([*header_lines, *cells])
        while _is_wide(lines) and columns[-1] in headlines:
            columns.pop()
            lines = _aligned([line[: len(columns)] for line in (*header_lines, *cells)])
    heads = len(lines) - len(rows)
    told = lines[:heads]
    for line, row in zip(lines[heads:], rows, strict=True):
        told += [line, *filled(row.get("reason") or "", indent="  ", hang="  ")]
    return "\n".join(told)


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]


def _is_wide(lines: Sequence[str]) -> bool:
    return max(map(len, lines)) > WIDTH


def _folded(header: Sequence[str]) -> list[list[str]]:
    """Return a line of headings as several, cut between words: the last of each lowest."""
    words = [re.sub(r"[_ ]", r"\g<0>\n", heading).split("\n") for heading in header]
    most = max(map(len, words))
    return [
        [parts[at - most].strip() if at >= most - len(parts) else "" for parts in words]
        for at in range(most)
    ]


def _cell_of(row: dict[str, Any], name: str) -> str:
    """Return a cell; a number with an interval has the wider side of it."""
    if name.rpartition(".")[2] == "quantization" and row.get(name) == "none":
        return "as given"  # whatever the checkpoint is in
    value, low, high = row.get(name), row.get(f"{name}_low"), row.get(f"{name}_high")
    if value is None or low is None or high is None:
        return _cell(value)
    from simserve.report.intervals import with_half_width

    return with_half_width(value, max(high - value, value - low))


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < _WHOLE_FROM else f"{value:.0f}"
    return str(value)


_WHOLE_FROM = 100.0
"""From here on, the table shows no decimals."""
