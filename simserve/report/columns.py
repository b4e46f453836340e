"""Text in 80 columns without a library: wrapped paragraphs, and labels with text beside them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 80


def filled(text: str, indent: str = "", hang: str = "") -> list[str]:
    """Return ``text`` as lines of at most 80 columns; all but the first begin with ``hang``."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=hang, break_on_hyphens=False
    )


def enumerated(words: Sequence[str]) -> str:
    """Return words as a sentence lists them: ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def labelled(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Return labels with wrapped texts beside them; an empty label continues the one before."""
    rows = list(rows)
    width = max((len(label) for label, _ in rows), default=0) + 2
    lines: list[str] = []
    for label, text in rows:
        lines += filled(text, indent=f"{label:<{width}}", hang=" " * width) or [label]
    return lines
