"""Reads pages as a browser would, with nothing of the code that makes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "link", "img", "input", "source"}
_ADDRESSES = {"src", "href", "xlink:href", "srcset", "action", "poster", "data", "formaction"}


@dataclass
class Page(HTMLParser):
    """Tags, texts by element, and every address that something could be loaded from."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    texts: dict[str, list[str]] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.addresses += [value or "" for name, value in attrs if name in _ADDRESSES]
        self.problems += [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1] != tag:
            self.problems.append(f"</{tag}> closes {self._open[-1:]}")
        else:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open and data.strip():
            self.texts.setdefault(self._open[-1], []).append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of every element of a kind."""
        return [attrs for name, attrs in self.tags if name == tag]

    def text(self) -> str:
        """Return everything there is to read."""
        return " ".join(
            text for name, texts in self.texts.items() if name != "style" for text in texts
        )


def read(text: str) -> Page:
    page = Page()
    page.feed(text)
    page.close()
    page.problems += [f"<{tag}> is left open" for tag in page._open]
    return page
