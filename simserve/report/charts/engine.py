"""KV blocks, batch and queue of the replicas over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from simserve.records.clock import PS_PER_S
from simserve.report.charts import style
from simserve.report.charts.downsample import COLUMNS, Band, band, joined
from simserve.results.counters import Counters

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class _Panel(NamedTuple):
    field: str
    title: str


_PANELS = (
    _Panel("kv_blocks", "KV cache held by requests, %"),
    _Panel("running", "Running requests"),
    _Panel("waiting", "Waiting requests"),
    _Panel("batch_tokens", "Tokens per step"),
)


def engine_over_time(replicas: Sequence[Counters], end_s: float, columns: int = COLUMNS) -> Figure:
    """Return four panels over time; each column shows lowest, mean and highest.

    With several replicas, the band is from the lowest to the highest of any, and the line is
    their mean.
    """
    with style.drawing():
        figure, axes = style.grid_of(len(_PANELS), 1, 8.4, 6.6, sharex=True)
        for panel, one in zip(axes.flat, _PANELS, strict=True):
            _draw(panel, joined([_band(each, one.field, end_s, columns) for each in replicas]))
            panel.set_title(one.title)
        axes.flat[-1].set_xlabel("time, s")
        axes.flat[0].legend(loc="upper left", ncols=2, bbox_to_anchor=(0.55, 1.32))
    return figure


def _band(values: Counters, field: str, end_s: float, columns: int) -> Band:
    column = getattr(values, field).astype(float)
    if field == "kv_blocks":
        column = column * 100 / values.num_blocks
    return band(values.time_ps / PS_PER_S, column, 0.0, end_s, columns)


def _draw(axes: Axes, shown: Band) -> None:
    middles = (shown.edges[:-1] + shown.edges[1:]) / 2
    axes.fill_between(
        shown.edges,
        [*shown.low, shown.low[-1]],
        [*shown.high, shown.high[-1]],
        step="post",
        color=style.ACCENT,
        alpha=0.28,
        linewidth=0,
        label="lowest to highest",
    )
    axes.plot(middles, shown.mean, color=style.ACCENT, linewidth=1.2, label="mean over time")
    axes.set_xlim(shown.edges[0], shown.edges[-1])
    axes.set_ylim(0, float(shown.high.max()) * 1.08 or 1)
    style.plain_ticks(axes.yaxis)
