"""``explain``, ``compare`` and ``gate`` from the shell: status, one line of complaint, JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from simserve.cli import app


def simserve(*words: str) -> Any:
    return CliRunner().invoke(app, words[0].split() if len(words) == 1 else list(words))


@pytest.fixture(autouse=True)
def in_folder_of_small(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small.parent)
    (small.parent / "no.json").write_text("{}")
    assert simserve("run small.yaml --out before --save-result before.json").exit_code == 0


def test_explain_prints_a_report_and_json() -> None:
    done = simserve("explain small.yaml --no-changes")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "Where the time goes" in done.stdout
    done = simserve(
        "explain small.yaml --metric e2el --percentile 90 --replications 1 --workers 1 --json"
    )
    data = json.loads(done.stdout)
    assert (data["metric"], data["percentile"]) == ("e2el", 90)
    assert len(data["counterfactuals"]) == 10 and len(data["sensitivity"]) == 8
    assert max(one["value_ms"] or 0 for one in data["counterfactuals"]) > 0


def test_explain_of_a_folder_is_that_of_its_scenario() -> None:
    options = "--no-changes --request r3 --json"
    one, other = (simserve(f"explain {which} {options}") for which in ("small.yaml", "before"))
    assert (one.exit_code, other.exit_code) == (0, 0)
    assert one.stdout == other.stdout


def test_compare_of_a_run_with_itself_finds_nothing() -> None:
    done = simserve("compare before before")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "the same" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    data = json.loads(simserve("compare before before.json --json").stdout)
    assert data["a"]["simulated"] and "statistics only" in data["not_compared"][0]


def test_compare_says_in_which_part_two_simulated_runs_differ() -> None:
    longer = "--set workload.num_requests=400"
    for name, more in (("wide", ""), ("narrow", "--set max_num_seqs=3")):
        assert simserve(f"run small.yaml {longer} {more} --out {name}").exit_code == 0
    done = simserve("compare wide narrow")
    assert (done.exit_code, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    data = json.loads(simserve("compare wide narrow --json").stdout)
    means = {row["name"]: row for row in data["rows"] if row["statistic"] == "mean"}
    for one in data["parts"]:
        if one["requests"] == "all":
            row = means[one["metric"]]
            assert sum(one["a_ms"].values()) == pytest.approx(row["a"])
            assert sum(one["b_ms"].values()) == pytest.approx(row["b"])
    first = data["parts"][0]
    grown = {name: value - first["a_ms"][name] for name, value in first["b_ms"].items()}
    assert max(grown, key=lambda name: grown[name]) == "slot_queue"
    flat = " ".join(done.stdout.split())
    assert re.search(r"Of the \+[\d,.]+ ms of TTFT on average: queue for a slot \+", flat)


def test_compare_explains_no_part_of_a_run_without_an_operating_point() -> None:
    flood = "--set workload.arrivals.rate_per_s=600 --set workload.num_requests=1500"
    for name, more in (("wide", ""), ("narrow", "--set max_num_seqs=2")):
        assert simserve(f"run small.yaml {flood} {more} --out {name}").exit_code == 0
    done = simserve("compare wide narrow")
    assert "overloaded" in done.stdout and "Where the TTFT went" in done.stdout
    assert "Of the +" not in done.stdout


def test_compare_says_why_it_cannot_divide_a_run(tmp_path: Path) -> None:
    saved = json.loads(Path("before/run.json").read_text())
    saved["facts"]["resolved"]["deployment"]["gpu"]["name"] = "h1000"
    Path("before/run.json").write_text(json.dumps(saved))
    done = simserve("compare before before")
    assert done.exit_code == 0
    assert "Not compared: where the time went: " in done.stdout
    assert "Where the TTFT went" not in done.stdout


@pytest.mark.parametrize(("more", "status"), [("", 0), ("--set max_num_seqs=1", 1)])
def test_gate_says_by_its_status_whether_a_change_passes(more: str, status: int) -> None:
    words = (
        f"gate --baseline before small.yaml --slo ttft_p90:150 --replications 3 --workers 1 {more}"
    )
    done = simserve(words)
    assert (done.exit_code, done.stderr) == (status, "")
    assert done.stdout.startswith("broken: " if status else "passed: ")
    assert json.loads(simserve(f"{words} --json").stdout)["passes"] is not bool(status)


BAD_INPUTS = [
    ("explain small.yaml --percentile 100", r"--percentile: got 100.0, allowed: "),
    ("explain small.yaml --metric itl", r"'itl' is not one of 'ttft', 'tpot', 'e2el'"),
    ("explain small.yaml --replications 0", r"--replications: got 0, allowed: "),
    ("explain small.yaml --workers 0", r"--workers: got 0, allowed: "),
    ("explain small.yaml --request r99 --no-changes", r"--request: got r99, .*did you mean"),
    ("explain before --tp 2", r"--tp: got 2, allowed: nothing of the scenario"),
    ("explain before --set max_num_seqs=3", r"--set: got a value, allowed: nothing"),
    ("explain nowhere", r"nowhere: got no such file"),
    ("compare before", r"Missing argument"),
    ("compare before no.json", r"no.json: got JSON of another kind, allowed: "),
    ("compare before nowhere", r"nowhere: got no such file, allowed: "),
    ("gate small.yaml", r"Missing option '--baseline'"),
    ("gate --baseline before small.yaml", r"--slo: got no objective, allowed: "),
    ("gate --baseline no.json small.yaml --slo ttft:9", r"no.json: got JSON of another kind"),
    ("gate --baseline before small.yaml --slo ttfb:9", r"--slo: .*ttfb.*did you mean ttft"),
    ("gate --baseline before small.yaml --slo ttft:9 --good-share 2", r"--good-share: got 2"),
]


@pytest.mark.parametrize(("command", "pattern"), BAD_INPUTS, ids=[row[0] for row in BAD_INPUTS])
def test_wrong_input_is_one_line_and_status_2(command: str, pattern: str) -> None:
    done = simserve(command)
    assert (done.exit_code, done.stdout) == (2, "")
    assert re.fullmatch(rf"simserve: [^\n]*{pattern}[^\n]*\n", done.stderr), done.stderr
