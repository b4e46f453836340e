"""``simserve validate``: predictions beside measurements of real engines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simserve.cli.exits import ANSWER_IS_NO
from simserve.errors import InputError


def validate(
    groundtruth: Annotated[
        Path, typer.Option("--groundtruth", metavar="DIR", help="Folder of measurements.")
    ],
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="FILE", help="Markdown file to write instead of stdout."),
    ] = None,
) -> None:
    """Compare predictions with measurements of real engines.

    From single kernels over steps and requests to deployments; what is fitted is named,
    with the rows it was fitted on, and other rows are judged. Whatever is not there, a
    folder or the package with the kernel tables, is named and skipped. The exit status
    is 1 if a bar is missed.

    \b
    Example:
      simserve validate --groundtruth groundtruth --out docs/validation.md
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    from simserve.planning.destinations import check_file_destination
    from simserve.planning.validation.report import report_text, validate_all
    from simserve.results.whole_files import write_whole

    if not groundtruth.is_dir():
        raise InputError("--groundtruth", None, str(groundtruth), "a folder that exists")
    if out is not None:
        check_file_destination("--out", Path(out), ())
    sections = validate_all(groundtruth)
    text = report_text(sections)
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_whole(Path(out), lambda path: _write(path, text))
    findings = [one for section in sections for one in section.findings]
    missed = [one for one in findings if one.is_met is False]
    barred = [one for one in findings if one.is_met is not None]
    skipped = sum(len(section.skipped) for section in sections)
    typer.echo(
        f"simserve: {len(barred) - len(missed)} of {len(barred)} bars met, {skipped} skipped",
        err=True,
    )
    if missed:
        raise typer.Exit(ANSWER_IS_NO)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
