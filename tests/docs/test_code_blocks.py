"""Every code block of the documentation is run, or stands in a short list with the reason."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from simserve.inputs.prices import load_prices
from simserve.inputs.scenario import load_scenario
from simserve.inputs.yaml_reader import parse_yaml
from tests.docs.pages import CODE, PAGES, ROOT, SUPPLIES, WORDS, Block, blocks_of, outside_fences

ANSWERS = (0, 1)  # a missed objective is an answer too
LIMIT_S = 600

NOT_RUN_HERE = {
    r"make [a-z-]+": "the targets that run these very tests; tests/packaging knows them all",
    r"\.venv/bin/python -m benchmarks.*": "minutes of timing; tests/benchmarks runs small ones",
    r"python -m calibrate(\.kit)? .*": "measures a GPU, or minutes of a CPU; tests/calibrate",
    r"simserve run --gpu h200-sxm --latency h200/profile": "the profile measured just above it",
    r"cp -r h200/profile .*": "the profile measured just above it",
    r"python -m tests\.fuzz .*": "an hour; tests/fuzz runs some thousand",
    r"simserve --install-completion": "writes into the home directory; tests/cli/test_completion",
    r"python3 scripts/verify_live\.py .*": "downloads vLLM",
    r"python3 -m venv /tmp/vllm-venv.*": "downloads vLLM",
    r"python3\.11 -m venv \.\./vidur.*": "downloads Vidur",
    r"\.venv-compiled/bin/simserve run": "a minute of compiling; tests/packaging/test_compiled",
    r"pip install .*": "downloads packages",
    r"simserve verify (--live|--record) .*": "needs a vLLM; tests/parity/test_live_vllm.py",
    r"simserve verify .*small\.case\.json": "a case that a vLLM recorded; tests/cli/test_verify.py",
    r"simserve profile (build|import|fit) .*": "needs tables or runs of others; tests/latency",
    r"simserve run --model llama-3\.1-8b --gpu h100-sxm --latency \./h100-8b": "the same tables",
    r"simserve validate --groundtruth DIR .*": "needs measurements of others; tests/planning",
}
"""Commands, as regular expressions of the whole line, and why they are not run here."""


def test_every_block_says_what_it_is() -> None:
    odd = [
        f"{block.page}:{block.line}: {block.language}"
        for page in PAGES
        for block in blocks_of(page)
        if block.language not in (*CODE, *WORDS)
    ]
    assert odd == []


@pytest.mark.parametrize("page", PAGES)
def test_no_command_hides_outside_a_block(page: str) -> None:
    hidden = re.findall(
        r"^    (?:\$ |simserve |pip |python ).*$", outside_fences(page), re.MULTILINE
    )
    assert hidden == []


def test_no_console_block_is_without_a_command() -> None:
    idle = [
        f"{block.page}:{block.line}"
        for page in PAGES
        for block in blocks_of(page)
        if block.language == "console" and not block.commands()
    ]
    assert idle == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_parse(page: str) -> None:
    for block in blocks_of(page):
        for command, printed in block.commands():
            if command.startswith("simserve ") and "simserve: " not in printed:
                _parse(command)


def _parse(command: str) -> None:
    from simserve.cli import click_command

    program, *words = shlex.split(command.partition(" > ")[0])
    found = click_command()
    while hasattr(found, "commands"):
        if words[0].startswith("-"):
            return  # --install-completion acts when it is parsed
        found = found.commands[words.pop(0)]
    found.make_context(program, words)


def test_every_reason_is_still_needed() -> None:
    commands = [
        command
        for page in PAGES
        for block in blocks_of(page)
        if not block.filled
        for command, _ in block.commands()
    ]
    idle = [one for one in NOT_RUN_HERE if not any(re.fullmatch(one, each) for each in commands)]
    assert idle == []


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_blocks_of_a_page_run(page: str, tmp_path: Path) -> None:
    blocks = [block for block in blocks_of(page) if not block.filled and block.language in CODE]
    if not blocks:
        return
    if page in SUPPLIES:
        SUPPLIES[page](tmp_path)
    for block in blocks:
        if block.file is not None:
            (tmp_path / block.file).write_text(block.body, encoding="utf-8")
        if block.language == "yaml":
            _read(block, tmp_path)
        elif block.language == "python":
            done = _shell(f"{shlex.quote(sys.executable)} -", tmp_path, block.body)
            assert done.returncode == 0, f"{page}:{block.line}\n{done.stderr}"
        else:
            _run(block, tmp_path)


def _run(block: Block, folder: Path) -> None:
    """Run the commands of a console block, and compare what they print with what it says."""
    for command, printed in block.commands():
        if any(re.fullmatch(one, command) for one in NOT_RUN_HERE):
            continue
        done = _shell(command, folder)
        said = f"{block.page}:{block.line}: {command}\n{done.stdout}{done.stderr}"
        if not printed:
            assert done.returncode in ANSWERS, said
            continue
        got = [line.rstrip() for line in (done.stderr + done.stdout).strip("\n").splitlines()]
        assert got == [line.rstrip() for line in printed.splitlines()], said


def _shell(command: str, folder: Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": tools, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=env | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )


def _read(block: Block, folder: Path) -> None:
    """Read a YAML block as what its keys say that it is: a scenario, a part of one, or prices."""
    content: Any = parse_yaml(block.body, f"{block.page}:{block.line}")
    if content is None:
        assert all(line.startswith("#") for line in block.body.splitlines())
        return
    path = folder / "block.yaml"
    path.write_text(block.body, encoding="utf-8")
    if set(content) == {"plan"}:  # a section of a scenario that ships
        with path.open("a", encoding="utf-8") as file:
            file.write("workload: thousand-users\ndeployment: thousand-users\n")
        content |= {"workload": "thousand-users"}
    if {"rentals", "apis", "power"} & set(content):
        load_prices(path)
        return
    home = Path.cwd()
    os.chdir(folder)  # a workload names its trace from where it stands
    try:
        if {"workload", "deployment"} & set(content):
            load_scenario(path)
        elif "model" in content:
            load_scenario(deployment=path)
        else:
            load_scenario(workload=path)
    finally:
        os.chdir(home)
