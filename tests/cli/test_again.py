"""An answer in JSON holds its scenario, and the command that gives it again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from simserve.cli import app
from simserve.cli.again import SCENARIO_FILE
from simserve.report.page.reproduce import recipe

COMMANDS = [
    "capacity small.yaml --slo ttft_p95:60 --good-share 90% --replications 1 --precision 50%",
    "capacity small.yaml --slo ttft:60 --users --think-time 2s --replications 1 --workers 1",
    "cost small.yaml --seed 3 --rate 2 --capacity 8 --terms spot --today 2026-11-20",
    "explain small.yaml --seed 3 --metric tpot --no-changes",
]


def said(options: list[str]) -> dict[str, Any]:
    result = CliRunner().invoke(app, options)
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_gives_the_same_answer_from_the_scenario(
    command: str, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small.parent)
    first = said([*command.split(), "--json"])
    written = recipe(first["resolved"])
    assert written.problem is None
    Path(SCENARIO_FILE).write_text(written.text, encoding="utf-8")
    program, *again = shlex.split(first["again"])
    assert program == "simserve" and SCENARIO_FILE in again and "--workers" not in again
    second = said([*again, "--json"])
    for answer in (first, second):  # where a value was given stands beside it
        del answer["resolved"]
    assert first == second


def test_a_plan_holds_the_command_as_it_was_typed_and_what_won() -> None:
    question = "plan --rate 1 --gpu l40s --max-gpus 2 --vary quantization=none --vary tp=1"
    few = "--replications 2 --confirm 1 --seed 3 --set workload.num_requests=60"
    command = [*shlex.split(question), *shlex.split(few)]
    answer = said([*command, "--workers", "1", "--json"])
    program, *again = shlex.split(answer["again"])
    assert program == "simserve"
    assert sorted(again) == sorted(command)
    winner = answer["winner"]
    assert answer["resolved"]["deployment"]["gpu"]["name"] == winner["settings"]["gpu"]
    assert answer["resolved"]["deployment"]["replicas"] == winner["replicas"]
    assert recipe(answer["resolved"]).problem is None
