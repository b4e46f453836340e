"""How figures look, and how they become SVG and PNG.

Colours are chosen by role. In a page, a role becomes a CSS variable, so that one drawing serves
light and dark; in a file of its own it stays the light colour. Text stays text. An artist whose
gid is made by ``tip`` gets a tooltip.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1c2733", "#5b6875", "#dfe4e9", "#fffffe"
ACCENT, GOOD, BAD = "#2458c5", "#1b7a4b", "#b3372b"
SERIES = (ACCENT, "#b45309", "#0f766f", "#8b3fa8", "#5f6b12", "#c02f68")
"""One colour per line; each has at least 4.5:1 against the paper, and a marker of its own."""
MARKERS = ("o", "s", "D", "^", "v", "P")

_ROLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    PAPER: "paper",
    ACCENT: "accent",
    GOOD: "good",
    BAD: "bad",
    **{colour: f"series-{at}" for at, colour in enumerate(SERIES) if at},
}
_FONT_SIZE = 10.5
_PNG_DPI = 200
_TIP = "tip "
# What is marked of every decade, by how many of them there are: labels stand beside each other.
_MARKS = ((1.8, (1.0, 2.0, 5.0)), (3.2, (1.0, 3.0)), (math.inf, (1.0,)))
_RULES: Any = {
    "svg.fonttype": "none",  # text stays text: it can be selected, read aloud and searched
    "svg.hashsalt": "simserve",  # the same figure, the same bytes
    "text.parse_math": False,  # a name with a $ in it is a name
    "text.color": INK,
    "font.family": ["sans-serif"],
    "font.size": _FONT_SIZE,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.labelsize": _FONT_SIZE,
    "axes.titlesize": _FONT_SIZE,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlepad": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": _FONT_SIZE - 1,
    "ytick.labelsize": _FONT_SIZE - 1,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": _FONT_SIZE - 0.5,
    "lines.linewidth": 1.8,
    "hatch.linewidth": 0.6,
    "figure.facecolor": PAPER,
    "path.simplify": True,
}


@contextmanager
def drawing() -> Iterator[None]:
    """Draw in the style of the project, and leave matplotlib's own settings as they were."""
    import matplotlib as mpl

    with mpl.rc_context(_RULES):
        yield


def grid_of(
    rows: int, columns: int, width_in: float, height_in: float, **axes: Any
) -> tuple[Figure, Any]:
    """Return a figure and its axes, ``object[rows, columns]``; no window, no global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **axes)


def axes_of(width_in: float, height_in: float) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes."""
    figure, axes = grid_of(1, 1, width_in, height_in)
    return figure, axes[0, 0]


def tip(artist: Artist, text: str) -> None:
    """Let ``text`` appear where the mouse rests on ``artist``."""
    artist.set_gid(_TIP + text)


def plain_number(value: float) -> str:
    """Return a number for an axis: no powers of ten, no zeros that say nothing."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def plain_ticks(axis: Any) -> None:
    """Write the numbers of an axis in full, logarithmic ones too."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))
    axis.set_minor_formatter(NullFormatter())


def log_ticks(axis: Any) -> None:
    """Mark 1, 2 and 5 of every decade of a logarithmic axis, or fewer of many decades."""
    from matplotlib.ticker import LogLocator

    low, high = sorted(axis.get_view_interval())
    decades = math.log10(high / low) if low > 0 else math.inf
    subs = next(marks for most, marks in _MARKS if decades <= most)
    axis.set_major_locator(LogLocator(base=10, subs=subs, numticks=12))
    plain_ticks(axis)


def svg_for_page(figure: Figure, name: str, alt: str) -> str:
    """Return the figure as an ``<svg>`` element whose colours are CSS variables.

    ``name`` makes the ids in it unique within a page, ``alt`` says what is seen.
    """
    text = _svg(figure)
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(?<= id=")([^"]+)(?=")', rf"{name}-\1", text)
    text = re.sub(r'(url\(#|href="#)', rf"\1{name}-", text)
    for colour, role in _ROLES.items():
        text = text.replace(colour, f"var(--{role})")
    text = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 var(--font)", text)
    width, height = re.findall(r'viewBox="0 0 ([0-9.]+) ([0-9.]+)"', text)[0]
    head = (
        f'<svg class="chart" role="img" aria-label="{_attribute(alt)}" '
        f'viewBox="0 0 {width} {height}" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'style="aspect-ratio:{float(width):.0f}/{float(height):.0f}">'
    )
    return head + text[text.index(">") + 1 :].strip()


def save_files(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write the figure as SVG and as PNG into ``folder``, each whole or not at all."""
    from simserve.results.whole_files import write_whole

    text = _svg(figure)

    def write_svg(path: Path) -> None:
        path.write_text(text, encoding="utf-8")

    def write_png(path: Path) -> None:
        figure.savefig(path, format="png", dpi=_PNG_DPI, metadata={"Software": None})

    paths = [folder / f"{name}.svg", folder / f"{name}.png"]
    for path, write in zip(paths, (write_svg, write_png), strict=True):
        write_whole(path, write)
    return paths


def _svg(figure: Figure) -> str:
    import matplotlib as mpl

    out = io.StringIO()
    with mpl.rc_context(_RULES):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    figure.set_layout_engine("none")  # a second layout would differ by a hair from the first
    text = re.sub(rf'<g id="{_TIP}([^"]*)">', r"<g><title>\1</title>", out.getvalue())
    return re.sub(r'(?<= d=")[^"]+', _shorter, text)


def _shorter(path: re.Match[str]) -> str:
    """Return the coordinates of a path to a hundredth of a point, on one line."""
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", path[0]).replace(
        "\n", ""
    )


def _attribute(text: str) -> str:
    return html.escape(text, quote=True)
