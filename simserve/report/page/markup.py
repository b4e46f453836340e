"""HTML elements as values. Text is escaped where it enters; only ``Markup`` is taken as it is."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

_VOID = ("meta", "hr", "br")


class Markup(str):
    """HTML that is complete and escaped."""

    __slots__ = ()


Child = str | Markup | None | Iterable["Child"]
"""Text, elements, nothing, or several of them."""


def element(name: str, /, *children: Child, **attributes: str | None) -> Markup:
    """Return ``<name …>children</name>``; a trailing underscore of an attribute is dropped."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value, quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{''.join(_flat(children))}</{name}>")


def joined(*children: Child) -> Markup:
    """Return the children, one after another."""
    return Markup("".join(_flat(children)))


def paragraphs(texts: Iterable[Child], **attributes: str | None) -> Markup:
    """Return each text as a paragraph."""
    return joined(element("p", text, **attributes) for text in texts)


def table(
    head: Sequence[str], rows: Iterable[Sequence[Child]], caption: str, *, texts: int = 1
) -> Markup:
    """Return a table whose first ``texts`` columns are text and whose others are numbers.

    One with long texts becomes a list where there is no room for columns; a number then has the
    name of its column beside it.
    """

    def cells(row: Sequence[Child], name: str) -> Markup:
        out = []
        for at, cell in enumerate(row):
            scope = ("col" if name == "th" else "row") if name == "th" or at == 0 else None
            kind = "th" if scope else "td"
            named = head[at] if texts > 1 and texts <= at and kind == "td" else None
            number = None if at < texts else "n"
            out.append(element(kind, cell, scope=scope, class_=number, data_column=named))
        return element("tr", out)

    return element(
        "div",
        element(
            "table",
            element("caption", caption),
            element("thead", cells(head, "th")),
            element("tbody", [cells(row, "td") for row in rows]),
            class_="wide" if texts > 1 else None,
        ),
        class_="table",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def _flat(child: Child) -> Iterable[str]:
    if child is None:
        return
    if isinstance(child, Markup):
        yield child
    elif isinstance(child, str):
        yield html.escape(_printable(child), quote=True)
    else:
        for one in child:
            yield from _flat(one)


def _printable(text: str) -> str:
    """Return the text without characters that HTML does not know, and halves of others."""
    clean = "".join(one if one.isprintable() or one in "\n\t" else " " for one in text)
    return clean.encode("utf-8", "replace").decode("utf-8")
