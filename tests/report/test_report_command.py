"""``simserve report`` and ``run --timeline`` as scripts see them."""

from __future__ import annotations

import gzip
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from simserve.cli import app
from simserve.report.timeline import timeline
from simserve.results.result import Result
from tests.report.pages import read


def simserve_command(text: str) -> Any:
    return CliRunner().invoke(app, text.split())


@pytest.fixture(autouse=True)
def in_folder(small: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with a scenario, its saved run, and some things that are no run."""
    folder = small.parent
    monkeypatch.chdir(folder)
    done = simserve_command("run small.yaml --out saved")
    assert done.exit_code == 0, done.output
    (folder / "folder").mkdir()
    (folder / "large.yaml").write_text(
        small.read_text().replace("num_requests: 40", "num_requests: 201")
    )
    (folder / "answer.json").write_text("{}")
    return folder


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


WRONG = [
    ("report nowhere --html page.html", r"nowhere: got no such file or folder"),
    ("report folder --html page.html", r"folder: got a folder without run.json"),
    ("report small.yaml --html page.html", r"small.yaml: got a file of another kind"),
    ("report answer.json --html page.html", r"answer.json: got JSON of another kind"),
    ("report saved --html nowhere/page.html", r"--html: .*a directory that exists"),
    ("report saved --html folder", r"--html: .*this is a directory"),
    ("report saved --figures small.yaml", r"--figures: .*is a file"),
    ("report saved --gantt folder", r"--gantt: .*this is a directory"),
    ("report saved --html p.html --gantt p.html", r"--gantt: .*another file than --html"),
    ("report saved --timeline-window 1:2", r"--timeline-window: .*only with --timeline"),
    ("report saved --timeline t.json --timeline-window 2:1", r"--timeline-window: got 2:1"),
    ("report answer.json --timeline t.json", r"--timeline: .*a folder that 'run --out' wrote"),
    ("report answer.json --gantt g.html", r"--gantt: .*a folder that 'run --out' wrote"),
    ("report answer.json", r"answer.json: got JSON of another kind"),
    ("report answer.json --html answer.json", r"--html: .*not one of the inputs"),
    ("run small.yaml --timeline nowhere/t.json", r"--timeline: .*a directory that exists"),
    ("run small.yaml --timeline small.yaml", r"--timeline: .*not one of the inputs"),
    ("run small.yaml --timeline-window 1:2", r"--timeline-window: .*only with --timeline"),
    ("run small.yaml --timeline t.json --timeline-window x", r"--timeline-window: got x"),
    ("report", r"Missing argument"),
]


@pytest.mark.parametrize("name", ["run.json", "requests.parquet", "steps.parquet"])
@pytest.mark.parametrize("option", ["--html", "--gantt", "--timeline"])
def test_a_report_never_replaces_what_it_is_of(name: str, option: str, in_folder: Path) -> None:
    before = (in_folder / "saved" / name).read_bytes()
    done = simserve_command(f"report saved {option} saved/{name}")
    assert done.exit_code == 2 and "not one of the inputs" in done.stderr
    assert (in_folder / "saved" / name).read_bytes() == before


def test_wrong_input_is_one_line_and_status_2_and_writes_nothing(in_folder: Path) -> None:
    before = _files(in_folder)
    for command, pattern in WRONG:
        done = simserve_command(command)
        assert done.exit_code == 2, (command, done.output)
        assert done.stdout == "", command
        assert len(done.stderr.splitlines()) == 1, (command, done.stderr)
        assert re.search(pattern, done.stderr), (command, done.stderr)
        assert _files(in_folder) == before, command


def test_a_run_too_large_for_a_diagram_is_refused(in_folder: Path) -> None:
    assert simserve_command("run large.yaml --out large").exit_code == 0
    before = _files(in_folder)
    done = simserve_command("report large --html a.html --figures f --gantt g.html --timeline t")
    assert done.exit_code == 2
    assert re.search(r"--gantt: got 201 requests", done.stderr)
    assert _files(in_folder) == before


def test_everything_is_written_at_once_and_stdout_stays_empty(in_folder: Path) -> None:
    before = _files(in_folder)
    words = "--html page.html --figures figures --timeline t.json.gz --gantt gantt.html"
    done = simserve_command(f"report saved {words}")
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    new = _files(in_folder) - before
    assert {"page.html", "gantt.html", "t.json.gz", "figures/latency-cdf.svg"} <= new
    for name in ("page.html", "gantt.html"):
        page = read((in_folder / name).read_text())
        assert page.problems == []
        assert page.texts["h1"] == ["small"]


def test_without_options_the_report_is_the_text_of_the_run(in_folder: Path) -> None:
    assert simserve_command("report saved").stdout == simserve_command("run small.yaml").stdout


def test_the_timeline_of_a_run_is_that_of_its_folder(in_folder: Path) -> None:
    assert simserve_command("run small.yaml --timeline one.json.gz").exit_code == 0
    assert simserve_command("report saved --timeline two.json").exit_code == 0
    one = json.loads(gzip.decompress((in_folder / "one.json.gz").read_bytes()))
    two = json.loads((in_folder / "two.json").read_text())
    assert one == two == json.loads(json.dumps(timeline(Result.load("saved"))))


def test_a_timeline_that_leaves_something_out_says_so_on_stderr(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simserve.report import timeline as module

    monkeypatch.setattr(module, "write_timeline", partial(module.write_timeline, most_events=500))
    done = simserve_command("report saved --timeline t.json")
    assert done.exit_code == 0
    assert re.search(r"simserve: timeline: [\d,]+ steps: \d+ in one slice", done.stderr)
    assert json.loads((in_folder / "t.json").read_text())["otherData"]["left_out"]
