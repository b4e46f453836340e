"""``simserve explain``: where a latency comes from, and what would change it."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simserve.cli import options as given
from simserve.cli.again import again
from simserve.cli.progress import progress
from simserve.cli.replicated import Workers
from simserve.errors import InputError

if TYPE_CHECKING:
    from simserve.planning.explanation import Explanation

_REPLICATIONS = 4  # as in planning.explanation
_MOST_REPLICATIONS = 1000


class MetricName(enum.StrEnum):
    """Latencies that can be explained."""

    TTFT = "ttft"
    TPOT = "tpot"
    E2EL = "e2el"


Source = Annotated[
    str | None,
    typer.Argument(
        metavar="SCENARIO.yaml|RUN_FOLDER",
        show_default=False,
        help="A scenario, or a folder that 'run --out' wrote.",
    ),
]
Metric = Annotated[MetricName, typer.Option("--metric", help="The latency to explain.")]
Percentile = Annotated[
    float, typer.Option("--percentile", metavar="Q", help="The percentile of it, above 0.")
]
Request = Annotated[
    str | None,
    typer.Option("--request", metavar="ID", help="Also show where the time of this one went."),
]
Changes = Annotated[
    bool,
    typer.Option("--changes/--no-changes", help="Simulate what would change it, too."),
]
Replications = Annotated[
    int,
    typer.Option("--replications", metavar="N", help="Runs in which each change is seen."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a report.")]


@given.of_scenario()
def explain(
    ctx: typer.Context,
    scenario: Source = None,
    metric: Metric = MetricName.TTFT,
    percentile: Percentile = 99.0,
    request: Request = None,
    changes: Changes = True,
    replications: Replications = _REPLICATIONS,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Say where a latency comes from, and what would change it.

    The waterfall sums to the latency exactly. Counterfactuals take one cause away,
    sensitivity moves one input by a tenth; both meet the same requests.

    \b
    Examples:
      simserve explain
      simserve explain chat.yaml --metric tpot --percentile 95
      simserve explain runs/monday --request r17 --no-changes
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    said = _said(ctx.params)
    if as_json:
        from simserve.report.explain import explain_dict
        from simserve.results.whole_files import json_text

        typer.echo(json_text(explain_dict(said) | {"again": again(ctx)}), nl=False)
        return
    from simserve.report.explain import explain_text

    typer.echo(explain_text(said))


def _said(params: dict[str, Any]) -> Explanation:
    from simserve.planning.explanation import explain as explained
    from simserve.planning.processes import all_cores, check_workers
    from simserve.planning.what_if import Question
    from simserve.planning.where_it_changed import is_run_folder
    from simserve.results.result import Result

    percentile, runs, workers = params["percentile"], params["replications"], params["workers"]
    if not 0 < percentile < 100:
        raise InputError("--percentile", None, percentile, "a number above 0 and below 100")
    if not 1 <= runs <= _MOST_REPLICATIONS:
        allowed = f"an integer from 1 to {_MOST_REPLICATIONS}"
        raise InputError("--replications", None, runs, allowed)
    if workers is not None:
        check_workers(workers)
    question = Question(metric=params["metric"].value, percentile=percentile, replications=runs)
    saved: Result | None = None
    if is_run_folder(params["scenario"]):
        from simserve.planning.changed_deployment import scenario_of_resolved

        refuse_scenario_options(params)
        saved = Result.load(params["scenario"])
        ready = scenario_of_resolved(saved.facts.resolved)
    else:
        ready = given.ScenarioChoice.of_params(params).load()
        given.say_notes(ready)
    with progress("runs") as news:
        return explained(
            ready,
            question,
            result=saved,
            request=params["request"],
            changes=params["changes"],
            workers=workers or all_cores(),
            on_progress=news,
        )


def refuse_scenario_options(params: dict[str, Any]) -> None:
    """Refuse options that would make another scenario of a saved run."""
    for name in given.SHARED:
        if params.get(name):
            option = {"from_s": "from", "to_s": "to", "settings": "set"}.get(name, name)
            got = params[name] if isinstance(params[name], str | int | float) else "a value"
            allowed = "nothing of the scenario beside the folder of a run"
            raise InputError(f"--{option.replace('_', '-')}", None, got, allowed)
