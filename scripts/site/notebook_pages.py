"""Notebooks as pages: their text, their code, what it printed, and its pictures as files."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

Files = dict[str, str | bytes]
"""The content of files by their path on the site."""


class Notebook(NamedTuple):
    """A notebook as it was read: its name, and its cells."""

    name: str
    cells: list[Mapping[str, Any]]

    @property
    def title(self) -> str:
        """The heading of its first cell."""
        return self._first().splitlines()[0].removeprefix("# ")

    @property
    def question(self) -> str:
        """What it answers: its paragraph on the question."""
        paragraphs = self._first().split("\n\n")
        found = next(one for one in paragraphs if one.startswith("**The question.**"))
        return " ".join(found.removeprefix("**The question.**").split())

    def _first(self) -> str:
        return text_of(self.cells[0]["source"])


def read_notebooks(folder: Path) -> list[Notebook]:
    """Return the notebooks in reading order."""
    paths = sorted(folder.glob("[0-9][0-9]-*.ipynb"))
    return [
        Notebook(path.stem, json.loads(path.read_text(encoding="utf-8"))["cells"]) for path in paths
    ]


def text_of(source: str | Iterable[str]) -> str:
    """Return a text that the format may have cut into lines."""
    return source if isinstance(source, str) else "".join(source)


def notebook_page(notebook: Notebook) -> tuple[str, Files]:
    """Return the page of a notebook, and its pictures by their path on the site."""
    parts: list[str] = []
    pictures: Files = {}
    for number, cell in enumerate(notebook.cells):
        source = text_of(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            picture = output.get("data", {}).get("image/png")
            if picture is not None:
                name = f"{notebook.name}-{number}.png"
                pictures[f"notebooks/{name}"] = base64.b64decode(text_of(picture))
                parts.append(f"![{_caption(notebook, number)}]({name})")
            elif "text" in output:
                parts.append(f"```text\n{text_of(output['text']).rstrip()}\n```")
    return "\n\n".join(parts) + "\n", pictures


def _caption(notebook: Notebook, number: int) -> str:
    """Return what the picture shows: the heading that it stands under."""
    for cell in reversed(notebook.cells[:number]):
        if cell["cell_type"] == "markdown":
            for line in reversed(text_of(cell["source"]).splitlines()):
                if line.startswith("#"):
                    return line.lstrip("# ")
    return notebook.title


def index_page(notebooks: Iterable[Notebook]) -> str:
    """Return the list of the notebooks with the question that each answers."""
    lines = [
        "# Notebooks",
        "",
        "Each reads in ten minutes and begins with a run of simserve. They ",
    ]
    lines[-1] += "stand in `notebooks/`, with outputs, and run as they are:\n"
    lines.append("```text\npip install 'simserve[docs]' jupyterlab\njupyter lab notebooks\n```\n")
    lines += [f"- [{one.title}]({one.name}.md)  \n  {one.question}" for one in notebooks]
    return "\n".join(lines) + "\n"
