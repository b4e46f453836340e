"""A number that decides an answer, with where it comes from.

``kind`` says how far to trust it; every data file states it together with a source and a
date, and the readers here refuse a number without them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from simserve.errors import InputError, known_names, unknown_name

KINDS = ("datasheet", "measured", "imported", "fitted", "assumed")


@dataclass(frozen=True, slots=True)
class Sourced:
    """A value in its base unit and its provenance; ``date`` is ISO (YYYY-MM-DD)."""

    value: float
    kind: str
    source: str
    date: str

    def described(self) -> str:
        """Return the provenance as one phrase."""
        return f"{self.kind}: {self.source} ({self.date})"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the numbers of one data file come from, when all come from one place."""

    kind: str
    source: str
    date: str


def read_provenance(entry: Mapping[str, Any], where: str, which: str) -> Provenance:
    """Return the ``kind``, ``source`` and ``date`` of ``entry``; refuse one that lacks any."""
    prefix = f"{which}." if which else ""
    kind = _text(entry, "kind", where, prefix, "one of " + ", ".join(KINDS))
    if kind not in KINDS:
        raise unknown_name(where, f"{prefix}kind", kind, KINDS)
    source = _text(entry, "source", where, prefix, "where the number comes from, as text")
    date = _text(entry, "date", where, prefix, "a date such as 2026-11-20")
    try:
        dt.date.fromisoformat(date)
    except ValueError:
        raise InputError(where, f"{prefix}date", date, "a date such as 2026-11-20") from None
    return Provenance(kind, source, date)


def read_sourced(
    entry: object, where: str, which: str, parse: Callable[[object], float]
) -> Sourced:
    """Return the sourced number that the mapping ``entry`` holds under key ``which``.

    ``parse`` turns the written value into base units and raises ValueError, whose text says
    what is allowed, for one that cannot be used.
    """
    if not isinstance(entry, dict):
        raise InputError(where, which, entry, "a mapping with value, kind, source and date")
    refuse_unknown_keys(entry, ("value", "kind", "source", "date"), where, which)
    provenance = read_provenance(entry, where, which)
    if entry.get("value") is None:
        raise InputError(where, f"{which}.value", "nothing", "a number with its unit")
    try:
        value = parse(entry["value"])
    except ValueError as error:
        raise InputError(where, f"{which}.value", entry["value"], str(error)) from None
    return Sourced(value, provenance.kind, provenance.source, provenance.date)


def refuse_unknown_keys(
    entry: Mapping[str, Any], known: tuple[str, ...], where: str, which: str = ""
) -> None:
    """Raise InputError for the first key of ``entry`` that is not among ``known``."""
    for key in entry:
        if key not in known:
            dotted = f"{which}.{key}" if which else key
            raise InputError(where, dotted, "an unknown key", known_names(key, known))


def _text(entry: Mapping[str, Any], key: str, where: str, prefix: str, allowed: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise InputError(where, f"{prefix}{key}", "nothing" if value is None else value, allowed)
    return value
