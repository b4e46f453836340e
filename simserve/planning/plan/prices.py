"""What a fleet costs per hour: the typical offer, as ``simserve cost`` takes it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from simserve.inputs.prices import Offer, PriceBook, typical_offer
from simserve.inputs.prices_file import Terms
from simserve.inputs.sourced import Sourced

ASSUMED = "assumed"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPrice:
    """The bill of an hour, the offer that it is of, and those of the offers it was chosen from."""

    usd_per_hour: float
    offer: Offer
    bills: tuple[float, ...]

    @property
    def price(self) -> Sourced:
        """The price with its source."""
        return self.offer.price


class FleetPrices:
    """Prices fleets of one price book; each once."""

    def __init__(self, book: PriceBook, terms: Terms) -> None:
        self._book, self._terms = book, terms
        self._known: dict[tuple[str, int, int], FleetPrice | None] = {}

    def of(self, gpu: str, tp: int, replicas: int) -> FleetPrice | None:
        """Return the price of ``replicas`` of ``tp`` GPUs each; None if nobody offers them."""
        key = (gpu, tp, replicas)
        if key not in self._known:
            self._known[key] = self._found(*key)
        return self._known[key]

    def _found(self, gpu: str, tp: int, replicas: int) -> FleetPrice | None:
        offers = self._book.offers_for(gpu, tp, self._terms)
        if not offers:
            return None
        offer, chosen = typical_offer(offers, tp)
        return FleetPrice(
            usd_per_hour=offer.usd_per_hour(replicas, tp),
            offer=offer,
            bills=tuple(one.usd_per_hour(replicas, tp) for one in chosen),
        )


def without_assumed(book: PriceBook) -> tuple[PriceBook, int]:
    """Return the book without offers whose price is assumed, and how many those are."""
    kept = tuple(one for one in book.offers if one.price.kind != ASSUMED)
    return replace(book, offers=kept), len(book.offers) - len(kept)
