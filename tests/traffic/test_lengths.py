"""Token lengths: the quantiles asked for, and what the bounds do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from simserve.errors import InputError
from simserve.inputs.workload import LengthSpec
from simserve.records.requests import IntArray
from simserve.traffic.lengths import draw_lengths
from simserve.traffic.limits import MOST_TOKENS
from simserve.traffic.streams import random_stream

COUNT = 200_000


def draw(count: int = COUNT, seed: int = 1, **spec: Any) -> IntArray:
    return draw_lengths("prompt_tokens", LengthSpec(**spec), count, random_stream(seed, "lengths"))


@pytest.mark.parametrize(("median", "p95"), [(500, 2000), (1020, 4142), (129, 130)])
def test_lognormal_lengths_have_the_asked_quantiles(median: float, p95: float) -> None:
    lengths = draw(median=median, p95=p95)
    sigma = math.log(p95 / median) / 1.645
    # Standard error of a quantile at q: sqrt(q(1-q)/n) / density, relative; five of them,
    # and half a token for the rounding.
    for q, wanted, density in ((0.5, median, 0.3989), (0.95, p95, 0.1031)):
        tolerance = 5 * sigma * (q * (1 - q) / COUNT) ** 0.5 / density * wanted + 0.5
        assert np.quantile(lengths, q) == pytest.approx(wanted, abs=tolerance)


def test_logarithms_of_lengths_are_normal() -> None:
    logs = np.log(draw(median=1e6, p95=4e6))  # so long that rounding does not show
    centred = (logs - logs.mean()) / logs.std()
    # Skewness and kurtosis of a normal sample: standard errors sqrt(6/n) and sqrt(24/n).
    assert (centred**3).mean() == pytest.approx(0, abs=5 * (6 / COUNT) ** 0.5)
    assert (centred**4).mean() == pytest.approx(3, abs=5 * (24 / COUNT) ** 0.5)


def test_fixed_length_is_always_the_same() -> None:
    assert set(draw(fixed=512).tolist()) == {512}


def test_every_length_has_at_least_one_token() -> None:
    assert draw(median=0.5, p95=2).min() == 1


def test_bounds_clip_and_touch_nothing_else() -> None:
    free, bounded = draw(median=500, p95=2000), draw(median=500, p95=2000, min=200, max=1500)
    np.testing.assert_array_equal(bounded, np.clip(free, 200, 1500))
    # They pile up at the bounds: that is what clipping means, and the docstring says so.
    assert (bounded == 1500).mean() == pytest.approx((free >= 1500).mean())
    assert (bounded == 1500).mean() > 0.05


def test_bounds_outside_the_quantiles_leave_the_quantiles_alone() -> None:
    free, bounded = draw(median=500, p95=2000), draw(median=500, p95=2000, min=100, max=3000)
    for q in (0.5, 0.95):
        assert np.quantile(bounded, q) == np.quantile(free, q)


def test_longer_list_begins_with_the_shorter_one() -> None:
    np.testing.assert_array_equal(draw(50, median=9, p95=30), draw(500, median=9, p95=30)[:50])


def test_absurd_spread_stays_within_what_can_be_counted() -> None:
    lengths = draw(1000, median=1e-300, p95=1e300)
    assert lengths.min() == 1
    assert lengths.max() == MOST_TOKENS


@pytest.mark.parametrize("key", ["fixed", "max"])
def test_length_beyond_what_can_be_counted_is_refused(key: str) -> None:
    spec = {"fixed": 10**30} if key == "fixed" else {"median": 5, "p95": 9, "max": 10**30}
    with pytest.raises(InputError, match=f"workload: prompt_tokens.{key}: got 10000000"):
        draw(10, **spec)
