"""What a price file may say: rentals, token prices and power, each list with source and date.

Lists keep their provenance once, for all their rows; a row may state its own ``kind`` and
``source``. A list without a date is refused: a price means nothing without its day.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from simserve.inputs.sourced import KINDS
from simserve.inputs.units import PositiveCount, PositiveNumber, parse_quantity, parse_usd_per_hour
from simserve.inputs.validation import Origins, StrictModel, validate
from simserve.inputs.workload_arrivals import as_tuple
from simserve.inputs.yaml_reader import read_yaml

Terms = Literal["on-demand", "spot", "reserved-3y", "owned"]
_DATE = "a date such as 2026-11-20"
_KIND = "one of " + ", ".join(KINDS)
_SOURCE = "where the prices come from, as text"
_USD_PER_MTOK = "a price of at least 0, in US$ per million tokens"
_USD_PER_HOUR = "a price above 0, in US$ per hour, such as $2.49/h"


def _date(value: Any) -> dt.date:
    try:
        return dt.date.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError(_DATE) from None


def _kind(value: Any) -> str:
    if value not in KINDS:
        raise ValueError(_KIND)
    return str(value)


def _usd_per_mtok(value: Any) -> float:
    price = parse_quantity(value, {}, _USD_PER_MTOK)
    if price < 0:
        raise ValueError(_USD_PER_MTOK)
    return price


def _usd_per_hour(value: Any) -> float:
    price = parse_usd_per_hour(value)
    if price <= 0:
        raise ValueError(_USD_PER_HOUR)
    return price


Date = Annotated[dt.date, BeforeValidator(_date)]
Kind = Annotated[str, BeforeValidator(_kind)]
Text = Annotated[str, Field(min_length=1)]
UsdPerMtok = Annotated[float, BeforeValidator(_usd_per_mtok)]
UsdPerHour = Annotated[float, BeforeValidator(_usd_per_hour)]
Listed = BeforeValidator(as_tuple)


class _List(StrictModel):
    """Rows from one place, read on one day."""

    kind: Kind = Field(description=_KIND)
    source: Text = Field(description=_SOURCE)
    date: Date = Field(description=_DATE)


class _Row(StrictModel):
    """One row; its own kind and source replace those of its list."""

    kind: Kind | None = Field(default=None, description=_KIND)
    source: Text | None = Field(default=None, description=_SOURCE)


class RentalRow(_Row):
    """A machine: with ``gpus``, the price is that of all of them together."""

    KEY_HINTS: ClassVar[dict[str, str]] = dict.fromkeys(("usd", "price"), "usd_per_hour")

    gpu: Text = Field(description="the name of a GPU, as text")
    usd_per_hour: UsdPerHour = Field(description=_USD_PER_HOUR)
    machine: Text | None = Field(default=None, description="what the provider calls it, as text")
    gpus: PositiveCount | None = Field(default=None, description="an integer of at least 1")


class RentalList(_List):
    """The machines of one provider under one kind of contract."""

    provider: Text = Field(description="who rents it out, as text")
    region: Text | None = Field(default=None, description="where the machines stand, as text")
    terms: Terms = Field(default="on-demand", description="on-demand, spot, reserved-3y or owned")
    rows: Annotated[tuple[RentalRow, ...], Listed] = Field(
        description="a list of {gpu, usd_per_hour, machine, gpus}"
    )


class TokenPrices(StrictModel):
    """US$ per million tokens; without a price of its own, cached input costs as input."""

    input: UsdPerMtok = Field(description=_USD_PER_MTOK)
    output: UsdPerMtok = Field(description=_USD_PER_MTOK)
    cached_input: UsdPerMtok | None = Field(default=None, description=_USD_PER_MTOK)


class LongPrompt(StrictModel):
    """The prices of requests whose prompt has more than ``above_tokens``."""

    above_tokens: PositiveCount = Field(description="an integer of at least 1: tokens")
    input: UsdPerMtok = Field(description=_USD_PER_MTOK)
    output: UsdPerMtok = Field(description=_USD_PER_MTOK)


class ApiRow(_Row):
    """One model of a provider; ``other_list`` is what a second list says, if it disagrees."""

    model: Text = Field(description="the provider's name of the model, as text")
    usd_per_mtok: TokenPrices = Field(description="a mapping with input, cached_input, output")
    other_list: TokenPrices | None = Field(
        default=None, description="a mapping with input, cached_input, output"
    )
    long_prompt: LongPrompt | None = Field(
        default=None, description="a mapping with above_tokens, input, output"
    )
    retired: Date | None = Field(default=None, description=_DATE)
    serves: Text | None = Field(default=None, description="a model of the catalogue, as text")


class BatchPrice(_List):
    """Which share of the price a batch interface asks."""

    value: PositiveNumber = Field(description="a fraction above 0 of the price")


class ApiList(_List):
    """The models of one provider."""

    provider: Text = Field(description="who serves the models, as text")
    batch_price_frac: BatchPrice | None = Field(
        default=None, description="a mapping with value, kind, source and date"
    )
    rows: Annotated[tuple[ApiRow, ...], Listed] = Field(
        description="a list of {model, usd_per_mtok}"
    )


class PowerRow(_Row):
    """What one GPU draws; either figure may be left out."""

    gpu: Text = Field(description="the name of a GPU, as text")
    tdp_watts: PositiveNumber | None = Field(default=None, description="watts, above 0")
    all_in_watts: PositiveNumber | None = Field(default=None, description="watts, above 0")


class PowerList(_List):
    """Power figures from one place."""

    rows: Annotated[tuple[PowerRow, ...], Listed] = Field(
        description="a list of {gpu, tdp_watts, all_in_watts}"
    )


class PriceFile(StrictModel):
    """A price file; every section may be left out."""

    rentals: Annotated[tuple[RentalList, ...], Listed] = Field(
        default=(), description="a list of {provider, kind, source, date, rows}"
    )
    api: Annotated[tuple[ApiList, ...], Listed] = Field(
        default=(), description="a list of {provider, kind, source, date, rows}"
    )
    power: Annotated[tuple[PowerList, ...], Listed] = Field(
        default=(), description="a list of {kind, source, date, rows}"
    )


def read_price_file(path: str | Path) -> PriceFile:
    """Return what the price file ``path`` says.

    Raises:
        InputError: for the first thing that is wrong with it, such as a list without a date.
    """
    entry = read_yaml(path)
    return validate(PriceFile, entry, Origins(str(path)), "prices")
