"""Quantities as people write them (``80GiB``, ``3.35TB/s``, ``250ms``, ``32k``) as numbers.

A unit is converted once, here, where a file is read; inside, names carry the unit. The
``Annotated`` types are what the pydantic models of this package use.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal, DecimalException
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

_NUMBER_AND_UNIT = re.compile(
    r"([-+]?(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?)\s*([^\s\d.][^\s]*)?"
)

_DECIMAL = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}

BYTE_UNITS: dict[str, Decimal] = {
    f"{prefix}B": Decimal(factor) for prefix, factor in (_DECIMAL | _BINARY).items()
}
BYTE_RATE_UNITS = {f"{unit}/s": factor for unit, factor in BYTE_UNITS.items()}
FLOP_UNITS = {
    f"{prefix}{name}": Decimal(factor)
    for prefix, factor in _DECIMAL.items()
    for name in ("FLOPS", "FLOP/s", "OPS")
}
SECOND_UNITS = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "min": Decimal(60),
    "h": Decimal(3600),
}
MILLISECOND_UNITS = {unit: factor * 1000 for unit, factor in SECOND_UNITS.items()}
RATE_UNITS = {"/s": Decimal(1), "/min": 1 / Decimal(60), "/h": 1 / Decimal(3600)}
USD_PER_HOUR_UNITS = {"/h": Decimal(1), "/hr": Decimal(1), "/hour": Decimal(1)}
# vLLM's own reading of --max-model-len 32k and 32K: decimal and binary.
COUNT_UNITS = {
    "k": Decimal(10**3),
    "K": Decimal(2**10),
    "m": Decimal(10**6),
    "M": Decimal(2**20),
    "g": Decimal(10**9),
    "G": Decimal(2**30),
}


def parse_quantity(value: object, units: Mapping[str, Decimal], allowed: str) -> float:
    """Return ``value``, a number or a text such as ``3.35TB/s``, in the base unit.

    Raises:
        ValueError: with ``allowed`` as its text, if it is neither or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(allowed)
    if isinstance(value, str):
        found = _NUMBER_AND_UNIT.fullmatch(value.strip())
        unit = (found.group(2) or "") if found else None
        if found is None or (unit and unit not in units):
            raise ValueError(allowed)
        try:
            number = Decimal(found.group(1)) * (units[unit] if unit else 1)
        except DecimalException:  # 1e4000000 is more than decimal numbers hold
            raise ValueError(allowed) from None
        return _finite(number, allowed)
    return _finite(value, allowed)


def _finite(value: Decimal | float, allowed: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(allowed) from None
    if not math.isfinite(number):
        raise ValueError(allowed)
    return number


def parse_count(value: object, allowed: str) -> int:
    """Return ``value``, an integer or a text such as ``32k`` (32000) or ``32K`` (32768)."""
    if isinstance(value, str):
        number = parse_quantity(value, COUNT_UNITS, allowed)
        if not number.is_integer():
            raise ValueError(allowed)
        return int(number)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(allowed)
    return value


def _at_least(
    parse: Callable[[object], float],
    lowest: float,
    exclusive: bool,
    allowed: str,
    most: float = math.inf,
) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        number = parse(value)
        if number < lowest or (exclusive and number == lowest) or number > most:
            raise ValueError(allowed)
        return number

    return check


def _quantity(units: Mapping[str, Decimal], allowed: str, *, zero: bool = False) -> BeforeValidator:
    return BeforeValidator(
        _at_least(lambda value: parse_quantity(value, units, allowed), 0, not zero, allowed)
    )


def _count(lowest: int, allowed: str) -> BeforeValidator:
    return BeforeValidator(
        _at_least(lambda value: parse_count(value, allowed), lowest, False, allowed)
    )


def quantity_schema(
    units: Mapping[str, Any],
    *,
    kind: str = "number",
    lowest: float | None = None,
    above: float | None = None,
) -> dict[str, Any]:
    """Return the JSON Schema of a number, or a text of a number and one of ``units``.

    ``kind`` is number or integer; the number is at least ``lowest`` or greater than ``above``.
    """
    bounds: dict[str, Any] = {} if lowest is None else {"minimum": lowest}
    bounds |= {} if above is None else {"exclusiveMinimum": above}
    number = {"type": kind, **bounds}
    if not units:
        return number
    names = "|".join(re.escape(unit) for unit in sorted(units))
    pattern = rf"^\s*\+?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*({names})?\s*$"
    return {"anyOf": [number, {"type": "string", "pattern": pattern}]}


def _written(units: Mapping[str, Any], kind: str = "number", **bounds: float) -> WithJsonSchema:
    """Return what tells an editor how a quantity may be written."""
    return WithJsonSchema(quantity_schema(units, kind=kind, **bounds))


def _whole_bytes(value: float) -> int:
    return round(value)


_BYTES_OR_NONE = "a size of at least 0, in bytes or such as 80GB or 80GiB"

BytesOrZero = Annotated[
    int,
    BeforeValidator(_whole_bytes),
    _quantity(BYTE_UNITS, _BYTES_OR_NONE, zero=True),
    _written(BYTE_UNITS, lowest=0),
]
Seconds = Annotated[
    float,
    _quantity(SECOND_UNITS, "a duration above 0, in seconds or such as 250ms or 5min"),
    _written(SECOND_UNITS, above=0),
]
# A thousand requests in a nanosecond; the clock cannot tell more apart.
MOST_PER_S = 1e12
RATE_ALLOWED = f"a number above 0, in requests per second (10 or 600/min), at most {MOST_PER_S:g}"
parse_rate_per_s = _at_least(
    lambda value: parse_quantity(value, RATE_UNITS, RATE_ALLOWED),
    0,
    exclusive=True,
    allowed=RATE_ALLOWED,
    most=MOST_PER_S,
)
RatePerS = Annotated[float, BeforeValidator(parse_rate_per_s), _written(RATE_UNITS, above=0)]
PositiveNumber = Annotated[float, _quantity({}, "a number above 0"), _written({}, above=0)]
_COUNTED = _written(COUNT_UNITS, "integer", lowest=1)
PositiveCount = Annotated[int, _count(1, "an integer of at least 1"), _COUNTED]
_TOKENS = "an integer of at least {}, in tokens (32k is 32000, 32K is 32768)"
TokenCount = Annotated[int, _count(1, _TOKENS.format(1)), _COUNTED]
TokenCountOrZero = Annotated[
    int, _count(0, _TOKENS.format(0)), _written(COUNT_UNITS, "integer", lowest=0)
]


def parse_usd_per_hour(value: object) -> float:
    """Return a price such as ``$2.49/h`` or ``2.49`` in US dollars per hour."""
    text = value.strip().removeprefix("$") if isinstance(value, str) else value
    allowed = "a price of at least 0, in US$ per hour, such as $2.49/h"
    price = parse_quantity(text, USD_PER_HOUR_UNITS, allowed)
    if price < 0:
        raise ValueError(allowed)
    return price


UsdPerHour = Annotated[float, BeforeValidator(parse_usd_per_hour)]
