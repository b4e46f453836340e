"""The page on launch lines shows what its commands print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scripts import readme_output
from simserve.cli import app
from simserve.inputs.launch_line.flag_table import vllm_table

PAGE = Path(__file__).resolve().parents[3] / "docs" / "launch-lines.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^\$ (simserve .*)\n((?:(?!\$ |```).*\n)*)", TEXT, re.MULTILINE)


@pytest.mark.parametrize(("command", "shown"), BLOCKS, ids=[row[0][-40:] for row in BLOCKS])
def test_page_shows_what_its_command_prints(
    command: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", readme_output.COLUMNS)
    done = CliRunner().invoke(app, shlex.split(command)[1:])
    assert done.exit_code in (0, 2), done.output
    printed = done.stdout if done.exit_code == 0 else done.stderr
    assert shown.strip() == "\n".join(line.rstrip() for line in printed.splitlines()).strip()


def test_page_has_its_examples_and_counts() -> None:
    assert len(BLOCKS) >= 8
    counts: dict[str, int] = {}
    for flag in vllm_table().flags:
        counts[flag.meaning] = counts.get(flag.meaning, 0) + 1
    shown = re.findall(r"^\| (\w+) \| .* \| (\d+) \|$", TEXT, re.MULTILINE)
    assert {name: int(count) for name, count in shown} == counts
