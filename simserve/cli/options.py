"""The options that say what is simulated, shared by every command that simulates."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from simserve.errors import InputError

if TYPE_CHECKING:
    from simserve.inputs.deployment import DeploymentSpec
    from simserve.inputs.scenario import Scenario
    from simserve.inputs.validation import Origins

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
TraceColumns = Annotated[
    str | None,
    typer.Option(
        "--trace-columns",
        metavar="ROLE=NAME,...",
        help="Columns of a table: arrival_s=t,prompt_tokens=in,output_tokens=out",
    ),
]
Rate = Annotated[
    str | None,
    typer.Option(
        "--rate",
        metavar="R",
        help="Requests per second, or 600/min; of a trace, time is stretched: bursts stay.",
    ),
]
Head = Annotated[
    int | None, typer.Option("--head", metavar="N", help="Only the trace's first N requests.")
]
From = Annotated[
    str | None, typer.Option("--from", metavar="T", help="Only from then on, in s or such as 6h.")
]
To = Annotated[
    str | None, typer.Option("--to", metavar="T", help="Only before then, in s or such as 7h.")
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
AllowExtrapolation = Annotated[
    bool,
    typer.Option(
        "--allow-extrapolation",
        help="Price shapes farther than two octaves from all that the profile measured.",
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


# In the order of --help; all but the file itself, which stands where a command wants it.
SHARED: dict[str, Any] = {
    "workload": Workload,
    "trace": Trace,
    "trace_format": TraceFormat,
    "trace_columns": TraceColumns,
    "rate": Rate,
    "head": Head,
    "from_s": From,
    "to_s": To,
    "deployment": Deployment,
    "serve_cmd": ServeCmd,
    "gpus": Gpus,
    "model": Model,
    "gpu": Gpu,
    "tp": Tp,
    "engine": Engine,
    "latency": Latency,
    "allow_extrapolation": AllowExtrapolation,
    "settings": Settings,
    "slo": SloText,
    "seed": Seed,
}

Command = Callable[..., None]


def of_scenario(*, without: Sequence[str] = ()) -> Callable[[Command], Command]:
    """Give a command the options of ``SHARED`` that it has not itself, ``without`` some.

    They come after its own, and reach it in ``ctx.params`` alone
    (``ScenarioChoice.of_params``). Typer reads options from a signature, so that is what grows.
    """

    def grown(command: Command) -> Command:
        signature = inspect.signature(command)
        own = dict(signature.parameters)
        hints = get_type_hints(command, include_extras=True)
        last = own.pop("as_json", None)
        shared = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=False if name == "allow_extrapolation" else None,
                annotation=kind,
            )
            for name, kind in SHARED.items()
            if name not in own and name not in without
        ]
        mine = [
            one.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[one.name])
            for one in signature.parameters.values()
        ]
        head, tail = (mine, []) if last is None else (mine[:-1], mine[-1:])

        @functools.wraps(command)
        def called(**params: Any) -> None:
            command(**{name: params[name] for name in signature.parameters})

        every = [*head, *shared, *tail]
        called.__signature__ = signature.replace(parameters=every)  # type: ignore[attr-defined]
        called.__annotations__ = {one.name: one.annotation for one in every} | {"return": None}
        return called

    return grown


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioChoice:
    """The scenario file and the options over it, as they stand on the command line."""

    scenario: str | None
    workload: str | None
    trace: str | None
    trace_format: str | None
    trace_columns: str | None
    rate: str | None
    head: int | None
    from_s: str | None
    to_s: str | None
    deployment: str | None
    serve_cmd: str | None
    gpus: int | None
    model: str | None
    gpu: str | None
    tp: int | None
    engine: str | None
    latency: str | None
    allow_extrapolation: bool | None
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
            trace_columns=parse_columns(self.trace_columns),
            rate_per_s=self.rate,
            head=self.head,
            from_s=self.from_s,
            to_s=self.to_s,
            deployment=self.deployment,
            serve_cmd=self.serve_cmd,
            gpus=self.gpus,
            model=self.model,
            gpu=self.gpu,
            tp=self.tp,
            engine=self.engine,
            latency=self.latency,
            settings=[*self._flags(), *self.settings, *further_settings],
            slo=self.slo,
            seed=self.seed,
        )

    def load_deployment(self) -> tuple[DeploymentSpec, Origins]:
        """Return the deployment alone, unresolved, and where its values were given."""
        from simserve.inputs.scenario import load_deployment_spec

        return load_deployment_spec(
            self.scenario,
            deployment=self.deployment,
            serve_cmd=self.serve_cmd,
            gpus=self.gpus,
            settings=[*self._flags(), *self.settings],
            model=self.model,
            gpu=self.gpu,
            tp=self.tp,
            engine=self.engine,
            latency=self.latency,
        )

    def _flags(self) -> list[str]:
        return ["deployment.allow_extrapolation=true"] if self.allow_extrapolation else []

    def files(self) -> list[Path]:
        """Return the files that are read, which no output may replace."""
        line = self.serve_cmd or ""
        script = line[1:] if line.startswith("@") else None
        named = (self.scenario, self.workload, self.trace, self.deployment, script)
        return [Path(name) for name in named if name is not None]


def parse_columns(text: str | None) -> dict[str, str] | None:
    """Return the names of columns by what they mean.

    Raises:
        InputError: if the text is not ``ROLE=NAME,ROLE=NAME``, every role once.
    """
    columns: dict[str, str] = {}
    for pair in () if text is None else text.split(","):
        role, equals, name = (part.strip() for part in pair.partition("="))
        if not (role and equals and name) or role in columns:
            allowed = "ROLE=NAME,ROLE=NAME, every role once"
            raise InputError("--trace-columns", None, text, allowed)
        columns[role] = name
    return columns or None


def say_notes(scenario: Scenario | None) -> None:
    """Print on stderr what was read of a launch line without effect."""
    for note in scenario.launch_line.notes if scenario and scenario.launch_line else ():
        typer.echo(f"simserve: launch line: {note}", err=True)
