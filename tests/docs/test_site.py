"""The site: links lead from page to page, the reference is the code's, the build is strict."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.site.links import relinked, without_markers
from scripts.site.pages import as_page, pages_by_path
from scripts.site.reference import field_comments, prose, reference_pages
from simserve.cli import click_command
from simserve.inputs.json_schema import file_schema, schema_names
from simserve.latency.tables.schema import KEYS
from simserve.policy.registry import SCHEDULERS
from simserve.policy.router import ROUTERS
from simserve.results.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"docs/a.md": "a.md", "docs/adr/1.md": "adr/1.md", "README.md": "index.md"}


@pytest.mark.parametrize(
    ("text", "source", "page", "expected"),
    [
        ("[a](docs/a.md)", "README.md", "index.md", "[a](a.md)"),
        ("[a](docs/a.md#part)", "README.md", "index.md", "[a](a.md#part)"),
        ("[home](../../README.md)", "docs/adr/1.md", "adr/1.md", "[home](../index.md)"),
        ("[b](1.md)", "docs/adr/1.md", "adr/1.md", "[b](1.md)"),
        ("[code](../simserve/cli)", "docs/a.md", "a.md", "code"),
        ("[`test`](../tests/x.py)", "docs/a.md", "a.md", "`test`"),
        ("[web](https://a.b/c)", "docs/a.md", "a.md", "[web](https://a.b/c)"),
        ("[here](#part)", "docs/a.md", "a.md", "[here](#part)"),
        ("`[a](docs/a.md)`", "README.md", "index.md", "`[a](docs/a.md)`"),
        ("```\n[a](docs/a.md)\n```", "README.md", "index.md", "```\n[a](docs/a.md)\n```"),
    ],
)
def test_links_between_files_become_links_between_pages(
    text: str, source: str, page: str, expected: str
) -> None:
    assert relinked(text, source, page, PAGES) == expected


def test_every_link_of_every_page_leads_to_a_page_or_loses_its_target() -> None:
    known = pages_by_path()
    assert "README.md" in known and "docs/architecture.md" in known
    for source, page in known.items():
        if not source.endswith(".md") or not (ROOT / source).is_file():
            continue
        text = re.sub(r"```.*?```", "", (ROOT / source).read_text(encoding="utf-8"), flags=re.S)
        shown = as_page(text, source, page)
        for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", shown):
            there = (Path(page).parent / link).as_posix()
            assert Path(there).parts and _normal(there) in known.values(), f"{source}: {link}"


def _normal(path: str) -> str:
    parts: list[str] = []
    for part in Path(path).parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def test_markers_of_filled_blocks_are_not_shown() -> None:
    text = "a\n<!-- output:x -->\n```console\n$ b\n```\n<!-- /output:x -->\nc\n"
    assert "<!--" not in without_markers(text)
    assert "$ b" in without_markers(text)


def test_docstrings_become_markdown() -> None:
    text = "Return ``x``.\n\nRaises:\n    InputError: if it\n        is wrong.\n"
    assert prose(text) == "Return `x`.\n\nRaises InputError: if it is wrong."


def test_the_reference_names_everything_that_the_code_has() -> None:
    pages = reference_pages()
    for name in click_command().commands:
        assert f"\n## simserve {name}\n" in pages["reference/cli.md"]
    for name in schema_names():
        for key in file_schema(name)["properties"]:
            assert f"| `{key}` |" in pages["reference/files.md"]
    for name in (*SCHEDULERS, *ROUTERS):
        assert f"### {name}\n" in pages["reference/policies.md"]
    for name in KEYS:
        assert f"### {name}.csv\n" in pages["reference/profiles.md"]
    for name, _ in field_comments(Metrics):
        assert f"| `{name}` |" in pages["reference/metrics.md"]
    assert ("duration_s", "first arrival until last completion") in field_comments(Metrics)


def test_help_on_the_site_fits_80_columns() -> None:
    blocks = re.findall(r"```text\n(.*?)```", reference_pages()["reference/cli.md"], re.DOTALL)
    assert len(blocks) > len(click_command().commands)
    assert max(len(line) for block in blocks for line in block.splitlines()) <= 80


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None,
    reason="mkdocs-material is not installed (extra: docs)",
)
def test_the_site_builds_strictly_and_asks_nobody_else_for_anything(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.build_site", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(list((ROOT / "docs").rglob("*.md")))
    fetched = re.compile(
        r"<(?:script|img|link|iframe)\b[^>]*?\b(?:src|href)=\"?(?:https?:)?//[^>]*>"
    )
    for page in pages:
        assert fetched.findall(page.read_text(encoding="utf-8")) == [], page
    for sheet in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet
