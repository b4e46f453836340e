"""``simserve cost``: dollars per million tokens on GPUs of one's own, and at an API."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simserve.cli import options as given
from simserve.cli.again import again
from simserve.cli.exits import ANSWER_IS_NO
from simserve.errors import InputError

if TYPE_CHECKING:
    from simserve.planning.cost_question import CostQuestion


class TermsName(enum.StrEnum):
    """Kinds of contract in the price list."""

    ON_DEMAND = "on-demand"
    SPOT = "spot"
    RESERVED = "reserved-3y"
    OWNED = "owned"


Rate = Annotated[
    str | None,
    typer.Option(
        "--rate",
        metavar="R",
        help="Mean load in requests/s, or 600/min; the workload's own if not given.",
    ),
]
Capacity = Annotated[
    float | None,
    typer.Option("--capacity", metavar="N", help="Requests/s that a replica serves in the SLO."),
]
Peak = Annotated[
    float | None,
    typer.Option("--peak-to-mean", metavar="N", help="Peak load over the mean; sizes the fleet."),
]
Active = Annotated[
    float, typer.Option("--active-hours", metavar="H", help="Hours of a day with traffic.")
]
Paid = Annotated[
    float | None,
    typer.Option(
        "--paid-hours", metavar="H", help="Hours of a day that are paid for; 24 if not given."
    ),
]
Spares = Annotated[int, typer.Option("--spares", metavar="N", help="Replicas beyond the load.")]
Users = Annotated[
    int | None, typer.Option("--users", metavar="N", help="Users who share the bill.")
]
GpuPrice = Annotated[
    str | None,
    typer.Option("--gpu-price", metavar="USD", help="Price of one GPU per hour, e.g. 2.49."),
]
Offer = Annotated[
    str | None,
    typer.Option("--offer", metavar="NAME", help="Offer in the price list, e.g. aws/p5.48xlarge."),
]
Terms = Annotated[TermsName, typer.Option("--terms", help="Kind of contract.")]
Fte = Annotated[float, typer.Option("--fte", metavar="N", help="Engineers who keep it running.")]
FteCost = Annotated[
    float | None,
    typer.Option("--fte-cost", metavar="USD", help="What one of them costs a year."),
]
Api = Annotated[
    list[str] | None,
    typer.Option(
        "--api",
        metavar="PROVIDER/MODEL",
        help="API to compare with; those that sell this model if not. Repeatable.",
    ),
]
Prices = Annotated[
    Path | None,
    typer.Option("--prices", metavar="FILE", help="Own prices (YAML) over those that ship."),
]
Today = Annotated[
    str | None,
    typer.Option("--today", metavar="DATE", help="Day on which prices are judged old."),
]
MostAge = Annotated[
    int, typer.Option("--max-age", metavar="DAYS", help="Warn of prices older than this.")
]
Workers = Annotated[
    int, typer.Option("--workers", metavar="N", help="Processes; the answer does not depend on it.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


@given.of_scenario()
def cost(
    ctx: typer.Context,
    scenario: given.ScenarioFile = None,
    rate: Rate = None,
    capacity: Capacity = None,
    peak_to_mean: Peak = None,
    active_hours: Active = 24.0,
    paid_hours: Paid = None,
    spares: Spares = 1,
    users: Users = None,
    gpu_price: GpuPrice = None,
    offer: Offer = None,
    terms: Terms = TermsName.ON_DEMAND,
    fte: Fte = 0.0,
    fte_cost: FteCost = None,
    api: Api = None,
    prices: Prices = None,
    today: Today = None,
    max_age: MostAge = 90,
    workers: Workers = 1,
    as_json: AsJson = False,
) -> None:
    """Say what tokens cost, on GPUs of your own and at an API.

    Every paid hour is in it: idle ones, spares, whole machines. The GPU time of each
    step says whose the dollars are. The exit status is 1 if the SLO is missed.

    \b
    Examples:
      simserve cost chat.yaml --users 1000
      simserve cost --rate 2 --offer aws --api openai/gpt-4o-mini
      simserve cost --trace azure.csv --gpu-price 2.49 --fte 0.5 --fte-cost 180000
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    from simserve.inputs.prices import load_prices
    from simserve.planning import cost as planning
    from simserve.planning.processes import check_workers
    from simserve.report.cost import cost_report
    from simserve.report.cost_summary import cost_data
    from simserve.results.whole_files import json_text

    check_workers(workers)
    question = _question(ctx.params)
    book = load_prices(prices)
    asked = given.ScenarioChoice.of_params(ctx.params).load()
    # What a replica serves is looked for from the workload's own rate, whatever rate is asked.
    ready = given.ScenarioChoice.of_params(ctx.params | {"rate": None}).load()
    given.say_notes(ready)
    report = planning.cost(ready, question, book, workers=workers)
    report = dataclasses.replace(report, scenario=asked)
    for warning in report.warnings:
        typer.echo(f"simserve: {warning}", err=True)
    if as_json:
        typer.echo(json_text(cost_data(report) | {"again": again(ctx)}), nl=False)
    else:
        typer.echo(cost_report(report))
    if not report.meets_slo:
        raise typer.Exit(ANSWER_IS_NO)


def _question(params: dict[str, Any]) -> CostQuestion:
    """Return what the options ask, each checked."""
    from simserve.planning.cost_question import CostQuestion
    from simserve.planning.fleet import HOURS_PER_DAY, Hours

    for name in ("capacity", "peak_to_mean", "users"):
        _refuse(params, name, lambda value: value > 0, "a number above 0")
    for name in ("spares", "fte", "fte_cost", "max_age"):
        _refuse(params, name, lambda value: value >= 0, "a number of at least 0")
    _refuse(params, "peak_to_mean", lambda value: value >= 1, "a number of at least 1")
    if not 0 < params["active_hours"] <= HOURS_PER_DAY:
        got = f"{params['active_hours']:g}"
        raise InputError("--active-hours", None, got, "above 0, at most 24")
    active = params["active_hours"]
    paid = HOURS_PER_DAY if params["paid_hours"] is None else params["paid_hours"]
    if not active <= paid <= HOURS_PER_DAY:
        allowed = f"from {active:g}, the hours with traffic, to 24"
        raise InputError("--paid-hours", None, f"{paid:g}", allowed)
    if params["fte"] and params["fte_cost"] is None:
        raise InputError("--fte", None, f"{params['fte']:g}", "only with --fte-cost, US$ a year")
    if params["fte_cost"] is not None and not params["fte"]:
        raise InputError("--fte-cost", None, f"{params['fte_cost']:g}", "only with --fte")
    if params["gpu_price"] is not None and params["offer"] is not None:
        raise InputError("--gpu-price", None, params["gpu_price"], "it or --offer")
    return CostQuestion(
        today=_day(params["today"]),
        rate_per_s=_rate_per_s(params["rate"]),
        capacity_per_s=params["capacity"],
        peak_to_mean=params["peak_to_mean"],
        hours=Hours(active=active, paid=paid),
        spares=params["spares"],
        users=params["users"],
        gpu_usd_per_hour=_gpu_price(params["gpu_price"]),
        offer=params["offer"],
        terms=params["terms"].value,
        fte=params["fte"],
        fte_usd_per_year=params["fte_cost"] or 0.0,
        apis=tuple(params["api"] or ()),
        most_age_days=params["max_age"],
    )


# Of anything that is counted or paid: beyond it, sums are not numbers any more.
_LARGEST = 1e12


def _refuse(params: dict[str, Any], name: str, is_fine: Any, allowed: str) -> None:
    value = params[name]
    if value is not None and not (is_fine(value) and value <= _LARGEST):
        allowed = f"{allowed}, at most {_LARGEST:g}"
        raise InputError("--" + name.replace("_", "-"), None, f"{value:g}", allowed)


def _rate_per_s(text: str | None) -> float | None:
    from simserve.inputs.units import parse_rate_per_s

    if text is None:
        return None
    try:
        return float(parse_rate_per_s(text))
    except ValueError as error:
        raise InputError("--rate", None, text, str(error)) from None


def _gpu_price(text: str | None) -> float | None:
    from simserve.inputs.units import parse_usd_per_hour

    if text is None:
        return None
    try:
        price = parse_usd_per_hour(text)
    except ValueError:
        price = 0.0  # no price either
    if not 0 < price <= _LARGEST:
        allowed = f"a price above 0, at most {_LARGEST:g}, in US$ per hour, such as $2.49/h"
        raise InputError("--gpu-price", None, text, allowed)
    return price


def _day(text: str | None) -> dt.date:
    if text is None:
        return dt.date.today()
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise InputError("--today", None, text, "a date such as 2026-11-20") from None
