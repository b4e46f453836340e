"""Values with units and sources as a table of 80 columns; sources stand once, below it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simserve.cli.check_values import Value

_WIDTH, _KEY_WIDTH, _VALUE_WIDTH, _UNIT_WIDTH = 80, 44, 18, 11
_MOST_ITEMS = 4
_SCALED = ("bytes/s", "FLOP/s")
_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"))
_US_PER_S, _MS_PER_S = 1e6, 1e3
# Above it, the float of an integer may be another integer.
_EXACT_FLOAT = 2.0**53


def table_text(values: Sequence[Value]) -> str:
    """Return the table, and under it the sources by their numbers."""
    from rich.console import Console
    from rich.table import Table

    numbers: dict[str, int] = {}
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("key", overflow="fold", max_width=_KEY_WIDTH)
    table.add_column("value", justify="right", overflow="fold", max_width=_VALUE_WIDTH)
    table.add_column("unit", overflow="fold", max_width=_UNIT_WIDTH)
    table.add_column("from", justify="right")
    for one in values:
        number = numbers.setdefault(one.source, len(numbers) + 1) if one.source else None
        value, unit = shown(one.value, one.unit)
        table.add_row(one.key, value, unit, "" if number is None else f"[{number}]")
    sources = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    sources.add_column(justify="right")
    sources.add_column(overflow="fold")
    for source, number in numbers.items():
        sources.add_row(f"[{number}]", source)
    out = io.StringIO()
    console = Console(
        file=out, width=_WIDTH, highlight=False, markup=False, emoji=False, color_system=None
    )
    console.print(table)
    console.print()
    console.print(sources)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def shown(value: Any, unit: str) -> tuple[str, str]:
    """Return a value and its unit as people read them: 3.35 TB/s, 25 µs, true, 27,857."""
    if isinstance(value, bool) or value is None:
        return ("none" if value is None else str(value).lower()), unit
    if isinstance(value, int | float):
        return _number(value, unit)
    if isinstance(value, list):
        items = [shown(one, "")[0] for one in value[:_MOST_ITEMS]]
        rest = f", … ({len(value)})" if len(value) > _MOST_ITEMS else ""
        return ", ".join(items) + rest, unit
    return str(value), unit


def _number(value: float, unit: str) -> tuple[str, str]:
    if unit in _SCALED:
        for factor, prefix in _PREFIXES:
            if value >= factor:
                return f"{value / factor:.6g}", f"{prefix}{unit.replace('bytes', 'B')}"
    if unit == "s" and 0 < value < 1:
        small = value * _MS_PER_S < 1
        scale, name = (_US_PER_S, "µs") if small else (_MS_PER_S, "ms")
        return f"{value * scale:.6g}", name
    if isinstance(value, int) or (value.is_integer() and abs(value) < _EXACT_FLOAT):
        return f"{value:,.0f}" if isinstance(value, float) else f"{value:,}", unit
    return f"{value:.6g}", unit
