"""The options that say what is simulated, shared by every command that simulates."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from simserve.inputs.scenario import Scenario

ScenarioFile = Annotated[
    str | None,
    typer.Argument(
        metavar="SCENARIO.yaml",
        show_default=False,
        help="Workload, deployment, SLO and seed in one file. Options override it.",
    ),
]
Workload = Annotated[
    str | None, typer.Option("--workload", metavar="FILE", help="Workload file (YAML).")
]
Trace = Annotated[
    str | None, typer.Option("--trace", metavar="FILE", help="Recorded requests to replay.")
]
TraceFormat = Annotated[
    str | None,
    typer.Option(
        "--trace-format",
        metavar="azure|mooncake|timed_trace|…",
        help="Format of the trace, if it cannot be told from the file.",
    ),
]
Deployment = Annotated[
    str | None, typer.Option("--deployment", metavar="FILE", help="Deployment file (YAML).")
]
ServeCmd = Annotated[
    str | None,
    typer.Option(
        "--serve-cmd",
        metavar="LINE|@FILE|-",
        help="Launch line as the deployment: 'vllm serve MODEL -tp 2 …', or @ a script or YAML.",
    ),
]
Gpus = Annotated[
    int | None,
    typer.Option("--gpus", metavar="N", help="GPUs there are; refuse a deployment that uses more."),
]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME", help="Model; see 'simserve list models'."),
]
Gpu = Annotated[
    str | None, typer.Option("--gpu", metavar="NAME", help="GPU; see 'simserve list gpus'.")
]
Tp = Annotated[
    int | None, typer.Option("--tp", metavar="N", help="GPUs per replica (tensor parallel).")
]
Engine = Annotated[
    str | None, typer.Option("--engine", metavar="NAME", help="Engine whose rules apply: vllm.")
]
Latency = Annotated[
    str | None,
    typer.Option(
        "--latency",
        metavar="roofline|PROFILE",
        help="What prices a step: the roofline, or a measured profile.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any other key, e.g. max_num_seqs=64 or workload.num_requests=500. Repeatable.",
    ),
]
SloText = Annotated[
    str | None,
    typer.Option(
        "--slo",
        metavar="TEXT",
        help="Objectives in ms: 'ttft:500 tpot:50' per request, 'ttft_p95:500' per run.",
    ),
]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Seed of every random draw.")]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioChoice:
    """The scenario file and the options over it, as they stand on the command line."""

    scenario: str | None
    workload: str | None
    trace: str | None
    trace_format: str | None
    deployment: str | None
    serve_cmd: str | None
    gpus: int | None
    model: str | None
    gpu: str | None
    tp: int | None
    engine: str | None
    latency: str | None
    settings: Sequence[str]
    slo: str | None
    seed: int | None

    @classmethod
    def of_params(cls, params: Mapping[str, Any]) -> ScenarioChoice:
        """Return what a command's parameters choose; parameters that are not ours are left."""
        mine = {field.name: params.get(field.name) for field in dataclasses.fields(cls)}
        return cls(**mine | {"settings": tuple(params["settings"] or ())})

    def load(self, further_settings: Sequence[str] = ()) -> Scenario:
        """Return the scenario, with ``further_settings`` applied last."""
        from simserve.inputs.scenario import load_scenario

        return load_scenario(
            self.scenario,
            workload=self.workload,
            trace=self.trace,
            trace_format=self.trace_format,
            deployment=self.deployment,
            serve_cmd=self.serve_cmd,
            gpus=self.gpus,
            model=self.model,
            gpu=self.gpu,
            tp=self.tp,
            engine=self.engine,
            latency=self.latency,
            settings=[*self.settings, *further_settings],
            slo=self.slo,
            seed=self.seed,
        )

    def files(self) -> list[Path]:
        """Return the files that are read, which no output may replace."""
        line = self.serve_cmd or ""
        script = line[1:] if line.startswith("@") else None
        named = (self.scenario, self.workload, self.trace, self.deployment, script)
        return [Path(name) for name in named if name is not None]


def say_notes(scenario: Scenario | None) -> None:
    """Print on stderr what was read of a launch line without effect."""
    for note in scenario.launch_line.notes if scenario and scenario.launch_line else ():
        typer.echo(f"simserve: launch line: {note}", err=True)
