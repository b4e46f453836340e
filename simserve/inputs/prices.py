"""The price book: who rents what GPU, and who sells tokens, for how much, as of which day.

What ships stands in ``catalogue/prices``. A file of one's own replaces, GPU by GPU and model by
model, what it names; the rest stays.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from simserve.errors import InputError, unknown_name
from simserve.inputs.data_files import CATALOGUE
from simserve.inputs.hardware_profile import load_gpu
from simserve.inputs.prices_file import (
    ApiRow,
    BatchPrice,
    LongPrompt,
    PowerRow,
    PriceFile,
    RentalRow,
    Terms,
    TokenPrices,
    read_price_file,
)
from simserve.inputs.sourced import Sourced

ON_DEMAND: Terms = "on-demand"
# A price that fewer offers decide, of which one asks so many times another, is said to be thin.
FEWEST_OFFERS = 3
FAR_APART = 1.5
GIVEN = "given"
"""The provider of a price that stands on the command line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A machine for rent: ``gpus`` of one kind, or None if GPUs are sold one by one."""

    provider: str
    machine: str | None
    gpu: str
    gpus: int | None
    price: Sourced  # US$ per hour of the machine, or of one GPU
    terms: Terms = ON_DEMAND
    region: str | None = None

    @property
    def name(self) -> str:
        """How the command line calls it: ``aws/p5.48xlarge``."""
        return f"{self.provider}/{self.machine}" if self.machine else self.provider

    @property
    def usd_per_gpu_hour(self) -> float:
        """The price of one GPU's hour when the machine is full."""
        return self.price.value / (self.gpus or 1)

    def holds(self, tp: int) -> bool:
        """Return whether a replica of ``tp`` GPUs stands within one machine."""
        return self.gpus is None or self.gpus >= tp

    def gpus_paid(self, replicas: int, tp: int) -> int:
        """Return the GPUs that must be rented: whole machines, no replica across two."""
        if self.gpus is None:
            return replicas * tp
        return -(-replicas // (self.gpus // tp)) * self.gpus

    def usd_per_hour(self, replicas: int, tp: int) -> float:
        """Return what ``replicas`` of ``tp`` GPUs each cost per hour."""
        return self.gpus_paid(replicas, tp) * self.usd_per_gpu_hour


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiPrice:
    """What one provider asks for the tokens of one model; ``low`` and ``high`` span the lists."""

    provider: str
    model: str
    prices: TokenPrices
    other_list: TokenPrices | None
    long_prompt: LongPrompt | None
    batch: Sourced | None  # share of the price
    retired: dt.date | None
    serves: str | None
    kind: str
    source: str
    date: str

    @property
    def name(self) -> str:
        """How the command line calls it: ``openai/gpt-4o-mini``."""
        return f"{self.provider}/{self.model}"

    def is_retired(self, today: dt.date) -> bool:
        """Return whether the list has it end on or before ``today``."""
        return self.retired is not None and self.retired <= today


@dataclass(frozen=True, slots=True)
class Power:
    """What one GPU draws, in watts: its limit, and its share of a datacentre, where known."""

    tdp_watts: Sourced | None = None
    all_in_watts: Sourced | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceBook:
    """All prices that are known; ``own_file`` is the user's, if there is one."""

    offers: tuple[Offer, ...]
    apis: tuple[ApiPrice, ...]
    power: Mapping[str, Power]
    own_file: str | None = None

    def offers_for(self, gpu: str, tp: int, terms: Terms = ON_DEMAND) -> list[Offer]:
        """Return the offers of ``gpu`` that hold a replica, cheapest GPU first."""
        found = [
            one for one in self.offers if one.gpu == gpu and one.terms == terms and one.holds(tp)
        ]
        return sorted(found, key=lambda one: (one.usd_per_gpu_hour, one.name))

    def apis_serving(self, model: str, today: dt.date) -> list[ApiPrice]:
        """Return the offers of the catalogue's ``model`` that are not retired."""
        return [one for one in self.apis if one.serves == model and not one.is_retired(today)]

    def find_api(self, name: str, where: str = "--api") -> ApiPrice:
        """Return the row ``provider/model``, or the only one of that model.

        Raises:
            InputError: if there is none, or the model alone is not enough.
        """
        wanted = name.strip().lower()
        found = [one for one in self.apis if wanted in (one.name.lower(), one.model.lower())]
        if not found:
            raise unknown_name(where, "model", name, [one.name for one in self.apis])
        if len(found) > 1:
            raise InputError(where, "model", name, " or ".join(one.name for one in found))
        return found[0]


def typical_offer(offers: list[Offer], tp: int) -> tuple[Offer, list[Offer]]:
    """Return the offer of the median bill for a replica, and the offers it was chosen from.

    Of an even number it is the lower one of the two in the middle. Offers that leave more GPUs
    unused than others are passed over: nobody rents eight GPUs to use one. It is chosen for one
    replica, so that a GPU costs the same however many there are.
    """
    fewest = min(one.gpus_paid(1, tp) for one in offers)
    chosen = [one for one in offers if one.gpus_paid(1, tp) == fewest]
    chosen.sort(key=lambda one: (one.usd_per_hour(1, tp), one.name))
    return chosen[(len(chosen) - 1) // 2], chosen


def how_chosen(prices: Sequence[float]) -> str:
    """Return in words which of these prices is the typical one, with their range.

    Of two there is no median: the lower one is taken, since only a real offer can be bought.
    """
    if len(prices) == 1:
        return "the only offer"
    which = "lower" if len(prices) == 2 else "median"
    low, high = min(prices), max(prices)
    return f"the {which} of {len(prices)} offers, ${low:,.2f} to ${high:,.2f}"


def thin_choice(prices: Sequence[float]) -> str | None:
    """Return a warning where few offers, far apart, decide a price; None where they do not."""
    if not 1 < len(prices) < FEWEST_OFFERS or max(prices) <= FAR_APART * min(prices):
        return None
    return (
        f"only {len(prices)} offers decide this price, and the dearer one asks "
        f"{max(prices) / min(prices):.1f} times as much (${max(prices):,.2f}): look whether the "
        "cheaper one is to be had"
    )


def given_offer(gpu: str, usd_per_gpu_hour: float, today: dt.date, where: str) -> Offer:
    """Return the offer that a price on the command line amounts to."""
    price = Sourced(usd_per_gpu_hour, GIVEN, where, today.isoformat())
    return Offer(provider=GIVEN, machine=None, gpu=gpu, gpus=None, price=price)


def load_prices(own_file: str | Path | None = None) -> PriceBook:
    """Return the prices that ship, with those of ``own_file`` over them.

    Raises:
        InputError: if a file cannot be used: a list without a date, an unknown GPU.
    """
    book = _shipped()
    if own_file is None:
        return book
    own = _book([(str(own_file), read_price_file(own_file))])
    gpus, models = {one.gpu for one in own.offers}, {one.name for one in own.apis}
    return PriceBook(
        offers=(*own.offers, *(one for one in book.offers if one.gpu not in gpus)),
        apis=(*own.apis, *(one for one in book.apis if one.name not in models)),
        power={**book.power, **own.power},
        own_file=str(own_file),
    )


@functools.cache
def _shipped() -> PriceBook:
    paths = sorted((CATALOGUE / "prices").glob("*.yaml"))
    return _book([(str(path), read_price_file(path)) for path in paths])


def _book(files: Iterable[tuple[str, PriceFile]]) -> PriceBook:
    offers: list[Offer] = []
    apis: list[ApiPrice] = []
    power: dict[str, Power] = {}
    for where, file in files:
        offers.extend(_offers(file, where))
        apis.extend(_apis(file))
        _add_power(power, file, where)
    return PriceBook(offers=tuple(offers), apis=tuple(apis), power=power)


def _offers(file: PriceFile, where: str) -> Iterable[Offer]:
    for at, one in enumerate(file.rentals):
        for row_at, row in enumerate(one.rows):
            which = f"prices.rentals.{at}.rows.{row_at}.gpu"
            yield Offer(
                provider=one.provider,
                machine=row.machine,
                gpu=load_gpu(row.gpu, where, which).name,
                gpus=row.gpus,
                price=_sourced(row.usd_per_hour, row, one.kind, one.source, one.date),
                terms=one.terms,
                region=one.region,
            )


def _apis(file: PriceFile) -> Iterable[ApiPrice]:
    for one in file.api:
        for row in one.rows:
            yield ApiPrice(
                provider=one.provider,
                model=row.model,
                prices=row.usd_per_mtok,
                other_list=row.other_list,
                long_prompt=row.long_prompt,
                batch=_batch(one.batch_price_frac),
                retired=row.retired,
                serves=row.serves,
                kind=row.kind or one.kind,
                source=row.source or one.source,
                date=one.date.isoformat(),
            )


def _batch(one: BatchPrice | None) -> Sourced | None:
    if one is None:
        return None
    return Sourced(one.value, one.kind, one.source, one.date.isoformat())


def _add_power(power: dict[str, Power], file: PriceFile, where: str) -> None:
    for at, one in enumerate(file.power):
        for row_at, row in enumerate(one.rows):
            name = load_gpu(row.gpu, where, f"prices.power.{at}.rows.{row_at}.gpu").name
            known = power.get(name, Power())
            for key in ("tdp_watts", "all_in_watts"):
                watts = getattr(row, key)
                if watts is not None:
                    sourced = _sourced(watts, row, one.kind, one.source, one.date)
                    known = replace(known, **{key: sourced})
            power[name] = known


def _sourced(
    value: float, row: RentalRow | ApiRow | PowerRow, kind: str, source: str, date: dt.date
) -> Sourced:
    return Sourced(value, row.kind or kind, row.source or source, date.isoformat())


def age_days(date: str, today: dt.date) -> int:
    """Return how old a price is on ``today``; a price from a later day has no age."""
    return max(0, (today - dt.date.fromisoformat(date)).days)
