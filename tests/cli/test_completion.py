"""The shells' completion: scripts are made, and words are completed from the commands."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = "from simserve.cli import main; main()"


def completed(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_names_the_program(shell: str) -> None:
    script = completed(_SIMSERVE_COMPLETE=f"source_{shell}")
    assert "_SIMSERVE_COMPLETE" in script and "simserve" in script


def test_commands_and_options_are_completed() -> None:
    words = {"COMP_WORDS": "simserve ch", "COMP_CWORD": "1"}
    assert "check" in completed(_SIMSERVE_COMPLETE="complete_bash", **words).split()
    words = {"COMP_WORDS": "simserve check --js", "COMP_CWORD": "2"}
    assert "--json" in completed(_SIMSERVE_COMPLETE="complete_bash", **words).split()
