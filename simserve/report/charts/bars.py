"""Shares of a whole as bars: where time or money goes, and what a number rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from simserve.report.charts import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROW_IN = 0.34
_LEGEND_COLUMNS = 3


class Part(NamedTuple):
    """A bar, and what is written behind it."""

    name: str
    value: float
    words: str


def parts_bars(parts: Sequence[Part], x_label: str, title: str = "") -> Figure:
    """Return one bar per part, largest wherever it stands, with its number behind it."""
    with style.drawing():
        figure, axes = style.axes_of(8.4, _ROW_IN * len(parts) + 1.0)
        most = max((part.value for part in parts), default=0.0) or 1.0
        for at, part in enumerate(parts):
            [bar] = axes.barh([at], [part.value], height=0.62, color=style.ACCENT)
            style.tip(bar, f"{part.name}: {part.words}")
            axes.annotate(
                part.words,
                (part.value, at),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=9.5,
            )
        axes.set_yticks(range(len(parts)), [part.name for part in parts])
        axes.tick_params(axis="y", labelcolor=style.INK)
        axes.set_ylim(len(parts) - 0.4, -0.6)
        axes.set_xlim(0, most * 1.25)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(x_label)
        axes.set_title(title)
        style.plain_ticks(axes.xaxis)
    return figure


class Stack(NamedTuple):
    """One bar made of parts, by name."""

    name: str
    parts: Mapping[str, float]


Look = tuple[str, float]
"""Colour and opacity."""


def stacked_bars(stacks: Sequence[Stack], looks: Mapping[str, Look], x_label: str) -> Figure:
    """Return stacks on one scale; ``looks`` are of all parts there may be, in their order."""
    with style.drawing():
        figure, axes = style.axes_of(8.4, 0.5 * len(stacks) + 1.5)
        used = [name for name in looks if any(stack.parts.get(name) for stack in stacks)]
        for name in used:
            colour, alpha = looks[name]
            for at, stack in enumerate(stacks):
                value = stack.parts.get(name, 0.0)
                before = sum(stack.parts.get(one, 0.0) for one in used[: used.index(name)])
                [bar] = axes.barh(
                    [at],
                    [value],
                    left=before,
                    height=0.6,
                    color=colour,
                    alpha=alpha,
                    edgecolor=style.PAPER,
                    linewidth=0.8,
                    label=name if at == 0 else None,
                )
                whole = sum(stack.parts.values()) or 1.0
                words = f"{style.plain_number(value)} ({value / whole:.0%})"
                style.tip(bar, f"{stack.name}, {name}: {words}")
        axes.set_yticks(range(len(stacks)), [stack.name for stack in stacks])
        axes.tick_params(axis="y", labelcolor=style.INK)
        axes.set_ylim(len(stacks) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(x_label)
        style.plain_ticks(axes.xaxis)
        handles, labels = axes.get_legend_handles_labels()
        columns = min(len(used), _LEGEND_COLUMNS)
        figure.legend(handles, labels, loc="outside upper left", ncols=columns)
    return figure


class Swing(NamedTuple):
    """How an answer moves when one assumption goes from low to high."""

    name: str
    low: float
    high: float
    words: str


def tornado(swings: Sequence[Swing], now: float, x_label: str, title: str = "") -> Figure:
    """Return a bar per assumption around ``now``, widest first."""
    swings = sorted(swings, key=lambda one: -abs(one.high - one.low))
    with style.drawing():
        figure, axes = style.axes_of(8.4, _ROW_IN * len(swings) + 1.0)
        for at, one in enumerate(swings):
            left, right = sorted((one.low, one.high))
            [bar] = axes.barh([at], [right - left], left=left, height=0.62, color=style.ACCENT)
            style.tip(bar, f"{one.name}: {one.words}")
        axes.use_sticky_edges = False  # a bar that begins on the edge of the picture has no end
        axes.axvline(now, color=style.INK, linewidth=1.2)
        axes.set_yticks(range(len(swings)), [one.name for one in swings])
        axes.tick_params(axis="y", labelcolor=style.INK)
        axes.set_ylim(len(swings) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(x_label)
        axes.set_title(title)
        style.plain_ticks(axes.xaxis)
    return figure
