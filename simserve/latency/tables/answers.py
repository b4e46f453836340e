"""Where a number that a latency model gives comes from: measured, between, beyond, or derived."""

from __future__ import annotations

from typing import NamedTuple

EXACT = "exact"
INTERP = "interp"
EXTRAP = "extrap"
TRANSFER = "transfer"
ROOFLINE = "roofline"
HOST = "host"

SOURCES = (EXACT, INTERP, EXTRAP, TRANSFER, ROOFLINE)
"""The sources of a kernel's time: on a row, between rows, beyond them, from a table of another
shape, from no table at all. Host time (``HOST``) is none of them."""


class Answer(NamedTuple):
    """The seconds that an operator takes, and their source."""

    seconds: float
    source: str


class Part(NamedTuple):
    """One operator's share of a step."""

    operator: str
    seconds: float
    source: str


def worse(one: str, other: str) -> str:
    """Return the less trustworthy of two sources."""
    return max(one, other, key=SOURCES.index)
