"""What every page is made of: badges, tiles, figures with captions, and the page around them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from simserve import __version__
from simserve.report.page.markup import Child, Markup, element, joined

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Nothing may be fetched: not by a mistake of ours, and not by a text from an input.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A figure in a page: ``name`` for its files, ``alt`` for those who do not see it."""

    name: str
    figure: Figure
    title: str
    alt: str
    caption: str

    def markup(self) -> Markup:
        """Return the figure with its caption."""
        from simserve.report.charts.style import svg_for_page

        drawing = Markup(svg_for_page(self.figure, self.name, self.alt))
        return element(
            "figure",
            element(
                "div", drawing, class_="scroll", tabindex="0", role="group", aria_label=self.title
            ),
            element("figcaption", element("b", f"{self.title}. "), self.caption),
            id=self.name,
        )


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands below it, figures among it."""

    title: str
    body: Sequence[Child | Shown]

    def markup(self) -> Markup:
        """Return the section; without anything below it, nothing."""
        shown = [one.markup() if isinstance(one, Shown) else one for one in self.body]
        name = re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")
        return element("section", element("h2", self.title), shown, id=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A whole page: what it is about, the verdicts in a word each, and its sections."""

    title: str
    kind: str
    subtitle: str
    badges: Sequence[tuple[str, str]]  # how it looks (good, bad, warn, plain), and the words
    sections: Sequence[Section]

    def figures(self) -> list[Shown]:
        """Return all figures of the page, in order."""
        return [one for part in self.sections for one in part.body if isinstance(one, Shown)]

    def markup(self) -> str:
        """Return the page as one HTML document that needs nothing else."""
        badges = [element("li", words, class_=f"badge {looks}") for looks, words in self.badges]
        head = element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("title", f"{self.title} · simserve"),
            element("style", Markup(style_sheet())),
        )
        top = element(
            "header",
            element("p", self.kind, class_="eyebrow"),
            element("h1", self.title),
            element("p", self.subtitle, class_="sub"),
            element("ul", badges, class_="badges") if badges else None,
        )
        foot = element(
            "footer",
            element(
                "p",
                f"Made by simserve {__version__}. Everything here is simulated unless a line says "
                "otherwise. The page holds all it shows and loads nothing.",
            ),
        )
        body = element(
            "body",
            element("main", top, [part.markup() for part in self.sections if part.body], foot),
        )
        return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def style_sheet() -> str:
    """Return the CSS of every page."""
    return files("simserve.report.page").joinpath("report.css").read_text(encoding="utf-8")


def tiles(entries: Sequence[tuple[str, str, str, str]]) -> Markup:
    """Return headline numbers: label, number, unit, and what else there is to say."""
    return element(
        "dl",
        [
            element(
                "div",
                element("dt", label),
                element(
                    "dd",
                    number,
                    element("span", f" {unit}", class_="unit") if unit else None,
                    element("span", more, class_="more") if more else None,
                ),
                class_="tile",
            )
            for label, number, unit, more in entries
        ],
        class_="tiles",
    )


def details(summary: str, *body: Child) -> Markup:
    """Return what is folded away until it is asked for."""
    return element("details", element("summary", summary), joined(*body))


def code(text: str) -> Markup:
    """Return a block of code."""
    return element("pre", element("code", text), tabindex="0")


def ms(value: float | None) -> str:
    """Return milliseconds to three digits or so."""
    if value is None:
        return "–"
    return f"{value:,.1f}" if abs(value) < _ONE_DECIMAL_BELOW else f"{value:,.0f}"


def percent(frac: float | None) -> str:
    """Return a share in percent."""
    return "–" if frac is None else f"{frac:.1%}"


def number(value: float | None) -> str:
    """Return a number: whole from a hundred on, else to three digits."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= _ONE_DECIMAL_BELOW else f"{value:.3g}"


def count(amount: int, noun: str) -> str:
    """Return ``3 steps`` or ``1 step``."""
    return f"{amount:,} {noun}" + ("" if amount == 1 else "s")


_ONE_DECIMAL_BELOW = 100
