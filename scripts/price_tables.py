"""The tables of docs/prices.md: rentals, token prices and power, as the data has them."""

from __future__ import annotations

from collections.abc import Sequence

from simserve.inputs.prices import ApiPrice, Offer, load_prices
from simserve.inputs.sourced import Sourced

Row = tuple[str, ...]


def rentals() -> tuple[Row, Sequence[Row]]:
    """Return head and rows of the machines for rent; an assumed price is in italics."""
    offers = sorted(load_prices().offers, key=lambda one: (one.gpu, one.terms, _per_gpu(one)))
    head = ("GPU", "offer", "GPUs", "terms", "$ per GPU-hour", "as of")
    return head, [
        (
            f"`{one.gpu}`",
            f"`{one.name}`",
            str(one.gpus) if one.gpus else "any",
            one.terms,
            _italic(f"{_per_gpu(one):,.3f}", one.price.kind),
            one.price.date,
        )
        for one in offers
    ]


def apis() -> tuple[Row, Sequence[Row]]:
    """Return head and rows of the models sold by the token."""
    head = ("API", "in", "cached in", "out", "sells", "as of", "ends")
    return head, [
        (
            f"`{one.name}`",
            *_token_prices(one),
            f"`{one.serves}`" if one.serves else "–",
            one.date,
            one.retired.isoformat() if one.retired else "–",
        )
        for one in load_prices().apis
    ]


def power() -> tuple[Row, Sequence[Row]]:
    """Return head and rows of what GPUs draw."""
    rows = [
        (f"`{name}`", _watts(one.tdp_watts), _watts(one.all_in_watts))
        for name, one in sorted(load_prices().power.items())
    ]
    return ("GPU", "limit, W", "all in, W"), rows


def _per_gpu(offer: Offer) -> float:
    return offer.usd_per_gpu_hour


def _token_prices(one: ApiPrice) -> Row:
    prices = (one.prices.input, one.prices.cached_input, one.prices.output)
    return tuple("–" if price is None else _italic(f"{price:g}", one.kind) for price in prices)


def _watts(one: Sourced | None) -> str:
    return "–" if one is None else _italic(f"{one.value:,.0f}", one.kind)


def _italic(text: str, kind: str) -> str:
    return f"*{text}*" if kind == "assumed" else text
