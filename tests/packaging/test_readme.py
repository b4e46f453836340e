"""The first page keeps its promises: its blocks exist, its commands parse, its links lead on."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import readme_output

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("**/*.md")],
)
README = readme_output.README.read_text(encoding="utf-8")


def _simserve_commands() -> list[str]:
    return [command for block in readme_output.blocks(README) for command in block.commands]


def test_every_marker_of_the_readme_belongs_to_a_block_with_a_command() -> None:
    found = readme_output.blocks(README)
    assert len(found) == README.count("<!-- output:") == README.count("<!-- /output:")
    assert "run" in {block.name for block in found}
    assert all(block.commands for block in found)


@pytest.mark.parametrize("command", _simserve_commands())
def test_command_of_the_readme_parses(command: str) -> None:
    from simserve.cli import click_command

    program, name, *options = shlex.split(command)
    assert program == "simserve"
    root = click_command()
    context = root.make_context(program, [name, *options])
    found, sub, rest = root.resolve_command(context, [name, *options])
    assert found is not None and sub is not None
    sub.make_context(found, rest, parent=context)


def test_make_targets_of_the_pages_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    named = {
        name
        for page in PAGES
        for name in re.findall(r"(?:`|^\$ )make ([a-z-]+)", page.read_text(), re.MULTILINE)
    }
    assert named <= set(phony.split())
    assert {"demo", "test"} <= named


def test_python_of_the_readme_compiles() -> None:
    sources = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert sources
    for source in sources:
        ast.parse(source)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_filling_a_page_twice_changes_nothing(tmp_path: Path) -> None:
    command = f"{Path(sys.executable).name} -c 'print(1)'"
    page = f"a\n<!-- output:x -->\n```console\n$ {command}\n```\n<!-- /output:x -->\nb\n"
    once = readme_output.fill(page)
    assert f"$ {command}\n1\n```" in once
    assert readme_output.fill(once) == once


@pytest.mark.slow
def test_output_in_the_readme_is_what_the_commands_print() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "readme_output.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_python_of_the_readme_runs(tmp_path: Path) -> None:
    source = "\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
