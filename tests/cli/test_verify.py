"""``simserve verify``: many cases at once, random ones, and a vLLM that is not there."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from simserve.cli.app import app
from simserve.parity import live_vllm
from simserve.parity.verify import FAST
from simserve.policy.plain import PlainRequest, PlainScheduler
from simserve.policy.registry import SCHEDULERS

CASES = Path(__file__).parents[1] / "parity" / "cases"
GOOD = "watermark-ignored.case.json"


class FirstIsTheVictim(PlainScheduler):
    def choose_victim(self) -> PlainRequest:
        return self.running_queue[0]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path in CASES.glob("watermark-ignored.*"):
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def verify(*words: str) -> Any:
    return CliRunner().invoke(app, ["verify", *words])


def test_cases_that_cannot_be_read_do_not_hide_the_others(folder: Path) -> None:
    (folder / "bad.case.json").write_text("{")
    done = verify("nowhere.case.json", GOOD, "bad.case.json", "scenario.yaml")
    assert done.exit_code == 2
    assert done.stdout == "watermark-ignored: 0 diverging steps of 2\n"
    complaints = done.stderr.splitlines()
    assert [line.split(": ")[:2] for line in complaints] == [
        ["simserve", "nowhere.case.json"],
        ["simserve", "bad.case.json"],
        ["simserve", "scenario.yaml"],
    ]


def test_a_divergence_shows_both_states(folder: Path) -> None:
    records = folder / "watermark-ignored.expected.jsonl"
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    lines[2]["free"] += 1
    records.write_text("\n".join(json.dumps(line) for line in lines))
    done = verify(GOOD)
    assert done.exit_code == 1
    first, difference, *states = done.stdout.splitlines()
    assert first == "watermark-ignored: 1 diverging steps of 2"
    assert difference.strip().startswith("first at step 1: expected {")
    assert max(map(len, states)) <= 80
    expected, got = " ".join(map(str.strip, states)).removeprefix("expected: ").split(" got: ")
    want, have = json.loads(expected), json.loads(got)
    assert want["free"] == have["free"] + 1
    assert verify("nowhere.case.json", GOOD).exit_code == 2


def test_random_scenarios_that_agree_are_counted() -> None:
    done = verify("--fuzz", "5", "--seed", "1")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("fuzz: 0 diverging of 5 scenarios, ")
    told = json.loads(verify("--fuzz", "5", "--seed", "1", "--json").stdout)
    assert (told["scenarios"], told["divergence"]) == (5, None)


def test_a_random_divergence_is_kept_as_a_small_case(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCHEDULERS, FAST, FirstIsTheVictim)
    done = verify("--fuzz", "200", "--seed", "1", "--out", "found.case.json")
    assert done.exit_code == 1
    assert done.stdout.startswith("fuzz: 1 diverging of ")
    assert "first at step" in done.stdout
    assert "found.case.json" in done.stderr
    assert verify("found.case.json").exit_code == 1
    monkeypatch.setitem(SCHEDULERS, FAST, PlainScheduler)
    assert verify("found.case.json").exit_code == 0


@pytest.mark.parametrize(
    "words",
    [["--live", GOOD], ["--live", "--fuzz", "3"], ["--record", GOOD, "--out", "x.case.json"]],
)
def test_without_vllm_one_line_names_the_recipe(
    words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        return None if name == "vllm" else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    done = verify(*words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "verify: --live: got no vllm in this Python environment" in done.stderr
    assert "docs/verify.md" in done.stderr
    assert not (folder / "x.case.json").exists()


def test_another_vllm_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_vllm, "require_vllm", lambda: "0.34.1")
    done = verify("--record", GOOD)
    assert done.exit_code == 2
    warning, refusal = done.stderr.splitlines()
    assert warning == "simserve: vllm 0.34.1 is installed; the rules here are those of 0.33"
    assert "--record: got no --out" in refusal


@pytest.mark.parametrize("out", ["x.json", "no/x.case.json"])
def test_a_destination_that_is_no_case_file_is_refused(out: str) -> None:
    done = verify("--fuzz", "1", "--out", out)
    assert done.exit_code == 2
    assert f"--out: got {out}, allowed: a file" in done.stderr
