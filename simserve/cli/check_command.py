"""``simserve check``: whether files can be used and what they stand for, or a result is whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simserve.cli.exits import ANSWER_IS_NO, INPUT_IS_WRONG
from simserve.errors import InputError

if TYPE_CHECKING:
    from simserve.cli.check_files import Checked
    from simserve.results.record_laws import BrokenLaw

_KINDS = "scenario|workload|deployment|device|model|trace|launch-line|case|result"


def check(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE|DIR", help="Files to read, or what 'run --out' wrote."),
    ],
    kind: Annotated[
        str | None,
        typer.Option("--as", metavar="KIND", help=f"What they are: {_KINDS.replace('|', ', ')}."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the values as a JSON array.")
    ] = False,
) -> None:
    """Say whether files can be used, and what they stand for.

    Any file that simserve reads: scenarios, workloads, deployments, device.yaml,
    config.json, traces, launch lines, scheduler cases. Every value is resolved as a
    run would do it, and printed with its unit and its source. All files are checked;
    each that is wrong costs one line on stderr, and the exit status is 2.

    In a folder that 'run --out' wrote, the laws of conservation are checked again,
    and the metrics computed again from requests and steps. A broken law is named
    with its two sides, and the exit status is 1.

    \b
    Examples:
      simserve check chat.yaml trace.csv.gz
      simserve check --as deployment mine.yaml --json
      simserve run chat.yaml --out results && simserve check results
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    from simserve.cli.check_files import FileKind

    asked = _asked(kind)
    reports: list[dict[str, Any]] = []
    bad = broken = False
    for path in files:
        try:
            found = asked or _kind_of(path)
            if found is FileKind.RESULT:
                laws = _check_result(path)
                broken |= bool(laws)
                report, text = _result_report(path, laws), _result_text(path, laws)
            else:
                checked = _check_input(path, found)
                report, text = _input_report(checked), _table(checked)
        except (InputError, OSError) as error:
            bad = True
            reports.append({"file": str(path), "ok": False, "error": _line(path, error)})
            typer.echo(f"simserve: {_line(path, error)}", err=True)
            continue
        reports.append(report)
        if not as_json:  # outside of the try: a full disk is no fault of the file
            typer.echo(text)
    if as_json:
        typer.echo(json.dumps(reports, indent=2))
    if bad or broken:
        raise typer.Exit(INPUT_IS_WRONG if bad else ANSWER_IS_NO)


def _asked(kind: str | None) -> Any:
    from simserve.cli.check_files import FileKind
    from simserve.errors import unknown_name

    if kind is None:
        return None
    name = kind.lower().replace("_", "-")
    if name not in list(FileKind):
        raise unknown_name("--as", "", kind, list(FileKind))
    return FileKind(name)


def _kind_of(path: Path) -> Any:
    from simserve.cli.check_files import kind_of

    return kind_of(path)


def _check_input(path: Path, kind: Any) -> Checked:
    from simserve.cli.check_files import check_file

    return check_file(path, kind)


def _check_result(path: Path) -> list[BrokenLaw]:
    from simserve.results.folder_laws import check_folder

    return check_folder(path if path.is_dir() else path.parent)


def _line(path: Path, error: InputError | OSError) -> str:
    if isinstance(error, InputError):
        return str(error)
    return str(InputError(str(path), None, error.strerror or str(error), "a readable file"))


def _input_report(checked: Checked) -> dict[str, Any]:
    from simserve.cli.check_files import as_json

    return as_json(checked)


def _result_report(path: Path, laws: list[BrokenLaw]) -> dict[str, Any]:
    return {
        "file": str(path),
        "kind": "result",
        "ok": not laws,
        "broken_laws": [{"law": one.law, "detail": one.detail} for one in laws],
    }


def _result_text(path: Path, laws: list[BrokenLaw]) -> str:
    from simserve.results.folder_laws import ALL_LAWS

    if not laws:
        return f"{path}: result, {len(ALL_LAWS)} laws hold"
    return "\n".join(f"{path}: law broken: {one}" for one in laws)


def _table(checked: Checked) -> str:
    from simserve.cli.check_table import table_text

    head = f"{checked.file}: {checked.kind}, {len(checked.values)} values"
    return f"{head}\n\n{table_text(checked.values)}"
