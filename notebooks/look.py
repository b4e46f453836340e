"""What all notebooks share: one look, and small settings for a quick run.

The colours are those of Okabe and Ito (jfly.uni-koeln.de/color, 2008), which colour-blind
readers tell apart. ``SIMSERVE_QUICK=1`` makes every notebook small enough for a test.
"""

from __future__ import annotations

import os
from typing import NamedTuple, TypeVar

import matplotlib.pyplot as plt
from cycler import cycler

from simserve.latency.tables.profile import find_profile, list_profiles, read_profile

QUICK = os.environ.get("SIMSERVE_QUICK") == "1"

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY, BLACK = "#CC79A7", "#56B4E9", "#999999", "#222222"
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)

Setting = TypeVar("Setting")


def quick(full: Setting, small: Setting) -> Setting:
    """Return ``full``, or ``small`` where SIMSERVE_QUICK is 1."""
    return small if QUICK else full


def use() -> None:
    """Set size, fonts, colours and a light grid for the figures that follow."""
    plt.rcParams.update(
        {
            "figure.figsize": (8.6, 4.0),
            "figure.dpi": 100,
            "figure.constrained_layout.use": True,
            "font.size": 11,
            "axes.titlesize": 12,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.prop_cycle": cycler(color=PALETTE),
            "grid.color": "#e4e4e4",
            "grid.linewidth": 0.8,
            "lines.linewidth": 2.0,
            "lines.markersize": 5,
            "legend.frameon": False,
        }
    )


class MeasuredStep(NamedTuple):
    """A decode step that was timed: sequences, their mean context, GPU time, and by whom."""

    seqs: int
    context: int
    ms: float
    source: str


def measured_decode_steps(gpu: str, model: str) -> list[MeasuredStep]:
    """Return the measured decode steps of ``model`` in the profiles that ship for ``gpu``."""
    found = []
    for name in list_profiles(gpu):
        folder = find_profile(name, gpu)
        table = folder and read_profile(folder).tables.get("step")
        for row in table.rows if table else ():
            if row.text("model") == model and row.text("regime") == "decode":
                seqs = row.number("n_dec")
                context = row.number("sum_ctx") // seqs
                found.append(MeasuredStep(seqs, context, row.seconds * 1e3, name))
    return found
