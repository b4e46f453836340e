"""What a sweep runs: the product of the values of its axes, linked keys moving together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from simserve.errors import InputError, nearest_name

Setting = int | float | str
Point = dict[str, Setting]
"""One combination: the varied keys and their values, in the order they were asked for."""

_OPENING, _CLOSING = "([{", ")]}"


@dataclass(frozen=True, slots=True)
class Axis:
    """A key and the values it takes."""

    key: str
    values: tuple[Setting, ...]


def parse_axis(text: str) -> Axis:
    """Return the axis of ``key=a,b,c``. A comma inside brackets does not separate."""
    key, equals, values = text.partition("=")
    key = key.strip()
    if not key or not equals:
        raise InputError("--vary", None, text, "key=value,value,...")
    found = tuple(typed(part.strip()) for part in _split(values))
    if "" in found:
        raise InputError("--vary", None, text, "values separated by single commas")
    if len(set(map(str, found))) < len(found):
        raise InputError("--vary", None, text, "every value once")
    return Axis(key, found)


def parse_link(text: str) -> tuple[str, ...]:
    """Return the keys of ``key1=key2`` (or more, each with its own ``=``)."""
    keys = tuple(part.strip() for part in text.split("="))
    if len(keys) < 2 or not all(keys):
        raise InputError("--link", None, text, "key1=key2")
    return keys


def typed(text: str) -> Setting:
    """Return ``text`` as an int or a float if it is the usual spelling of one."""
    for kind in (int, float):
        try:
            value: int | float = kind(text)
        except ValueError:
            continue
        if str(value) == text and math.isfinite(value):
            return value
    return text


def grid(axes: Sequence[Axis], links: Iterable[Sequence[str]] = ()) -> list[Point]:
    """Return every point of the grid; the last axis varies fastest.

    Linked keys move together: their axes are walked side by side, and a linked key that has
    no axis of its own takes the values of the one it is linked to.
    """
    by_key: dict[str, Axis] = {}
    for axis in axes:
        if axis.key in by_key:
            raise InputError("--vary", None, axis.key, "each key once")
        by_key[axis.key] = axis
    groups = _groups(by_key, links)
    columns = [[_side_by_side(group, row) for row in _rows(group)] for group in groups]
    return [
        {key: value for part in parts for key, value in part.items()}
        for parts in itertools.product(*columns)
    ]


def settings_of(point: Mapping[str, Setting]) -> list[str]:
    """Return the point as ``key=value`` overrides."""
    return [f"{key}={value}" for key, value in point.items()]


def _groups(by_key: Mapping[str, Axis], links: Iterable[Sequence[str]]) -> list[list[Axis]]:
    """Return the axes in groups that move together, in the order of their first axis."""
    groups = [[axis] for axis in by_key.values()]
    for keys in links:
        linked = [g for g in groups if any(axis.key in keys for axis in g)]
        if not linked:
            near = nearest_name(keys[0], by_key)
            hint = f"; did you mean {near}?" if near else ""
            raise InputError("--link", None, "=".join(keys), f"a key that is varied{hint}")
        merged = [axis for g in linked for axis in g]
        leader = merged[0]
        known = {axis.key for axis in merged}
        merged += [Axis(key, leader.values) for key in keys if key not in known]
        for axis in merged[1:]:
            if len(axis.values) != len(leader.values):
                raise InputError(
                    "--link",
                    f"{leader.key}={axis.key}",
                    f"{len(leader.values)} and {len(axis.values)} values",
                    "as many of one as of the other",
                )
        at = groups.index(linked[0])
        groups = [g for g in groups if g not in linked]
        groups.insert(at, merged)
    return groups


def _rows(group: Sequence[Axis]) -> Iterable[tuple[Setting, ...]]:
    return zip(*(axis.values for axis in group), strict=True)


def _side_by_side(group: Sequence[Axis], row: tuple[Setting, ...]) -> Point:
    return {axis.key: value for axis, value in zip(group, row, strict=True)}


def _split(text: str) -> list[str]:
    """Split at the commas that stand outside of brackets."""
    parts, depth, current = [], 0, ""
    for character in text:
        depth += (character in _OPENING) - (character in _CLOSING)
        if character == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += character
    return [*parts, current]
