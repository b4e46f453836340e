"""How latencies are distributed, and how they change in the course of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from simserve.inputs.slo import Objective
from simserve.report.charts import style
from simserve.report.charts.downsample import cdf, strip
from simserve.results.samples import MS_PER_S, FloatArray, Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = {
    "ttft": "Time to first token (TTFT)",
    "tpot": "Time per output token (TPOT)",
    "itl": "Inter-token latency (ITL)",
    "e2el": "End to end (E2E)",
}
_MARKED = (50, 95, 99)
_LABELLED = (50, 99)
_STRIPS = 80
_PER_STRIP = 20
_LOG_FROM = 20.0  # a range of durations beyond this ratio is drawn logarithmically


def latency_cdfs(samples: Mapping[str, Sample], objectives: Sequence[Objective] = ()) -> Figure:
    """Return the cumulative distributions, one panel per metric, with p50, p95 and p99.

    ``samples`` are by metric (``ttft``, ``tpot``, ``itl``, ``e2el``) in seconds; limits that are
    asked of a metric are dashed lines.
    """
    shown = [name for name in NAMES if name in samples and samples[name].size]
    rows = (len(shown) + 1) // 2
    with style.drawing():
        figure, axes = style.grid_of(rows, 2, 8.4, 2.7 * rows + 0.1)
        for panel, name in zip(axes.flat, shown, strict=False):
            limits = [one for one in objectives if one.metric == name]
            _cdf(panel, name, samples[name], limits)
        for panel in axes.flat[len(shown) :]:
            panel.set_axis_off()
    return figure


def _cdf(axes: Axes, name: str, sample: Sample, limits: Sequence[Objective]) -> None:
    values_s, shares = cdf(sample)
    values_ms = values_s * MS_PER_S
    axes.plot(values_ms, shares * 100, color=style.ACCENT)
    for q in _MARKED:
        value_s = sample.percentile(q)
        if value_s is None:
            continue
        value = style.plain_number(value_s * MS_PER_S)
        (dot,) = axes.plot([value_s * MS_PER_S], [q], "o", color=style.ACCENT, markersize=5)
        style.tip(dot, f"p{q}: {value} ms")
        if q in _LABELLED:
            below = q != min(_MARKED)
            axes.annotate(
                f"p{q} {value}",
                (value_s * MS_PER_S, q),
                xytext=(7, -11 if below else -3),
                textcoords="offset points",
                fontsize=9,
            )
    for at, one in enumerate(limits):
        axes.axvline(one.limit_ms, color=style.INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            f"{one.name} ≤ {style.plain_number(one.limit_ms)} ms ",
            (one.limit_ms, 4 + 11 * at),
            ha="right",
            color=style.INK,
            fontsize=9,
        )
    if values_ms[0] > 0:
        axes.set_xscale("log")
        # Room for the labels, and at least a factor of four from side to side.
        right = max(values_ms[-1] * 1.6, values_ms[0] * 4, *(one.limit_ms * 1.2 for one in limits))
        axes.set_xlim(values_ms[0] / 1.15, right)
        style.log_ticks(axes.xaxis)
    else:
        style.plain_ticks(axes.xaxis)
    axes.set_title(NAMES[name])
    axes.set_xlabel("ms")
    axes.set_ylim(0, 103)
    axes.set_yticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100 %"])


def ttft_over_time(
    arrival_s: FloatArray,
    ttft_s: FloatArray,
    steady_s: tuple[float, float] | None = None,
) -> Figure:
    """Return p50 and p99 of the TTFT by time of arrival; the steady part is shaded.

    Both arrays are ``float64[requests]``; requests without a first token are NaN.
    """
    there = ~np.isnan(ttft_s)
    arrival_s, ttft_ms = arrival_s[there], ttft_s[there] * MS_PER_S
    columns = int(np.clip(len(ttft_ms) // _PER_STRIP, 1, _STRIPS))
    with style.drawing():
        figure, axes = style.axes_of(8.4, 2.7)
        if steady_s is not None:
            axes.axvspan(*steady_s, color=style.GRID, alpha=0.45, linewidth=0, label="steady part")
        if len(ttft_ms):
            found = strip(arrival_s, ttft_ms, (50.0, 99.0), columns)
            p50, p99 = found.percentiles[50.0], found.percentiles[99.0]
            axes.plot(found.middles, p99, color=style.SERIES[1], label="p99", marker="s", ms=3)
            axes.plot(found.middles, p50, color=style.ACCENT, label="p50", marker="o", ms=3)
            if p50.min() > 0 and p99.max() > _LOG_FROM * p50.min():
                axes.set_yscale("log")
                style.log_ticks(axes.yaxis)
            else:
                axes.set_ylim(bottom=0)
                style.plain_ticks(axes.yaxis)
        axes.set_xlabel("time of arrival, s")
        axes.set_title("TTFT by time of arrival, ms")
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3)
    return figure
