"""``simserve gate``: a status for continuous integration, 1 if a change breaks the SLO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from simserve.cli import options as given
from simserve.cli.exits import ANSWER_IS_NO
from simserve.cli.replicated import GoodShare, Workers, parse_share
from simserve.errors import InputError

if TYPE_CHECKING:
    from simserve.planning.gate import GateVerdict

Baseline = Annotated[
    str,
    typer.Option(
        "--baseline",
        metavar="FOLDER|JSON",
        help="The run before the change: a folder of 'run --out', or a benchmark's JSON.",
    ),
]
Replications = Annotated[
    int,
    typer.Option("--replications", metavar="N", help="Runs of the change, with other seeds."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

_REPLICATIONS = 5  # as in planning.gate, which is not imported for --help
_MOST_REPLICATIONS = 1000


@given.of_scenario()
def gate(
    ctx: typer.Context,
    baseline: Baseline,
    scenario: given.ScenarioFile = None,
    slo: given.SloText = None,
    good_share: GoodShare = "99%",
    replications: Replications = _REPLICATIONS,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Fail a change that breaks the SLO beyond noise (status 1).

    The scenario is that after the change; it is replicated. What the baseline broke
    already is held against it only if it is worse now beyond chance.

    \b
    Examples:
      simserve run chat.yaml --out baseline
      simserve gate --baseline baseline chat.yaml --set max_num_seqs=64
      simserve gate --baseline measured.json chat.yaml --slo 'ttft_p95:500'
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    found = _verdict(ctx.params)
    if as_json:
        from simserve.report.gate import gate_dict
        from simserve.results.whole_files import json_text

        typer.echo(json_text(gate_dict(found)), nl=False)
    else:
        from simserve.report.gate import gate_text

        typer.echo(gate_text(found))
    if not found.passes:
        raise typer.Exit(ANSWER_IS_NO)


def _verdict(params: dict[str, Any]) -> GateVerdict:
    from simserve.planning.gate import gate as judged
    from simserve.planning.processes import all_cores, check_workers

    replications, workers = params["replications"], params["workers"]
    if not 1 <= replications <= _MOST_REPLICATIONS:
        allowed = f"an integer from 1 to {_MOST_REPLICATIONS}"
        raise InputError("--replications", None, replications, allowed)
    if workers is not None:
        check_workers(workers)
    good_frac = parse_share(params["good_share"], "--good-share")
    ready = given.ScenarioChoice.of_params(params).load()
    given.say_notes(ready)
    return judged(
        ready,
        params["baseline"],
        replications=replications,
        good_share=good_frac,
        workers=workers or all_cores(),
    )
