"""``capacity``, and ``run`` with replications, as scripts see them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from simserve.cli import app


def simserve_command(*words: str) -> Any:
    return CliRunner().invoke(app, words[0].split() if len(words) == 1 else list(words))


@pytest.fixture(autouse=True)
def in_folder_of_small(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small.parent)
    (small.parent / "still.yaml").write_text(
        small.read_text()
        .replace("process: poisson", "process: constant")
        .replace("{median: 200, p95: 600, max: 2000}", "100")
        .replace("{median: 20, p95: 60, max: 200}", "10")
    )


WRONG = [
    ("capacity small.yaml", r"--slo: got no objective"),
    ("capacity small.yaml --slo ttft:1 --replications 0", r"--replications: got 0"),
    ("capacity small.yaml --slo ttft:1 --workers 0", r"--workers: got 0"),
    ("capacity small.yaml --slo ttft:1 --good-share 120%", r"--good-share: got 120%"),
    ("capacity small.yaml --slo ttft:1 --precision much", r"--precision: got much"),
    ("capacity small.yaml --slo ttft:1 --think-time 3s", r"--think-time: .*only with --users"),
    ("capacity small.yaml --slo ttft:1 --users --think-time -3", r"--think-time: got -3"),
    ("capacity small.yaml --slo ttfb:1", r"--slo: .*did you mean ttft"),
    ("run small.yaml --replications 0", r"--replications: got 0, allowed: an integer from 1"),
    ("run small.yaml --precision 5x", r"--precision: got 5x, allowed: a share such as 5%"),
    ("run small.yaml --precision 0%", r"--precision: got 0%"),
    ("run small.yaml --replications 2 --workers 0", r"--workers: got 0"),
    ("run still.yaml --replications 3", r"--replications: .*the same whatever the seed"),
    ("run still.yaml --precision 5%", r"--precision: .*the same whatever the seed"),
]


@pytest.mark.parametrize(("command", "pattern"), WRONG, ids=[row[0] for row in WRONG])
def test_wrong_input_is_one_line_and_status_2(command: str, pattern: str) -> None:
    done = simserve_command(command)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert re.fullmatch(rf"simserve: [^\n]*{pattern}[^\n]*\n", done.stderr), done.stderr


def test_an_slo_that_nobody_meets_is_one_line_and_status_1() -> None:
    done = simserve_command("capacity small.yaml --slo ttft_p95:0.5 --workers 1")
    assert done.exit_code == 1
    assert re.fullmatch(r"No load meets ttft_p95:0.5: even at [^\n]*\n", done.stdout)


def test_the_report_and_the_json_say_the_same() -> None:
    words = "capacity small.yaml --slo ttft_p95:40 --replications 2 --precision 10% --workers 1"
    text, data = simserve_command(words), simserve_command(words + " --json")
    assert text.exit_code == data.exit_code == 0, text.output
    assert max(map(len, text.stdout.splitlines())) <= 80
    found = json.loads(data.stdout)
    assert f"Capacity  {found['capacity']:.3g} requests/s" in text.stdout
    assert "16-bit weights, on 1 × " in text.stdout
    count = found["scenario"]["assumed_numbers"]
    assert f"rest on {count} assumed numbers" in " ".join(text.stdout.split())
    assert found["low"] is None or found["low"] <= found["capacity"]
    assert [one["load"] for one in found["frontier"]] == sorted(
        one["load"] for one in found["frontier"]
    )


def test_replications_are_added_to_the_report_of_the_first() -> None:
    settings = "--set workload.num_requests=300 --workers 1"
    done = simserve_command(f"run small.yaml {settings} --replications 5")
    assert done.exit_code == 0, done.output
    flat = " ".join(done.stdout.split())
    assert "5 replications, of each the first" in flat
    assert "No calibration band: roofline does not say" in flat
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_json_of_replications_has_the_run_unchanged() -> None:
    settings = "--set workload.num_requests=100 --workers 1 --json"
    alone = json.loads(simserve_command(f"run small.yaml {settings}").stdout)
    again = json.loads(simserve_command(f"run small.yaml {settings} --replications 2").stdout)
    found = again["simserve"].pop("replicated")
    assert again == alone
    assert found["replications"][0]["seed"] == alone["simserve"]["seed"]
    assert len(found["replications"]) == 2


def test_an_slo_missed_over_the_replications_is_status_1() -> None:
    words = "run small.yaml --replications 2 --workers 1 --set workload.num_requests=200 --slo"
    assert simserve_command(f"{words} ttft_p95:0.5").exit_code == 1
    assert simserve_command(f"{words} ttft_p95:1e6").exit_code == 0
