"""``simserve fit``: does the deployment fit into memory, and what would make it fit?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simserve.cli import options as given
from simserve.cli.exits import ANSWER_IS_NO

if TYPE_CHECKING:
    from simserve.inputs.scenario import Scenario
    from simserve.planning.contiguous import Contiguous

Prices = Annotated[
    Path | None,
    typer.Option("--prices", metavar="FILE", help="Own prices (YAML) over those that ship."),
]
AsContiguous = Annotated[
    bool,
    typer.Option("--contiguous", help="Show what a server without paging would waste."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


@given.of_scenario()
def fit(
    ctx: typer.Context,
    scenario: given.ScenarioFile = None,
    contiguous: AsContiguous = False,
    prices: Prices = None,
    as_json: AsJson = False,
) -> None:
    """Say whether the model fits, and where the memory goes.

    Prints what vLLM would log of its KV cache. If it does not fit, the three
    cheapest changes that make it fit, each of them resolved, and exit status 1.

    \b
    Examples:
      simserve fit --model llama-3.1-70b --gpu h100-sxm --tp 2
      simserve fit --model qwen3-8b --gpu rtx-4090 --set max_model_len=16k
      simserve fit chat.yaml --set max_model_len=4096 --contiguous
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    from simserve.inputs.prices import load_prices
    from simserve.planning.memory_fit import memory_fit
    from simserve.report.fit import fit_data, fit_report
    from simserve.results.whole_files import json_text

    choice = given.ScenarioChoice.of_params(ctx.params)
    spec, origins = choice.load_deployment()
    found = memory_fit(spec, origins, load_prices(prices))
    ready = choice.load() if found.fits else None
    given.say_notes(ready)
    beside = _contiguous(ready) if contiguous and ready is not None else None
    if as_json:
        typer.echo(json_text(fit_data(found, beside)), nl=False)
    else:
        typer.echo(fit_report(found, beside))
    if contiguous and beside is None:
        typer.echo("simserve: --contiguous: nothing to compare, it does not fit", err=True)
    if not found.fits:
        raise typer.Exit(ANSWER_IS_NO)


def _contiguous(scenario: Scenario) -> Contiguous:
    from simserve.planning.contiguous import Pool, compare_contiguous
    from simserve.traffic.generate import generate

    kv, engine = scenario.deployment.kv, scenario.deployment.engine
    pool = Pool(
        tokens=kv.usable_tokens,
        block_size=kv.block_size,
        max_model_len=engine.max_model_len,
        max_num_seqs=engine.max_num_seqs,
    )
    return compare_contiguous(generate(scenario.workload, scenario.seed), pool)
