"""``simserve verify``: compare every step with a real scheduler's, recorded or live."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simserve.cli.exits import ANSWER_IS_NO, INPUT_IS_WRONG
from simserve.cli.progress import progress
from simserve.errors import InputError

if TYPE_CHECKING:
    from simserve.parity.fuzz import Divergence, FuzzReport
    from simserve.parity.verify import CaseReport


def verify(
    case: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CASE",
            help="Case files, NAME.case.json or .json.gz; with --live also scenarios.",
        ),
    ] = None,
    fuzz: Annotated[
        int | None,
        typer.Option("--fuzz", metavar="N", min=1, help="Draw N small scenarios and compare them."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the drawn scenarios.")] = 0,
    live: Annotated[
        bool, typer.Option("--live", help="Compare with the installed vLLM's own scheduler.")
    ] = False,
    record: Annotated[
        str | None,
        typer.Option(
            "--record", metavar="SCENARIO", help="Record what the installed vLLM does with it."
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="FILE", help="Case file to write, NAME.case.json (--record, --fuzz)."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the reports as a JSON array.")
    ] = False,
) -> None:
    """Compare every step with the schedule of a real engine.

    The schedule was recorded (CASE), or is made now by the installed vLLM (--live). With
    --fuzz, scenarios are drawn at random; without --live they are compared with the rules
    written plainly. Prints the number of diverging steps of each case and, if there are any,
    the first. A random scenario that diverges is made small and written as a case. The exit
    status is 1 if a step diverges, 2 if an input cannot be read.

    \b
    Examples:
      simserve verify cases/*.case.json
      simserve verify --fuzz 1000 --seed 1
      simserve verify --live scenario.yaml
      simserve verify --record scenario.yaml --out chat.case.json
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    if not case and fuzz is None and record is None:
        raise typer.BadParameter("Missing argument 'CASE' (or --fuzz N, or --record SCENARIO).")
    if out is not None:
        _check_destination(out)
    if live or record is not None:
        _warn_of_version()
    if record is not None:
        _record(record, out)
    bad = wrong = False
    if case:
        reports, bad = _compared(case, live)
        _print_reports(reports, as_json)
        wrong = not all(report.same for report in reports)
    if fuzz is not None:
        wrong |= _fuzz(fuzz, seed, live, out, as_json)
    if bad or wrong:
        raise typer.Exit(INPUT_IS_WRONG if bad else ANSWER_IS_NO)


def _compared(paths: list[str], live: bool) -> tuple[list[CaseReport], bool]:
    """Return the reports of the cases that could be read, and whether one could not."""
    from simserve.parity import verify as parity

    compare = _compare_live if live else parity.verify_case
    reports, bad = [], False
    for path in paths:
        try:
            if not live and path.endswith((".yaml", ".yml")):
                raise InputError(path, None, "a scenario", "a recorded case, or --live")
            reports.append(compare(path))
        except InputError as error:
            bad = True
            typer.echo(f"simserve: {error}", err=True)
    return reports, bad


def _compare_live(path: str) -> CaseReport:
    from simserve.parity.live_vllm import live_records
    from simserve.parity.scenario_case import case_or_scenario
    from simserve.parity.verify import compare_case

    case = case_or_scenario(Path(path))
    return compare_case(case, live_records(case))


def _record(scenario: str, out: str | None) -> None:
    from simserve.parity.case_file import save_case, save_expected
    from simserve.parity.live_vllm import live_records, with_header
    from simserve.parity.scenario_case import case_or_scenario

    if out is None:
        raise InputError("--record", None, "no --out", "--out NAME.case.json beside it")
    path = Path(out)
    case = dataclasses.replace(case_or_scenario(Path(scenario)), name=path.name.split(".")[0])
    records = live_records(case)
    save_case(case, path)
    beside = save_expected(with_header(case, records), path)
    steps = sum(row["type"] == "step" for row in records)
    typer.echo(f"{case.name}: {len(case.requests)} requests, {steps} steps: {path}, {beside}")


def _fuzz(count: int, seed: int, live: bool, out: str | None, as_json: bool) -> bool:
    """Compare drawn scenarios; return whether one diverges."""
    from simserve.parity.fuzz import PLAIN, fuzz
    from simserve.parity.live_vllm import live_records, require_vllm
    from simserve.parity.verify import FAST, records_by

    against = f"vllm {require_vllm()}" if live else PLAIN
    with progress("comparing") as on_progress:
        if live:
            report = fuzz(count, seed, live_records, (FAST, PLAIN), on_progress)
        else:
            report = fuzz(count, seed, lambda case: records_by(case, PLAIN), (FAST,), on_progress)
    found = report.divergence
    if as_json:
        typer.echo(json.dumps(_fuzz_json(report, seed, against), indent=2))
    else:
        typer.echo(
            f"fuzz: {int(found is not None)} diverging of {report.cases} scenarios, "
            f"{report.steps} steps\n  seed {seed}, against {against}"
        )
    if found is not None:
        _keep(found, against, out, as_json)
    return found is not None


def _keep(found: Divergence, against: str, out: str | None, as_json: bool) -> None:
    """Write a minimal diverging case with the right records, and say so."""
    from simserve.parity.case_file import CASE_SUFFIX, save_case, save_expected

    path = Path(out or found.case.name + CASE_SUFFIX)
    case = dataclasses.replace(
        found.case, description=f"{found.scheduler} diverges from {against} here"
    )
    save_case(case, path)
    save_expected(found.records, path)
    if not as_json:
        typer.echo(_told(found.report))
    typer.echo(f"{path}: {len(case.requests)} requests; the right records are beside it", err=True)


def _fuzz_json(report: FuzzReport, seed: int, against: str) -> dict[str, Any]:
    found = report.divergence
    return {
        "scenarios": report.cases,
        "steps": report.steps,
        "seed": seed,
        "against": against,
        "divergence": None if found is None else dataclasses.asdict(found.report),
    }


def _check_destination(out: str) -> None:
    path = Path(out)
    if not path.name.endswith(".case.json"):
        raise InputError("--out", None, out, "a file name that ends with .case.json")
    if not path.parent.is_dir():
        raise InputError("--out", None, out, "a file in a directory that exists")


def _warn_of_version() -> None:
    from simserve.parity.live_vllm import KNOWN_VERSION, require_vllm

    version = require_vllm()
    if not f"{version}.".startswith(f"{KNOWN_VERSION}."):
        typer.echo(
            f"simserve: vllm {version} is installed; the rules here are those of {KNOWN_VERSION}",
            err=True,
        )


def _print_reports(reports: list[CaseReport], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(report) for report in reports], indent=2))
        return
    for report in reports:
        typer.echo(_told(report))


def _told(report: CaseReport) -> str:
    from simserve.report.columns import filled

    lines = [f"{report.name}: {report.diverging_steps} diverging steps of {report.steps}"]
    for line in (report.detail or "").splitlines():
        lines += filled(line, indent="  ", hang="    ")
    for name, state in (("expected", report.expected), ("got", report.got)):
        if state is not None:
            lines += filled(f"{name}: {json.dumps(state)}", indent="  ", hang="    ")
    return "\n".join(lines)
