"""The price book: sources on every number, own files over shipped ones, machines as they are."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.errors import InputError
from simserve.inputs.hardware_profile import list_gpus
from simserve.inputs.model_catalogue import list_models
from simserve.inputs.prices import (
    Offer,
    age_days,
    how_chosen,
    load_prices,
    thin_choice,
    typical_offer,
)
from simserve.inputs.sourced import KINDS, Sourced

TODAY = dt.date(2026, 11, 20)
OWN = """\
rentals:
  - provider: mine
    kind: imported
    source: contract
    date: 2026-11-01
    rows:
      - {gpu: h100, usd_per_hour: $2.10/h}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "prices.yaml"
    path.write_text(text)
    return path


def offer(gpus: int | None, usd_per_hour: float) -> Offer:
    price = Sourced(usd_per_hour, "imported", "test", "2026-11-20")
    return Offer(provider="p", machine=None, gpu="h100-sxm", gpus=gpus, price=price)


def test_every_shipped_price_has_kind_source_date_and_known_names() -> None:
    book = load_prices()
    gpus, models = set(list_gpus()), set(list_models())
    prices = [one.price for one in book.offers]
    prices += [one.batch for one in book.apis if one.batch]
    for power in book.power.values():
        prices += [one for one in (power.tdp_watts, power.all_in_watts) if one]
    stated = [(one.kind, one.source, one.date) for one in prices]
    stated += [(one.kind, one.source, one.date) for one in book.apis]
    for kind, source, date in stated:
        assert kind in KINDS and source
        assert dt.date.fromisoformat(date) <= TODAY
    assert {one.gpu for one in book.offers} | set(book.power) <= gpus
    assert {one.serves for one in book.apis if one.serves} <= models


def test_offers_and_apis_have_names_of_their_own() -> None:
    book = load_prices()
    offers = [(one.name, one.gpu, one.terms) for one in book.offers]
    assert len(offers) == len(set(offers)) > 100
    names = [one.name for one in book.apis]
    assert len(names) == len(set(names)) > 50


def test_prices_are_those_of_the_lists() -> None:
    book = load_prices()
    by_name = {(one.name, one.terms): one for one in book.offers}
    p5 = by_name["aws/p5.48xlarge", "on-demand"]
    assert p5.usd_per_gpu_hour == pytest.approx(6.88)
    mini = book.find_api("openai/gpt-4o-mini").prices
    assert (mini.input, mini.cached_input, mini.output) == (0.15, 0.075, 0.6)


@given(
    gpus=st.sampled_from([None, 1, 2, 4, 8]),
    replicas=st.integers(1, 40),
    tp=st.sampled_from([1, 2, 4]),
)
def test_machines_hold_the_fleet_and_no_more_than_a_machine_too_many(
    gpus: int | None, replicas: int, tp: int
) -> None:
    one = offer(gpus, 10.0)
    if not one.holds(tp):
        assert gpus is not None and gpus < tp
        return
    paid = one.gpus_paid(replicas, tp)
    assert replicas * tp <= paid < replicas * tp + (gpus or 1)
    assert paid % (gpus or 1) == 0
    assert one.usd_per_hour(replicas, tp) == pytest.approx(paid * one.usd_per_gpu_hour)


def test_typical_offer_is_the_median_of_those_that_waste_least() -> None:
    eight, single, dear, cheap = offer(8, 8.0), offer(1, 3.0), offer(None, 5.0), offer(1, 2.0)
    chosen, among = typical_offer([eight, single, dear, cheap], 1)
    assert chosen is single and among == [cheap, single, dear]
    assert {one.name for one in typical_offer([eight, dear], 8)[1]} == {eight.name, dear.name}


def test_of_two_offers_the_lower_one_is_taken_and_not_called_a_median() -> None:
    cheap, dear = offer(1, 2.0), offer(1, 6.0)
    assert typical_offer([dear, cheap], 1)[0] is cheap
    assert how_chosen([6.0, 2.0]) == "the lower of 2 offers, $2.00 to $6.00"
    assert how_chosen([2.0]) == "the only offer"
    assert how_chosen([3.0, 2.0, 6.0]) == "the median of 3 offers, $2.00 to $6.00"


def test_few_offers_far_apart_are_warned_of() -> None:
    assert "3.0 times as much ($6.00)" in (thin_choice([2.0, 6.0]) or "")
    assert thin_choice([2.0, 3.0]) is None  # not far apart
    assert thin_choice([2.0, 3.0, 6.0]) is None  # not few
    assert thin_choice([2.0]) is None


def test_own_file_replaces_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    book, shipped = load_prices(write(tmp_path, OWN)), load_prices()
    assert [one.name for one in book.offers_for("h100-sxm", 8)] == ["mine"]
    assert book.offers_for("h100-sxm", 8)[0].price.value == 2.1
    assert book.offers_for("l4", 1) == shipped.offers_for("l4", 1)
    assert book.apis == shipped.apis


def test_retired_models_are_not_proposed() -> None:
    book = load_prices()
    together = "together/meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo"
    now = [one.name for one in book.apis_serving("llama-3.1-8b", TODAY)]
    before = [one.name for one in book.apis_serving("llama-3.1-8b", dt.date(2026, 3, 5))]
    assert together not in now and together in before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("    date: 2026-11-01\n", ""), r"rentals.0.date: got nothing, allowed: a date such as"),
        (("2026-11-01", "soon"), r"rentals.0.date: got soon, allowed: a date such as"),
        (("    kind: imported\n", ""), r"rentals.0.kind: got nothing, allowed: one of datasheet"),
        (("imported", "heard"), r"rentals.0.kind: got heard, allowed: one of datasheet"),
        (("source: contract", "source:"), r"rentals.0.source: got nothing, allowed: where"),
        (("$2.10/h", "0"), r"rows.0.usd_per_hour: got 0, allowed: a price above 0"),
        (("$2.10/h", "2.10€"), r"rows.0.usd_per_hour: got 2.10€, allowed: a price"),
        (("h100", "h1000"), r"rows.0.gpu: got h1000, allowed: .*did you mean h100-sxm"),
        (("usd_per_hour", "usd"), r"rows.0.usd: got an unknown key, allowed: usd_per_hour"),
        (("rentals", "rental"), r"prices.rental: got an unknown key, allowed: rentals"),
    ],
)
def test_wrong_price_file_is_one_line_that_says_where(
    change: tuple[str, str], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path, OWN.replace(*change))
    with pytest.raises(InputError) as caught:
        load_prices(path)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert str(path) in str(caught.value)


def test_unknown_api_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"did you mean openai/gpt-4o-mini\?"):
        load_prices().find_api("openai/gpt-4o-mimi")
    with pytest.raises(InputError, match=r"groq/openai/gpt-oss-120b or together/"):
        load_prices().find_api("openai/gpt-oss-120b")


def test_a_price_ages_from_its_day_on() -> None:
    assert age_days("2026-11-01", TODAY) == 19
    assert age_days("2026-11-21", TODAY) == 0
