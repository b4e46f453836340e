"""``simserve run``: one scenario, its result on stdout and in files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simserve.cli import options as given
from simserve.cli import replicated as again
from simserve.cli.exits import ANSWER_IS_NO
from simserve.cli.progress import progress
from simserve.cli.report_command import (
    Timeline,
    TimelineWindow,
    check_timeline,
    save_timeline,
)
from simserve.errors import InputError

if TYPE_CHECKING:
    from simserve.results.result import Result


SaveResult = Annotated[
    Path | None,
    typer.Option(
        "--save-result", metavar="FILE.json", help="Write the result as 'vllm bench serve' does."
    ),
]
SaveDetailed = Annotated[
    bool,
    typer.Option("--save-detailed", help="Keep the figures of every request in the JSON."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", help="Write run.json, requests.parquet and steps.parquet."
    ),
]
Check = Annotated[
    bool, typer.Option("--check", help="Check the conservation laws at every step (slow).")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON instead of a report.")
]


@given.of_scenario()
def run(
    ctx: typer.Context,
    scenario: given.ScenarioFile = None,
    save_result: SaveResult = None,
    save_detailed: SaveDetailed = False,
    out: Out = None,
    timeline: Timeline = None,
    timeline_window: TimelineWindow = None,
    replications: again.Replications = None,
    precision: again.Precision = None,
    workers: again.Workers = None,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """Simulate one scenario and report its latencies and throughput.

    Without a scenario, a workload or a trace, the workload that comes with simserve
    is run.

    \b
    Examples:
      simserve run
      simserve run chat.yaml --set max_num_seqs=64 --seed 1
      simserve run --trace azure.csv --model llama-3.1-8b --gpu h100-sxm
      simserve run --trace azure.csv --from 1h --to 2h --rate 20
      simserve run chat.yaml --slo 'ttft:500 tpot:50' --save-result out.json
      simserve run chat.yaml --precision 5%
      simserve run chat.yaml --timeline chat.json.gz
      simserve run --serve-cmd 'vllm serve Qwen/Qwen3-8B -tp 2' --gpu h100-sxm
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    choice = given.ScenarioChoice.of_params(ctx.params)
    _check_destinations(choice, save_result, out, wants_detail=save_detailed, as_json=as_json)
    check_timeline(timeline, timeline_window, choice.files())
    asked = again.Asked.of_params(ctx.params)
    result = _simulate(choice, asked, check=check)
    _save(result, save_result, out, save_detailed=save_detailed)
    if timeline is not None:
        save_timeline(result, timeline, timeline_window)
    found = asked.replicated(result)
    _show(result, found, save_detailed=save_detailed, as_json=as_json)
    if misses_slo(result) if found is None else found.misses_slo:
        raise typer.Exit(ANSWER_IS_NO)


def _check_destinations(
    choice: given.ScenarioChoice,
    save_result: Path | None,
    out: Path | None,
    *,
    wants_detail: bool,
    as_json: bool,
) -> None:
    from simserve.planning.destinations import (
        check_directory_destination,
        check_file_destination,
    )

    if wants_detail and save_result is None and not as_json:
        raise InputError("--save-detailed", None, None, "only with --save-result or --json")
    if save_result is not None:
        check_file_destination("--save-result", save_result, choice.files())
    if out is not None:
        check_directory_destination("--out", out)


def _simulate(choice: given.ScenarioChoice, asked: again.Asked, *, check: bool) -> Result:
    from simserve.planning import run_scenario

    scenario = choice.load()
    given.say_notes(scenario)
    asked.check(scenario)
    begun_s = time.process_time()
    with progress("simulating") as on_progress:
        result = run_scenario.run(scenario, check=check, on_progress=on_progress)
    if check:
        spent_s = time.process_time() - begun_s
        steps = sum(log.total_steps for log in result.record.steps)
        typer.echo(f"simserve: every law held on {steps:,} steps ({spent_s:.2f} CPU-s)", err=True)
    return result


def _save(
    result: Result, save_result: Path | None, out: Path | None, *, save_detailed: bool
) -> None:
    if save_result is not None:
        result.save_bench(save_result, save_detailed=save_detailed)
    if out is not None:
        result.save(out)


def _show(
    result: Result, found: again.Replicated | None, *, save_detailed: bool, as_json: bool
) -> None:
    if as_json:
        from simserve.results.whole_files import json_text

        bench = result.bench_dict(save_detailed=save_detailed)
        if found is not None:
            bench["simserve"]["replicated"] = found.as_dict()
        typer.echo(json_text(bench), nl=False)
        return
    from simserve.report.text import run_report

    typer.echo(run_report(result, intervals=None if found is None else found.lines()))


def misses_slo(result: Result) -> bool:
    """Return whether an objective was asked for and not met."""
    return result.slo_report is not None and not result.slo_report.met
