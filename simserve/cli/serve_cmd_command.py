"""``simserve serve-cmd``: the launch line of a scenario's deployment, and what it resolves to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from simserve.cli import options as given

if TYPE_CHECKING:
    from simserve.inputs.scenario import Scenario

Explain = Annotated[
    bool, typer.Option("--explain", help="Print every setting, and where its value comes from.")
]


def serve_cmd(
    ctx: typer.Context,
    scenario: given.ScenarioFile = None,
    deployment: given.Deployment = None,
    serve_cmd: given.ServeCmd = None,
    gpus: given.Gpus = None,
    model: given.Model = None,
    gpu: given.Gpu = None,
    tp: given.Tp = None,
    engine: given.Engine = None,
    latency: given.Latency = None,
    settings: given.Settings = None,
    explain: Explain = False,
) -> None:
    """Print the 'vllm serve' line of a scenario's deployment.

    Only settings that differ from vLLM's defaults on that GPU are in it. With
    --serve-cmd, a line is read and printed again, without what has no effect here.

    \b
    Examples:
      simserve serve-cmd --model qwen3-8b --tp 2 --set max_num_seqs=64
      simserve serve-cmd --serve-cmd @launch.sh --gpu h100-sxm --explain
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    from simserve.inputs.launch_line import to_serve_command
    from simserve.inputs.launch_line.write import remarks_on

    loaded = given.ScenarioChoice.of_params(ctx.params).load()
    if explain:
        _explain(loaded)
        return
    given.say_notes(loaded)
    line = to_serve_command(loaded.deployment)
    for remark in remarks_on(loaded.deployment):
        typer.echo(f"# {remark}")
    typer.echo(line)


def _explain(scenario: Scenario) -> None:
    from simserve.inputs.scenario import resolved_deployment
    from simserve.report.columns import filled, labelled

    deployment = resolved_deployment(scenario.deployment)
    rows = [("model", deployment["model"]["name"], ""), ("tp", deployment["tp"], "")]
    rows += [("replicas", deployment["replicas"], ""), ("router", deployment["router"], "")]
    rows += [
        (key, one["value"], one["source"]) for key, one in deployment["engine"]["settings"].items()
    ]
    lines = labelled((key, f"{value}  {source}".rstrip()) for key, value, source in rows)
    for note in scenario.launch_line.notes if scenario.launch_line else ():
        lines += filled(f"note: {note}", hang="  ")
    typer.echo("\n".join(lines))
