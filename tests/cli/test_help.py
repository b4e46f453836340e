"""Help is quick and complete, lists are generated, and talk stays off stdout."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import simserve
from simserve.cli import app, click_command
from simserve.cli import progress as progress_module
from simserve.cli.progress import progress
from simserve.inputs.data_files import data_dir
from simserve.parity import verify as verify_module
from simserve.parity.verify import CaseReport
from simserve.policy.registry import SCHEDULERS
from simserve.policy.router import ROUTERS
from simserve.traffic.trace_formats import FORMATS

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT.parent / "shared" / "oracle" / "open"
COMMANDS = ("run", "sweep", "verify", "check", "list", "schema")
KINDS = (
    *("models", "gpus", "engines", "workloads", "profiles", "policies", "schedulers", "routers"),
)
HEAVY = ("joblib", "numpy", "pandas", "pyarrow", "pydantic", "rich", "simpy", "yaml")


def simserve_command(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def loaded_after(code: str) -> list[str]:
    script = f"import sys\n{code}\nprint([name for name in {HEAVY} if name in sys.modules])"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True
    )
    return list(eval(done.stdout.splitlines()[-1]))


def test_help_and_import_load_nothing_heavy() -> None:
    assert loaded_after("import simserve") == []
    leave = "from simserve.cli import main\nsys.argv = ['simserve', '--help']\n"
    assert loaded_after(leave + "try: main()\nexcept SystemExit: pass") == []


@pytest.mark.parametrize("words", [(), *[(name,) for name in COMMANDS]], ids=str)
def test_help_fits_80_columns_and_has_an_example(words: tuple[str, ...]) -> None:
    done = simserve_command(*words, "--help")
    assert done.exit_code == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert f"  simserve {' '.join(words)}".rstrip() in done.stdout
    assert "..." not in done.stdout.partition("Commands:")[2]


def test_every_option_has_a_help_text() -> None:
    group = click_command()
    for name in COMMANDS:
        for parameter in group.commands[name].params:
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"


def test_options_that_others_rely_on_are_there() -> None:
    words = {
        "run": "workload trace trace-format deployment model gpu tp engine latency set slo seed "
        "save-result save-detailed out check json",
        "sweep": "workload trace trace-format deployment model gpu tp engine latency set slo seed "
        "vary link workers resume out dry-run json",
        "verify": "json",
    }
    commands = click_command().commands
    for name, options in words.items():
        known = {word for parameter in commands[name].params for word in parameter.opts}
        assert {f"--{option}" for option in options.split()} <= known


def test_without_a_command_the_help_is_printed() -> None:
    assert simserve_command().stdout == simserve_command("--help").stdout


def test_version_is_the_package_version() -> None:
    assert simserve_command("--version").stdout == f"simserve {simserve.__version__}\n"


def test_lists_name_what_there_is() -> None:
    workloads = {path.stem for path in data_dir("workloads").glob("*.yaml")}
    gpus = {path.parent.name for path in data_dir("hardware_profiles").glob("*/device.yaml")}
    found = {}
    for kind in KINDS:
        done = simserve_command("list", kind)
        assert done.exit_code == 0, done.stderr
        found[kind] = {line.split()[0] for line in done.stdout.splitlines()}
        assert all(len(line.split()) > 1 for line in done.stdout.splitlines())
    assert found["workloads"] == workloads and found["gpus"] == gpus
    assert found["schedulers"] == set(SCHEDULERS) and "llama-3.1-8b" in found["models"]
    assert found["routers"] == set(ROUTERS) and {"vllm", "sglang"} <= found["engines"]
    assert found["policies"] == {"fcfs", "priority"} and "roofline" in found["profiles"]


@pytest.mark.parametrize("kind", KINDS)
def test_lists_as_json_have_the_names_of_the_lines(kind: str) -> None:
    lines = simserve_command("list", kind).stdout.splitlines()
    rows = json.loads(simserve_command("list", kind, "--json").stdout)
    assert [row["name"] for row in rows] == [line.split()[0] for line in lines]
    assert all(row["text"] in line for row, line in zip(rows, lines, strict=True))


def test_help_of_traces_names_every_format() -> None:
    told = simserve_command("trace", "--help").stdout
    listed = [line.split()[0] for line in told.splitlines() if line.startswith("    ")]
    assert listed[: len(FORMATS)] == [*FORMATS]


def test_verify_tells_the_divergence_and_answers_no(monkeypatch: pytest.MonkeyPatch) -> None:
    reports = {
        "same": CaseReport("same", 12, 0),
        "other": CaseReport("other", 9, 2, "step 3: tokens\nexpected 5, got 6"),
        "requests": CaseReport("requests", 9, 0, "request 4 finished late"),
    }
    monkeypatch.setattr(verify_module, "verify_case", reports.__getitem__)
    fine = simserve_command("verify", "same")
    assert (fine.exit_code, fine.stdout) == (0, "same: 0 diverging steps of 12\n")
    told = simserve_command("verify", "same", "other")
    assert told.exit_code == 1
    assert told.stdout.splitlines()[1:] == [
        "other: 2 diverging steps of 9", "  step 3: tokens", "  expected 5, got 6"
    ]  # fmt: skip
    assert simserve_command("verify", "requests").exit_code == 1
    assert '"diverging_steps": 2' in simserve_command("verify", "other", "--json").stdout


@pytest.mark.skipif(not CASES.is_dir(), reason="the recorded cases are not beside the checkout")
def test_verify_replays_a_recorded_case() -> None:
    done = simserve_command("verify", str(CASES / "o01-hand-chunked.case.json"))
    assert (done.exit_code, done.stdout) == (0, "o01-hand-chunked: 0 diverging steps of 6\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("screen", "patience_s", "shown"),
    [(Terminal(), 0.0, True), (Terminal(), 60.0, False), (io.StringIO(), 0.0, False)],
    ids=["long work", "short work", "not a terminal"],
)
def test_progress_is_shown_only_for_long_work_on_a_terminal(
    screen: io.StringIO, patience_s: float, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress_module, "PATIENCE_S", patience_s)
    with progress("simulating") as tell:
        for done in range(3):
            if tell is not None:
                tell(done, 3)
    assert ("simulating" in screen.getvalue()) == shown
    assert bool(screen.getvalue()) == shown
