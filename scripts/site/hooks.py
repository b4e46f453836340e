"""What mkdocs calls: made pages are added, and links between files become links between pages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # mkdocs loads this file by its path
    sys.path.insert(0, str(ROOT))


def on_files(files: Any, *, config: Any) -> Any:
    """Add the made pages to those that stand in docs/."""
    from mkdocs.structure.files import File

    from scripts.site.pages import made_pages

    for path, content in made_pages().items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Return the text of a page from docs/ with its links; made pages have theirs already."""
    from scripts.site.pages import as_page

    if page.file.generated_by is not None:
        return markdown
    name = page.file.src_uri
    return as_page(markdown, f"docs/{name}", name)
