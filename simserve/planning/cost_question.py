"""What is asked about cost beyond the scenario, and the offer that its GPUs are rented at."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from simserve.errors import InputError, unknown_name
from simserve.inputs.deployment import Deployment
from simserve.inputs.prices import (
    GIVEN,
    ON_DEMAND,
    Offer,
    PriceBook,
    given_offer,
    typical_offer,
)
from simserve.inputs.prices_file import Terms
from simserve.planning.fleet import EVERY_HOUR, Hours

DEFAULT_SPARES = 1
DEFAULT_MOST_AGE_DAYS = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class CostQuestion:
    """What is asked beyond the scenario; None means: find it, or take the usual value.

    ``rate_per_s`` is the mean load in the active hours, ``capacity_per_s`` what one replica
    serves within the SLO, ``fte_usd_per_year`` what one engineer costs.
    """

    today: dt.date
    rate_per_s: float | None = None
    capacity_per_s: float | None = None
    peak_to_mean: float | None = None
    hours: Hours = EVERY_HOUR
    spares: int = DEFAULT_SPARES
    users: int | None = None
    gpu_usd_per_hour: float | None = None
    offer: str | None = None
    terms: Terms = "on-demand"
    fte: float = 0.0
    fte_usd_per_year: float = 0.0
    apis: tuple[str, ...] = ()
    most_age_days: int = DEFAULT_MOST_AGE_DAYS


class OffersFor:
    """Finds the offer for so many replicas, and the offers that it was chosen from."""

    def __init__(self, deployment: Deployment, question: CostQuestion, prices: PriceBook) -> None:
        self.gpu, self.tp = deployment.gpu.name, deployment.tp
        self.question, self.prices = question, prices

    def __call__(self, replicas: int) -> tuple[Offer, list[Offer]]:
        """Return the offer, and the list of those that it is the median of (if any).

        Raises:
            InputError: if no price is listed, or no offer has that name.
        """
        question = self.question
        if question.gpu_usd_per_hour is not None:
            price = question.gpu_usd_per_hour
            return given_offer(self.gpu, price, question.today, "--gpu-price"), []
        if question.offer is not None:
            return self._named(question.offer, replicas), []
        offers = self.prices.offers_for(self.gpu, self.tp, question.terms)
        if not offers:
            got = f"{self.tp} × {self.gpu}" if self.tp > 1 else self.gpu
            allowed = f"--gpu-price, or --prices with a row: no {question.terms} price is listed"
            raise InputError("--gpu", "price", got, allowed)
        return typical_offer(offers, self.tp)

    def dearer_than_on_demand(self, offer: Offer) -> str | None:
        """Return in words that other terms than on-demand are dearer than it; None if not."""
        on_demand = self.prices.offers_for(self.gpu, self.tp)
        if offer.provider == GIVEN or offer.terms == ON_DEMAND or not on_demand:
            return None
        usual, _ = typical_offer(on_demand, self.tp)
        if offer.usd_per_gpu_hour <= usual.usd_per_gpu_hour:
            return None
        return (
            f"{offer.terms} costs more than on-demand here: {offer.name} "
            f"${offer.usd_per_gpu_hour:,.2f} per GPU-hour, {usual.name} "
            f"${usual.usd_per_gpu_hour:,.2f}"
        )

    def _named(self, name: str, replicas: int) -> Offer:
        """Return the offer of that name; of a provider's several, the cheapest for the fleet."""
        wanted, mine = name.strip().lower(), [one for one in self.prices.offers if self._fits(one)]
        exact = [one for one in mine if one.name.lower() == wanted]
        found = exact or [one for one in mine if one.provider.lower() == wanted]
        terms = [one for one in found if one.terms == self.question.terms] or found
        if not terms:
            raise unknown_name("--offer", self.gpu, name, sorted({one.name for one in mine}))
        return min(terms, key=lambda one: one.usd_per_hour(replicas, self.tp))

    def _fits(self, offer: Offer) -> bool:
        return offer.gpu == self.gpu and offer.holds(self.tp)
