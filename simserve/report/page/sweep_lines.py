"""Which points of a sweep belong on one line, and what stands on its axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simserve.errors import InputError
from simserve.planning.sweep import DOES_NOT_FIT
from simserve.planning.sweep_files import Row
from simserve.report.charts.load import Line, Point

_VERDICT = "verdict"
_NO_OPERATING_POINT = "overloaded"
# Keys that are a load; one of them stands on the axis if it is varied.
_LOADS = ("rate_per_s", "users", "num_requests")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepView:
    """A sweep's rows, sorted out: ``varied`` keys, the one on the ``axis``, and the lines.

    ``axis_words`` are the values of the axis if these are no numbers, else empty.
    """

    rows: tuple[Row, ...]
    varied: tuple[str, ...]
    axis: str
    axis_words: tuple[str, ...]
    groups: Mapping[str, tuple[Row, ...]]

    @property
    def fitting(self) -> list[Row]:
        """The rows of points that were run."""
        return [row for row in self.rows if row[_VERDICT] != DOES_NOT_FIT]

    def axis_value(self, row: Row) -> float:
        """Return where a row stands on the axis."""
        value = row[self.axis]
        return float(self.axis_words.index(str(value)) if self.axis_words else value)

    def lines(self, x: str | None, y: str, factor: float = 1.0) -> tuple[Line, ...]:
        """Return column ``y`` over column ``x`` (None: over the axis), a line per group."""
        found = []
        for name, rows in self.groups.items():
            points = [
                Point(
                    x=self.axis_value(row) if x is None else float(row[x]),
                    y=float(row[y]) * factor,
                    sound=is_sound(row),
                    note=f"{self.describe(row)}: {row[_VERDICT]}, {float(row[y]) * factor:,.4g}",
                )
                for row in rows
                if y in row and (x is None or x in row)
            ]
            if points:
                found.append(Line(name=name, points=tuple(points)))
        return tuple(found)

    def describe(self, row: Row) -> str:
        """Return the varied settings of a row."""
        return ", ".join(f"{short(key)} {row[key]}" for key in self.varied)


def view_of(rows: Sequence[Row], where: str) -> SweepView:
    """Return the rows of a sweep's table, sorted out.

    Raises:
        InputError: if they are no rows of a sweep.
    """
    if not rows or any(_VERDICT not in row for row in rows):
        raise InputError(where, None, "no column 'verdict'", "a table that 'sweep --out' wrote")
    names = list(rows[0])
    varied = tuple(names[: names.index(_VERDICT)])
    if not varied or any(key not in row for row in rows for key in varied):
        raise InputError(where, None, "no varied key", "a table that 'sweep --out' wrote")
    axis = _axis(rows, varied)
    words = () if _is_number(rows, axis) else tuple(dict.fromkeys(str(row[axis]) for row in rows))
    others = [key for key in varied if key != axis]
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row[_VERDICT] != DOES_NOT_FIT:
            name = ", ".join(f"{short(key)} {row[key]}" for key in others)
            groups.setdefault(name, []).append(row)
    if not words:
        for group in groups.values():
            group.sort(key=lambda row: float(row[axis]))
    return SweepView(
        rows=tuple(rows),
        varied=varied,
        axis=axis,
        axis_words=words,
        groups={name: tuple(group) for name, group in groups.items()},
    )


def is_sound(row: Row) -> bool:
    """Return whether a row is an operating point."""
    return row[_VERDICT] not in (_NO_OPERATING_POINT, DOES_NOT_FIT)


def short(key: str) -> str:
    """Return the last part of a dotted key."""
    return key.rpartition(".")[2]


def _axis(rows: Sequence[Row], varied: Sequence[str]) -> str:
    """Return the key for the axis: a load, else the number with most values, else the first."""
    for key in varied:
        if short(key) in _LOADS and _is_number(rows, key):
            return key
    numbers = [key for key in varied if _is_number(rows, key) and short(key) != "seed"]
    if not numbers:
        return varied[0]
    return max(numbers, key=lambda key: len({row[key] for row in rows}))


def _is_number(rows: Sequence[Row], key: str) -> bool:
    return all(_number(row[key]) for row in rows)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
