"""``simserve capacity``: the highest load that meets an SLO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from simserve.cli import options as given
from simserve.cli.again import again
from simserve.cli.exits import ANSWER_IS_NO
from simserve.cli.progress import progress
from simserve.cli.replicated import GoodShare, Workers, parse_share
from simserve.errors import InputError

if TYPE_CHECKING:
    from simserve.planning.capacity import Capacity

Users = Annotated[
    bool,
    typer.Option("--users", help="Look for users who wait for answers, instead of a rate."),
]
ThinkTime = Annotated[
    str | None,
    typer.Option(
        "--think-time", metavar="TIME", help="Mean time users think before they ask, e.g. 30s."
    ),
]
Replications = Annotated[
    int,
    typer.Option("--replications", metavar="N", help="Runs per load, with seeds of their own."),
]
Precision = Annotated[
    str,
    typer.Option("--precision", metavar="PERCENT", help="How close to the limit to look."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON instead of a report.")
]

_REPLICATIONS = 4  # as in planning.capacity, which is not imported for --help
_MOST_REPLICATIONS = 1000


@given.of_scenario(without=("rate",))
def capacity(
    ctx: typer.Context,
    scenario: given.ScenarioFile = None,
    slo: given.SloText = None,
    users: Users = False,
    think_time: ThinkTime = None,
    good_share: GoodShare = "99%",
    replications: Replications = _REPLICATIONS,
    precision: Precision = "2%",
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Find the highest rate, or number of users, that meets an SLO.

    The rate that the scenario gives is only where the search begins. Every load meets
    the same replications. The exit status is 1 if not even an idle server meets it.

    \b
    Examples:
      simserve capacity
      simserve capacity chat.yaml --slo 'ttft_p95:500 tpot_p95:50'
      simserve capacity --slo 'ttft:500 tpot:50' --good-share 95% --gpu h200-sxm
      simserve capacity --users --think-time 30s --slo ttft_p99:1s --json
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    found = _found(ctx, users, think_time, good_share, replications, precision, workers)
    _show(found, again(ctx) if as_json else None)
    if found.load is None:
        raise typer.Exit(ANSWER_IS_NO)


def _found(
    ctx: typer.Context,
    users: bool,
    think_time: str | None,
    good_share: str,
    replications: int,
    precision: str,
    workers: int | None,
) -> Capacity:
    from simserve.planning.capacity import find_capacity
    from simserve.planning.processes import all_cores, check_workers

    if not 1 <= replications <= _MOST_REPLICATIONS:
        allowed = f"an integer from 1 to {_MOST_REPLICATIONS}"
        raise InputError("--replications", None, replications, allowed)
    if workers is not None:
        check_workers(workers)
    good_frac = parse_share(good_share, "--good-share")
    precision_frac = parse_share(precision, "--precision")
    think_time_s = None if think_time is None else _seconds(think_time)
    scenario = given.ScenarioChoice.of_params(ctx.params).load()
    given.say_notes(scenario)
    with progress("loads") as news:
        return find_capacity(
            scenario,
            users=users,
            think_time_s=think_time_s,
            replications=replications,
            good_share=good_frac,
            precision_frac=precision_frac,
            workers=workers or all_cores(),
            on_progress=None if news is None else lambda done: news(done, done + 1),
        )


def _seconds(text: str) -> float:
    from simserve.inputs.units import SECOND_UNITS, parse_quantity

    allowed = "a time of at least 0, in seconds or such as 30s"
    try:
        thinking_s = parse_quantity(text, SECOND_UNITS, allowed)
    except ValueError:
        thinking_s = -1.0
    if thinking_s < 0:
        raise InputError("--think-time", None, text, allowed)
    return thinking_s


def _show(found: Capacity, command: str | None) -> None:
    """Print the answer; as JSON where ``command``, which asks for it again, is given."""
    from simserve.report.capacity import capacity_dict, capacity_text

    if command is not None:
        from simserve.results.whole_files import json_text

        typer.echo(json_text(capacity_dict(found) | {"again": command}), nl=False)
    else:
        typer.echo(capacity_text(found))
