"""Quantities are read in the unit they are written in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.inputs.units import (
    BYTE_RATE_UNITS,
    BYTE_UNITS,
    FLOP_UNITS,
    RATE_UNITS,
    SECOND_UNITS,
    parse_count,
    parse_quantity,
    parse_usd_per_hour,
)


@pytest.mark.parametrize(
    ("text", "units", "expected"),
    [
        ("80GB", BYTE_UNITS, 80e9),
        ("80 GiB", BYTE_UNITS, 80 * 2**30),
        ("81559MiB", BYTE_UNITS, 81559 * 2**20),
        ("3.35TB/s", BYTE_RATE_UNITS, 3.35e12),
        ("989TFLOPS", FLOP_UNITS, 989e12),
        ("989TFLOP/s", FLOP_UNITS, 989e12),
        ("250ms", SECOND_UNITS, 0.25),
        ("4.4us", SECOND_UNITS, 4.4e-6),
        ("5min", SECOND_UNITS, 300.0),
        ("600/min", RATE_UNITS, 10.0),
        (7, SECOND_UNITS, 7.0),
        ("1e3", SECOND_UNITS, 1000.0),
    ],
)
def test_a_unit_is_converted_exactly_once(
    text: object, units: dict[str, object], expected: float
) -> None:
    assert parse_quantity(text, units, "") == pytest.approx(expected, rel=1e-15)  # type: ignore[arg-type]


def test_lower_case_k_is_decimal_and_upper_case_k_binary_as_in_vllm() -> None:
    assert parse_count("32k", "") == 32_000
    assert parse_count("32K", "") == 32_768
    assert parse_count("1.5k", "") == 1_500


@pytest.mark.parametrize(
    "value",
    [
        *("", "GB", "80XB", "8 0GB", "1e999", "1e4003000", "1e4003000GB", "nan", "inf"),
        *(None, True, [], float("nan"), 10**400),
    ],
)
def test_what_is_no_quantity_is_refused_with_what_is_allowed(value: object) -> None:
    with pytest.raises(ValueError, match="a size"):
        parse_quantity(value, BYTE_UNITS, "a size")


@pytest.mark.parametrize("value", [1.5, "1.0001k", True, None, "k", "-"])
def test_what_is_no_count_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="a count"):
        parse_count(value, "a count")


@given(st.floats(0, 1e15), st.sampled_from(sorted(BYTE_UNITS)))
def test_every_byte_unit_scales_a_bare_number(number: float, unit: str) -> None:
    read = parse_quantity(f"{number!r}{unit}", BYTE_UNITS, "")
    assert read == pytest.approx(number * float(BYTE_UNITS[unit]), rel=1e-12)


@given(st.text(max_size=20))
def test_any_text_is_a_finite_number_or_refused(text: str) -> None:
    try:
        assert abs(parse_quantity(text, SECOND_UNITS, "no")) < float("inf")
    except ValueError as error:
        assert str(error) == "no"


def test_prices_may_carry_a_dollar_sign() -> None:
    assert parse_usd_per_hour("$2.49/h") == parse_usd_per_hour(2.49) == 2.49
    with pytest.raises(ValueError, match="US"):
        parse_usd_per_hour("-1")
