"""What a deployment gives at different loads: latency, goodput, and speed per user.

A point is one run. Points of one line differ in the load (or in whatever stands on the axis) and
are joined in its order; a run without an operating point is hollow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simserve.report.charts import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One run; ``sound`` says that it is an operating point, ``note`` is its tooltip."""

    x: float
    y: float
    sound: bool = True
    note: str = ""
    low: float | None = None  # interval of y
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Points in the order in which they are joined, or a cloud of them."""

    name: str
    points: tuple[Point, ...]
    joined: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Lines over one pair of axes; ``limit`` is what an SLO asks of y."""

    title: str
    y_label: str
    lines: tuple[Line, ...]
    limit: float | None = None
    limit_name: str = ""
    log: bool = False


_HEADROOM = 1.08  # of an axis from 0, so that the outermost point is whole
MOST_LINES = len(style.SERIES)
"""More lines than this are not told apart; the others are left out, and the page says so."""


def curves(panels: Sequence[Panel], x_label: str, x_is_text: Sequence[str] = ()) -> Figure:
    """Return panels side by side, with one legend; ``x_is_text`` names x = 0, 1 and so on."""
    rows = (len(panels) + 1) // 2
    columns = min(len(panels), 2)
    with style.drawing():
        figure, axes = style.grid_of(rows, columns, 8.4, 3.3 * rows)
        for panel, one in zip(axes.flat, panels, strict=False):
            _draw(panel, one)
            panel.set_xlabel(x_label)
            if x_is_text:
                panel.set_xticks(range(len(x_is_text)), list(x_is_text))
            else:
                style.plain_ticks(panel.xaxis)
        for panel in axes.flat[len(panels) :]:
            panel.set_axis_off()
        names = [line.name for line in panels[0].lines[:MOST_LINES] if line.name]
        if len(names) > 1:
            handles = axes[0, 0].get_lines()[: len(names)]
            figure.legend(handles, names, loc="outside upper left", ncols=3)
    return figure


def _draw(axes: Axes, panel: Panel) -> None:
    for at, line in enumerate(panel.lines[:MOST_LINES]):
        colour, marker = style.SERIES[at], style.MARKERS[at]
        axes.plot(
            [one.x for one in line.points],
            [one.y for one in line.points],
            color=colour,
            marker=marker,
            markersize=0 if line.joined else 5.5,
            linestyle="-" if line.joined else "",
        )
    for at, line in enumerate(panel.lines[:MOST_LINES]):
        for one in line.points:
            _dot(axes, one, style.SERIES[at], style.MARKERS[at])
    if panel.limit is not None:
        axes.axhline(panel.limit, color=style.INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            panel.limit_name,
            (0, panel.limit),
            xycoords=("axes fraction", "data"),
            xytext=(4, 3),
            textcoords="offset points",
            fontsize=9,
            color=style.INK,
        )
    values = [one.y for line in panel.lines for one in line.points]
    if panel.log and values and min(values) > 0:
        axes.set_yscale("log")
        style.log_ticks(axes.yaxis)
    else:
        axes.set_ylim(bottom=0)
        style.plain_ticks(axes.yaxis)
    axes.set_title(panel.title)
    axes.set_ylabel(panel.y_label)


def _dot(axes: Axes, one: Point, colour: str, marker: str) -> None:
    if one.low is not None and one.high is not None:
        axes.plot([one.x, one.x], [one.low, one.high], color=colour, linewidth=1.2)
    (dot,) = axes.plot(
        [one.x],
        [one.y],
        marker,
        markersize=5.5,
        color=colour,
        markerfacecolor=colour if one.sound else style.PAPER,
        markeredgewidth=1.3,
    )
    if one.note:
        style.tip(dot, one.note)


def pareto(lines: Sequence[Line], x_label: str, y_label: str, title: str) -> Figure:
    """Return all points, and a line through those that no other beats in both.

    More is better on both axes. Hollow points do not take part in the line.
    """
    with style.drawing():
        figure, axes = style.axes_of(8.4, 3.8)
        sound = [one for line in lines for one in line.points if one.sound]
        best = frontier(sound)
        if best:
            axes.step(
                [one.x for one in best],
                [one.y for one in best],
                where="pre",
                color=style.MUTED,
                linewidth=1.2,
                linestyle=(0, (4, 3)),
                label="no point is better in both",
            )
        for at, line in enumerate(lines[:MOST_LINES]):
            colour, marker = style.SERIES[at], style.MARKERS[at]
            if line.name:
                axes.plot([], [], marker, color=colour, label=line.name)
            for one in line.points:
                _dot(axes, one, colour, marker)
        every = [one for line in lines for one in line.points]
        axes.set_xlim(0, _HEADROOM * max((one.x for one in every), default=1.0))
        axes.set_ylim(0, _HEADROOM * max((one.y for one in every), default=1.0))
        style.plain_ticks(axes.xaxis)
        style.plain_ticks(axes.yaxis)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.set_title(title)
        if best or len(lines) > 1:
            axes.legend(loc="best")
    return figure


def frontier(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other equals or beats in both, from left to right."""
    best: list[Point] = []
    for one in sorted(points, key=lambda one: (-one.x, -one.y)):
        if not best or one.y > best[-1].y:
            best.append(one)
    return best[::-1]
