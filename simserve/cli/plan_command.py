"""``simserve plan``: the cheapest deployment that keeps an SLO."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simserve.cli import options as given
from simserve.cli.again import again
from simserve.cli.cost_command import Prices, Terms, TermsName
from simserve.cli.exits import ANSWER_IS_NO
from simserve.cli.progress import progress
from simserve.cli.replicated import GoodShare, Workers, parse_share
from simserve.errors import InputError

if TYPE_CHECKING:
    from simserve.inputs.scenario import Scenario
    from simserve.inputs.validation import Origins
    from simserve.planning.plan.answer import PlanAnswer
    from simserve.planning.plan.question import Question


class BackendName(enum.StrEnum):
    """Where runs are computed."""

    LOCAL = "local"
    RAY = "ray"
    DASK = "dask"


Vary = Annotated[
    list[str] | None,
    typer.Option(
        "--vary",
        metavar="KEY=A,B,C",
        help="A key of the deployment and its values, in place of the usual ones. Repeatable.",
    ),
]
MaxGpus = Annotated[
    int | None, typer.Option("--max-gpus", metavar="N", show_default="64", help="GPUs in all.")
]
ProbabilityText = Annotated[
    str,
    typer.Option("--probability", metavar="PERCENT", help="Of runs, how many keep the SLO."),
]
Replications = Annotated[
    int, typer.Option("--replications", metavar="N", help="Whole runs of a finalist.")
]
Confirm = Annotated[
    int, typer.Option("--confirm", metavar="N", help="Fresh seeds that confirm the winner.")
]
Spares = Annotated[int, typer.Option("--spares", metavar="N", help="Replicas beyond the load.")]
Users = Annotated[
    str | None,
    typer.Option("--users", metavar="A,B,C", help="What so many users at once see of the winner."),
]
AssumedPrices = Annotated[
    bool, typer.Option("--assumed-prices", help="Take offers whose price is assumed, too.")
]
BackendOption = Annotated[BackendName, typer.Option("--backend", help="Where runs are computed.")]
Cluster = Annotated[
    str | None,
    typer.Option("--cluster", metavar="ADDRESS", help="Of a Ray or Dask cluster that is there."),
]
Store = Annotated[
    Path | None,
    typer.Option("--store", metavar="DIR", help="Keep every run there as it finishes."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Use the runs that --store holds.")]
Figures = Annotated[
    Path | None,
    typer.Option("--figures", metavar="DIR", help="Write the charts there, as SVG and as PNG."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]

_REPLICATIONS, _FRESH, _PROBABILITY = 20, 10, "95%"  # as in planning.plan.question
_MOST_RUNS = 1000
_MOST_GPUS = 100_000
# Any deployment that fits: the plan's own take its place.
_STAND_IN = "chat"
_LAUNCH_LINE = "launch line"
_DEPLOYMENT_OPTIONS = ("model", "gpu", "tp", "engine", "latency")


@given.of_scenario(without=("gpus",))
def plan(
    ctx: typer.Context,
    scenario: given.ScenarioFile = None,
    slo: given.SloText = None,
    rate: given.Rate = None,
    vary: Vary = None,
    max_gpus: MaxGpus = None,
    probability: ProbabilityText = _PROBABILITY,
    replications: Replications = _REPLICATIONS,
    confirm: Confirm = _FRESH,
    good_share: GoodShare = "99%",
    spares: Spares = 1,
    users: Users = None,
    terms: Terms = TermsName.ON_DEMAND,
    prices: Prices = None,
    assumed_prices: AssumedPrices = False,
    backend: BackendOption = BackendName.LOCAL,
    cluster: Cluster = None,
    workers: Workers = None,
    store: Store = None,
    resume: Resume = False,
    figures: Figures = None,
    as_json: AsJson = False,
) -> None:
    """Find the cheapest deployment that keeps an SLO, and how surely.

    GPUs, tensor parallelism, weights, KV values, limits, router and replicas are varied;
    --gpu, --tp and --set hold them. Bounds remove what cannot be the answer, the rest
    races; fresh seeds confirm the winner. Status 1 if nothing keeps the SLO.

    \b
    Examples:
      simserve plan chat.yaml --rate 20
      simserve plan --slo 'ttft_p95:500 tpot_p95:50' --gpu h200-sxm --max-gpus 4
      simserve plan --vary gpu=h100-sxm,l40s --vary quantization=none,awq --json
      simserve plan thousand-users --figures pictures
      simserve plan --store runs --resume --backend dask --cluster tcp://host:8786
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    if figures is not None:
        from simserve.planning.destinations import check_directory_destination

        check_directory_destination("--figures", figures)
    answer = _answer(ctx.params)
    if figures is not None:
        _draw(answer, figures)
    _show(answer, again(ctx, as_typed=True) if as_json else None)
    if answer.winner is None:
        raise typer.Exit(ANSWER_IS_NO)


def _answer(params: dict[str, Any]) -> PlanAnswer:
    from simserve.planning.plan.answer import make_plan
    from simserve.planning.plan.backends import open_backend
    from simserve.planning.plan.store import OutcomeStore
    from simserve.planning.processes import all_cores, check_workers

    workers: int | None = params["workers"]
    if workers is not None:
        check_workers(workers)
    question = _question(params)
    question.check()
    store = OutcomeStore(params["store"], resume=params["resume"])
    try:
        name: BackendName = params["backend"]
        backend = open_backend(
            name.value, workers=workers or all_cores(), address=params["cluster"]
        )
        try:
            with progress("runs") as news:
                return make_plan(
                    question,
                    backend,
                    store,
                    on_progress=None if news is None else lambda done: news(done, done + 1),
                )
        finally:
            backend.close()
    finally:
        store.close()


def _question(params: dict[str, Any]) -> Question:
    from simserve.inputs.plan_spec import PlanSpec
    from simserve.inputs.prices import load_prices
    from simserve.planning.plan.prices import without_assumed
    from simserve.planning.plan.question import MOST_GPUS, Question

    _refuse_numbers(params)
    choice = given.ScenarioChoice.of_params(params | {"gpus": None})
    spec, origins = choice.load_deployment()
    scenario = _with_stand_in(choice)
    plan_spec = scenario.plan or PlanSpec()
    if params["rate"] is not None:
        plan_spec = plan_spec.model_copy(update={"audience": None})
    plan_spec = _with_options(plan_spec, params)
    book = load_prices(params["prices"])
    if not params["assumed_prices"]:
        book, _ = without_assumed(book)
    held = _held(origins, type(spec).model_fields) - _axes(params).keys()
    for key, (_, option) in _axes(params).items():
        origins.note(f"deployment.{key}", option)
    return Question(
        scenario=scenario,
        spec=spec,
        origins=origins,
        plan=plan_spec,
        prices=book,
        fixed=held,
        terms=params["terms"].value,
        max_gpus=params["max_gpus"] or plan_spec.max_gpus or MOST_GPUS,
        probability=_probability(params["probability"]),
        good_share=parse_share(params["good_share"], "--good-share"),
        replications=params["replications"],
        fresh_seeds=params["confirm"],
        spares=params["spares"],
    )


def _probability(text: str) -> float:
    share = parse_share(text, "--probability")
    if share >= 1:
        allowed = "less than 100%: no number of runs shows that every one keeps the SLO"
        raise InputError("--probability", None, text, allowed)
    return share


def _held(origins: Origins, keys: Iterable[str]) -> frozenset[str]:
    """Return the keys of the deployment that the command line, or a launch line, gives."""
    given_at = {key: origins.given(f"deployment.{key}") or "" for key in keys}
    return frozenset(
        key for key, where in given_at.items() if where.startswith(("--", _LAUNCH_LINE))
    )


def _axes(params: dict[str, Any]) -> dict[str, tuple[tuple[Any, ...], str]]:
    """Return the values of every key that --vary gives, and the option as it was typed."""
    from simserve.planning.sweep_grid import parse_axis

    found: dict[str, tuple[tuple[Any, ...], str]] = {}
    for text in params["vary"] or ():
        axis = parse_axis(text)
        key = axis.key.removeprefix("deployment.").replace("-", "_")
        if key in found:
            raise InputError("--vary", None, key, "each key once")
        found[key] = axis.values, f"--vary {text}"
    return found


def _refuse_numbers(params: dict[str, Any]) -> None:
    ranges = {
        "replications": (1, _MOST_RUNS),
        "confirm": (0, _MOST_RUNS),
        "spares": (0, _MOST_GPUS),
        "max_gpus": (1, _MOST_GPUS),
    }
    for name, (low, high) in ranges.items():
        value = params[name]
        if value is not None and not low <= value <= high:
            option = "--" + name.replace("_", "-")
            raise InputError(option, None, value, f"an integer from {low} to {high}")


def _with_stand_in(choice: given.ScenarioChoice) -> Scenario:
    """Return the scenario without its own deployment, which need not fit anywhere."""
    from simserve.inputs.settings import parse_setting

    others = [
        text for text in choice.settings if not parse_setting(text).path.startswith("deployment")
    ]
    nothing = dict.fromkeys(("serve_cmd", "gpus", *_DEPLOYMENT_OPTIONS))
    stand_in = dataclasses.replace(choice, deployment=_STAND_IN, settings=others, **nothing)
    return stand_in.load()


def _with_options(plan_spec: Any, params: dict[str, Any]) -> Any:
    """Return what may be varied, with what the command line says of it."""
    axes = {key: values for key, (values, _) in _axes(params).items()}
    update: dict[str, Any] = {"vary": {**plan_spec.vary, **axes}}
    if params["users"] is not None:
        update["users"] = _whole_numbers(params["users"])
    return plan_spec.model_copy(update=update)


def _whole_numbers(text: str) -> Sequence[int]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise InputError("--users", None, text, "whole numbers of at least 1, such as 1,10,50")
    return found


def _draw(answer: PlanAnswer, folder: Path) -> None:
    from simserve.report.html import write_figures
    from simserve.report.page.plan import plan_page
    from simserve.report.plan import plan_dict

    write_figures(plan_page(plan_dict(answer)), folder)


def _show(answer: PlanAnswer, command: str | None) -> None:
    """Print the answer; as JSON where ``command``, which asks for it again, is given."""
    from simserve.report.columns import filled
    from simserve.report.plan import nobody_can, plan_dict, plan_text

    if command is not None:
        from simserve.results.whole_files import json_text

        typer.echo(json_text(plan_dict(answer) | {"again": command}), nl=False)
    elif answer.winner is None:
        typer.echo("\n".join(filled(nobody_can(answer))))
    else:
        typer.echo(plan_text(answer))
