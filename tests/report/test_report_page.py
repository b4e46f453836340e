"""The page on reports does what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from simserve.cli import app

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
FEW = ("--set", "workload.num_requests=60")
WRITTEN = (
    *("monday.html", "pictures/latency-cdf.png", "chat.json.gz", "monday.json", "small.html"),
    *("latency.png", "engine.png"),
)


def test_every_command_and_every_line_of_python_on_the_page_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^\$ simserve (.*)$", PAGE, re.MULTILINE)
    assert len(commands) == 6
    for command in commands:
        words = shlex.split(command)
        few = FEW if words[0] == "run" and "workload.num_requests=60" not in words else ()
        done = CliRunner().invoke(app, [*words, *few])
        assert done.exit_code == 0, (command, done.output)
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "report.md", "exec"), {})
    for name in WRITTEN:
        assert (tmp_path / name).stat().st_size > 1000, name


def test_the_page_names_the_figures_that_there_are() -> None:
    from simserve.report.charts import bars, engine, latency, load, slots

    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE)
    modules = {module.__name__.rpartition(".")[2]: module for module in (bars, engine, latency)}
    modules |= {"load": load, "slots": slots}
    assert {name for name, _ in rows} == set(modules)
    for name, figures in rows:
        for figure in re.findall(r"`(\w+)`", figures):
            assert callable(getattr(modules[name], figure)), figure
