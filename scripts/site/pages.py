"""What the site holds beside the files in docs/: which file is which page, and made pages."""

from __future__ import annotations

from pathlib import Path

from scripts.site.links import relinked, without_markers
from scripts.site.notebook_pages import Files, index_page, notebook_page, read_notebooks
from scripts.site.reference import reference_pages

ROOT = Path(__file__).resolve().parents[2]
DOCS, NOTEBOOKS = ROOT / "docs", ROOT / "notebooks"
TOP_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Files outside docs/ that are pages too."""
FOLDERS = {
    "docs/adr": "adr/index.md",
    "docs/schema": "reference/files.md",
    "notebooks": "notebooks/index.md",
}
"""Folders that a page may link to, and where that leads."""


def pages_by_path() -> dict[str, str]:
    """Return the page of every file and folder that has one, by its path in the checkout."""
    docs = {path.relative_to(ROOT).as_posix(): path for path in DOCS.rglob("*") if path.is_file()}
    found = {name: path.relative_to(DOCS).as_posix() for name, path in docs.items()}
    found |= TOP_PAGES | FOLDERS
    for one in read_notebooks(NOTEBOOKS):
        found[f"notebooks/{one.name}.ipynb"] = f"notebooks/{one.name}.md"
    return found


def made_pages() -> Files:
    """Return every page that does not stand in docs/, and the pictures of the notebooks."""
    known = pages_by_path()
    files: Files = dict(reference_pages())
    for source, page in TOP_PAGES.items():
        files[page] = as_page((ROOT / source).read_text(encoding="utf-8"), source, page)
    files["adr/index.md"] = _decisions()
    notebooks = read_notebooks(NOTEBOOKS)
    files["notebooks/index.md"] = index_page(notebooks)
    for one in notebooks:
        source, page = f"notebooks/{one.name}.ipynb", f"notebooks/{one.name}.md"
        text, pictures = notebook_page(one)
        files |= pictures | {page: relinked(text, source, page, known)}
    return files


def as_page(text: str, source: str, page: str) -> str:
    """Return the text of a file of the checkout as it stands on the site."""
    return without_markers(relinked(text, source, page, pages_by_path()))


def _decisions() -> str:
    """Return the list of the decisions, by their headings."""
    lines = ["# Decisions", "", "What was chosen, what was not, and why.", ""]
    for path in sorted((DOCS / "adr").glob("[0-9]*.md")):
        title = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        lines.append(f"- [{title}]({path.name})")
    return "\n".join(lines) + "\n"
