"""``simserve report``: what a run, a sweep or an answer says, as a page, figures or a trace."""

from __future__ import annotations

from os.path import realpath
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simserve.errors import InputError

if TYPE_CHECKING:
    from simserve.report.page.parts import Page
    from simserve.results.result import Result

Source = Annotated[
    Path,
    typer.Argument(
        metavar="RUN_FOLDER|SWEEP_FOLDER|FILE",
        help="What 'run --out' or 'sweep --out' wrote, or the JSON of an answer.",
        show_default=False,
    ),
]
Html = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE.html", help="Write one page that needs nothing else."),
]
Figures = Annotated[
    Path | None,
    typer.Option("--figures", metavar="DIR", help="Write its figures as SVG and as PNG."),
]
Timeline = Annotated[
    Path | None,
    typer.Option(
        "--timeline",
        metavar="FILE.json",
        help="Write the run as a Chrome trace for Perfetto; gzipped if it ends in .gz.",
    ),
]
TimelineWindow = Annotated[
    str | None,
    typer.Option(
        "--timeline-window",
        metavar="FROM:TO",
        help="Only this part of the timeline, in s or such as 90s:2min.",
    ),
]
Gantt = Annotated[
    Path | None,
    typer.Option(
        "--gantt", metavar="FILE.html", help="Write a timing diagram of at most 200 requests."
    ),
]


def report(
    source: Source,
    html: Html = None,
    figures: Figures = None,
    timeline: Timeline = None,
    timeline_window: TimelineWindow = None,
    gantt: Gantt = None,
) -> None:
    """Turn a run, a sweep or an answer into something to look at.

    Without an option, the report of a run is printed as 'simserve run' prints it. An
    answer is what 'simserve capacity', 'cost', 'explain' or 'plan' print with --json.

    \b
    Examples:
      simserve report runs/monday --html monday.html --figures pictures
      simserve report sweeps/batch --html batch.html
      simserve report runs/monday --timeline monday.json.gz
      simserve report runs/monday --gantt monday.html
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    check_timeline(timeline, timeline_window, _inputs(source))
    _check(source, html, figures, gantt)
    result = _run_of(source)
    if result is None and (timeline is not None or gantt is not None):
        option = "--timeline" if timeline is not None else "--gantt"
        raise InputError(option, None, str(source), "a folder that 'run --out' wrote")
    # A run too large for a diagram is refused here, before anything is written.
    diagram = None if gantt is None or result is None else _gantt_of(result)
    if html is not None or figures is not None:
        _write(source, result, html, figures)
    if gantt is not None and diagram is not None:
        from simserve.report.html import write_page

        write_page(diagram, gantt)
    if timeline is not None and result is not None:
        save_timeline(result, timeline, timeline_window)
    if not any((html, figures, gantt, timeline)):
        _print(source, result)


def _gantt_of(result: Result) -> Page:
    from simserve.report.gantt import gantt_page

    return gantt_page(result)


def _inputs(source: Path) -> list[Path]:
    """Return the files that are read, which nothing may replace."""
    from simserve.report.html import SUMMARY_FILE
    from simserve.results.result import REQUESTS_FILE, RUN_FILE, STEPS_FILE

    names = (RUN_FILE, REQUESTS_FILE, STEPS_FILE, SUMMARY_FILE)
    return [source, *(source / name for name in names)]


def check_timeline(path: Path | None, window: str | None, inputs: list[Path]) -> None:
    """Refuse a timeline that cannot be written, or a window without one."""
    if path is None and window is None:
        return
    from simserve.planning.destinations import check_file_destination
    from simserve.report.timeline import parse_window

    if path is None:
        raise InputError("--timeline-window", None, window, "only with --timeline")
    parse_window(window)
    check_file_destination("--timeline", path, inputs)


def save_timeline(result: Result, path: Path, window: str | None) -> None:
    """Write the timeline and say on stderr what it leaves out."""
    from simserve.report.timeline import parse_window, write_timeline

    for note in write_timeline(result, path, parse_window(window)):
        typer.echo(f"simserve: timeline: {note}; --timeline-window shows a part in full", err=True)


def _check(source: Path, html: Path | None, figures: Path | None, gantt: Path | None) -> None:
    from simserve.planning.destinations import (
        check_directory_destination,
        check_file_destination,
    )

    for option, path in (("--html", html), ("--gantt", gantt)):
        if path is not None:
            check_file_destination(option, path, _inputs(source))
    if html is not None and gantt is not None and realpath(html) == realpath(gantt):
        raise InputError("--gantt", None, str(gantt), "another file than --html")
    if figures is not None:
        check_directory_destination("--figures", figures)


def _run_of(source: Path) -> Result | None:
    """Return the run in a folder, None if it is none."""
    from simserve.results.result import RUN_FILE, Result

    return Result.load(source) if (source / RUN_FILE).is_file() else None


def _write(source: Path, result: Result | None, html: Path | None, figures: Path | None) -> None:
    from simserve.report.html import load_page, write_figures, write_page

    page = load_page(source, result)
    if html is not None:
        write_page(page, html)
    if figures is not None:
        write_figures(page, figures)


def _print(source: Path, result: Result | None) -> None:
    if result is None:
        from simserve.report.html import load_page

        load_page(source)  # says what is wrong with it, if anything
        raise InputError("--html", None, "nothing", "a file to write; only a run is also printed")
    from simserve.report.text import run_report

    typer.echo(run_report(result))
