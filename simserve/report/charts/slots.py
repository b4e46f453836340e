"""Timing diagrams: what each request, or each slot of the batch, is doing over time.

A slot is a place in the batch. Requests take the lowest free one, so that the picture reads like
the textbook's: the white between the bars of a slot is time in which it stood empty.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from simserve.records.clock import PS_PER_S
from simserve.report.charts import style
from simserve.results.phases import DECODE, PAUSED, PHASES, PREEMPTED, PREFILL, QUEUE, Phase

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS: Mapping[str, tuple[str, float, str]] = {
    QUEUE: (style.MUTED, 0.35, ""),
    PREFILL: (style.SERIES[1], 1.0, ""),
    DECODE: (style.ACCENT, 1.0, ""),
    PREEMPTED: (style.BAD, 0.55, "////"),
    PAUSED: (style.MUTED, 0.55, "...."),
}
"""Colour, opacity and hatch of every phase."""
_COMPUTING = (PREFILL, DECODE)
_ROW_IN = 0.16
_LABELLED_ROWS = 40


class Bars(NamedTuple):
    """A row of the diagram: its name, and the phases in it, with the request they belong to."""

    name: str
    phases: Sequence[tuple[str, Phase]]


def rows_by_request(lives: Mapping[str, Sequence[Phase]]) -> list[Bars]:
    """Return a row per request, in the order given; ``lives`` are phases by request."""
    return [Bars(name, [(name, phase) for phase in phases]) for name, phases in lives.items()]


def rows_by_slot(lives: Mapping[str, Sequence[Phase]]) -> list[Bars]:
    """Return a row per slot of the batch: from first scheduled to done, without the queue."""
    stays = []
    for name, phases in lives.items():
        inside = [phase for phase in phases if phase.name != QUEUE]
        if inside:
            stays.append((inside[0].start_ps, inside[-1].end_ps, name, inside))
    rows: list[list[tuple[str, Phase]]] = []
    free: list[int] = []
    busy: list[tuple[int, int]] = []
    for start_ps, end_ps, name, inside in sorted(stays, key=lambda one: one[:3]):
        while busy and busy[0][0] <= start_ps:
            heapq.heappush(free, heapq.heappop(busy)[1])
        slot = heapq.heappop(free) if free else len(rows)
        if slot == len(rows):
            rows.append([])
        rows[slot] += [(name, phase) for phase in inside]
        heapq.heappush(busy, (end_ps, slot))
    return [Bars(f"slot {at}", phases) for at, phases in enumerate(rows)]


def utilisation_frac(rows: Sequence[Bars], slots: int | None = None) -> float | None:
    """Return which share of the slots' time is prefill or decode, from first to last bar.

    ``slots`` is how many there are, if more than the rows; None without any bar.
    """
    phases = [phase for row in rows for _, phase in row.phases if phase.name != QUEUE]
    if not phases:
        return None
    span_ps = max(one.end_ps for one in phases) - min(one.start_ps for one in phases)
    busy_ps = sum(one.end_ps - one.start_ps for one in phases if one.name in _COMPUTING)
    return busy_ps / (span_ps * max(slots or 0, len(rows)))


def timing_diagram(rows: Sequence[Bars], title: str = "") -> Figure:
    """Return the diagram, one bar per phase."""
    with style.drawing():
        figure, axes = style.axes_of(8.4, max(_ROW_IN * len(rows) + 1.1, 2.0))
        used: dict[str, None] = {}
        for at, row in enumerate(rows):
            for request, phase in row.phases:
                used[phase.name] = None
                _bar(axes, at, request, phase)
        labels = [row.name for row in rows] if len(rows) <= _LABELLED_ROWS else []
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("time, s")
        axes.set_title(title)
        axes.autoscale_view(scaley=False)
        starts_ps = [phase.start_ps for row in rows for _, phase in row.phases]
        axes.set_xlim(left=min(starts_ps, default=0) / PS_PER_S)
        style.plain_ticks(axes.xaxis)
        _legend(figure, [name for name in PHASES if name in used])
    return figure


def _bar(axes: Axes, at: int, request: str, phase: Phase) -> None:
    colour, alpha, hatch = LOOKS[phase.name]
    start_s, lasting_s = phase.start_ps / PS_PER_S, (phase.end_ps - phase.start_ps) / PS_PER_S
    thin = phase.name == QUEUE
    [bar] = axes.barh(
        [at],
        [lasting_s],
        left=start_s,
        height=0.28 if thin else 0.74,
        color=colour,
        alpha=alpha,
        hatch=hatch,
        edgecolor=style.PAPER,
        linewidth=0.3,
    )
    style.tip(bar, f"{request}: {phase.name} {lasting_s * 1000:,.1f} ms from {start_s:,.3f} s")


def _legend(figure: Figure, names: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    patches = [
        Patch(facecolor=colour, alpha=alpha, hatch=hatch, edgecolor=style.PAPER, label=name)
        for name in names
        for colour, alpha, hatch in (LOOKS[name],)
    ]
    figure.legend(handles=patches, loc="outside upper right", ncols=len(patches))
