"""Service-level objectives: limits on latency, per request or on a percentile.

``ttft:500`` is what vLLM's ``--goodput`` means: a request is good if its own TTFT is at most
500 ms. ``ttft_p95:500`` asks that the 95th percentile over all requests is. Never a mean.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simserve.errors import InputError, nearest_name
from simserve.inputs.units import MILLISECOND_UNITS, parse_quantity, quantity_schema

PER_REQUEST_METRICS = ("ttft", "tpot", "e2el")
PERCENTILE_METRICS = (*PER_REQUEST_METRICS, "itl")

_NAME = re.compile(r"(?P<metric>[a-z0-9]+)(?:_p(?P<percentile>[0-9]+(?:\.[0-9]+)?))?")
_ALLOWED_NAMES = (
    "ttft, tpot or e2el (each request), or ttft_pNN, tpot_pNN, e2el_pNN, itl_pNN (a percentile)"
)
_ALLOWED_LIMIT = "a limit above 0, in milliseconds (500) or with a unit (0.5s)"


@dataclass(frozen=True, slots=True)
class Objective:
    """``metric`` at most ``limit_ms``: for a request, or for ``percentile`` of all of them."""

    metric: str
    percentile: float | None
    limit_ms: float

    @property
    def name(self) -> str:
        """The objective as it is written: ``ttft`` or ``ttft_p95``."""
        return self.metric if self.percentile is None else f"{self.metric}_p{self.percentile:g}"


@dataclass(frozen=True, slots=True)
class Slo:
    """What a deployment promises: every objective holds."""

    objectives: tuple[Objective, ...]

    def __str__(self) -> str:
        return " ".join(f"{one.name}:{one.limit_ms:g}" for one in self.objectives)

    def limits_ms(self) -> dict[str, float]:
        """Return the limits by name, which ``parse_slo`` reads too."""
        return {one.name: one.limit_ms for one in self.objectives}


@dataclass(frozen=True, slots=True)
class ClassSlo:
    """What a class of requests is promised; None: what everyone else is."""

    name: str
    slo: Slo | None


def parse_slo(value: object, where: str = "--slo", which: str | None = None) -> Slo:
    """Return the objectives in a text, a list of texts or a mapping of name to limit.

    Raises:
        InputError: for an unknown or repeated name, or a limit that is not above 0.
    """
    objectives: list[Objective] = []
    for name, limit in _pairs(value, where, which):
        objective = _objective(name, limit, where, which)
        if any(objective.name == one.name for one in objectives):
            raise InputError(where, which, f"{name} twice", "every objective once")
        objectives.append(objective)
    if not objectives:
        raise InputError(where, which, "no objective", "such as 'ttft:500 tpot:50'")
    return Slo(tuple(objectives))


def _pairs(value: object, where: str, which: str | None) -> list[tuple[str, object]]:
    if isinstance(value, Mapping):
        return [(str(name), limit) for name, limit in value.items()]
    texts = value if isinstance(value, (list, tuple)) else [value]
    pairs: list[tuple[str, object]] = []
    for text in texts:
        if isinstance(text, Mapping):
            pairs.extend(_pairs(text, where, which))
            continue
        if not isinstance(text, str):
            got = "nothing" if text is None else text
            raise InputError(where, which, got, "text such as 'ttft:500 tpot_p95:50'")
        for part in re.split(r"[\s,]+", text.strip()):
            name, colon, limit = part.partition(":")
            if part and not colon:
                raise InputError(where, which, part, "name:limit, such as ttft:500")
            if part:
                pairs.append((name, limit))
    return pairs


def _objective(name: str, limit: object, where: str, which: str | None) -> Objective:
    found = _NAME.fullmatch(name.lower())
    metric = found["metric"] if found else None
    if found is None or metric not in PERCENTILE_METRICS:
        near = nearest_name(name.lower(), PERCENTILE_METRICS)
        hint = f"; did you mean {near}?" if near else ""
        raise InputError(where, which, name, _ALLOWED_NAMES + hint)
    percentile = float(found["percentile"]) if found["percentile"] else None
    if percentile is None and metric not in PER_REQUEST_METRICS:
        raise InputError(where, which, name, f"a percentile of it, such as {metric}_p99")
    if percentile is not None and not 0 < percentile < 100:
        raise InputError(where, which, name, "a percentile above 0 and below 100")
    return Objective(metric, percentile, _limit_ms(limit, f"{name}:{limit}", where, which))


def _limit_ms(limit: object, got: str, where: str, which: str | None) -> float:
    try:
        # A bare number is in milliseconds: the units below convert to them.
        number = parse_quantity(limit, MILLISECOND_UNITS, _ALLOWED_LIMIT)
    except ValueError:
        number = 0.0
    if number <= 0:
        raise InputError(where, which, got, _ALLOWED_LIMIT)
    return number


def slo_schema() -> dict[str, Any]:
    """Return the JSON Schema of what ``parse_slo`` reads."""
    percentile = r"_p[0-9]+(\.[0-9]+)?"
    name = f"^(({'|'.join(PER_REQUEST_METRICS)})|({'|'.join(PERCENTILE_METRICS)}){percentile})$"
    limit = quantity_schema(MILLISECOND_UNITS, above=0)
    limit["description"] = "a limit in ms, or with a unit such as 0.5s"
    mapping = {
        "type": "object",
        "patternProperties": {name: limit},
        "additionalProperties": False,
        "minProperties": 1,
    }
    words = {"type": "string", "pattern": ":"}
    return {
        "anyOf": [words, {"type": "array", "items": {"anyOf": [words, mapping]}}, mapping],
        "description": "objectives in ms: ttft, tpot, e2el per request; ttft_p95 etc. per run",
        "examples": ["ttft:500 tpot:50", {"ttft_p95": 500}],
    }
