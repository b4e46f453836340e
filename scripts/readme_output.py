"""Fill README.md, and the pages in docs/, with what the commands in them really print.

A block stands between ``<!-- output:NAME -->`` and ``<!-- /output:NAME -->``: a fenced
``console`` block whose lines that start with ``$ `` are commands. Each is run in an empty
folder, and what it prints is put below it. With ``--check`` nothing is written, and the exit
status is 1 if the file would change.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").rglob("*.md")))
PROMPT = "$ "
COLUMNS = "80"
ANSWERS = (0, 1)  # a missed objective is an answer too
BLOCK = re.compile(
    r"<!-- output:(?P<name>[\w-]+) -->\n```console\n(?P<body>.*?)```\n<!-- /output:(?P=name) -->",
    re.DOTALL,
)


class Block(NamedTuple):
    """One block of the page: its name and its commands."""

    name: str
    commands: tuple[str, ...]


def blocks(text: str) -> list[Block]:
    """Return the blocks of a page, in order."""
    return [Block(found["name"], _commands(found["body"])) for found in BLOCK.finditer(text)]


def _commands(body: str) -> tuple[str, ...]:
    return tuple(line.removeprefix(PROMPT) for line in body.splitlines() if line.startswith(PROMPT))


def printed_by(command: str, folder: Path) -> str:
    """Return what ``command`` prints in ``folder``, 80 columns wide and without colour."""
    tools = Path(sys.executable).parent
    env = os.environ | {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": COLUMNS,
        "NO_COLOR": "1",
        "TERM": "dumb",
    }
    words = shlex.split(command)
    if shutil.which(words[0], path=env["PATH"]) is None:
        sys.exit(f"{words[0]}: not installed beside {sys.executable}")
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode not in ANSWERS:
        sys.exit(f"{command}: exit status {done.returncode}\n{done.stderr}")
    return "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines())


def fill(text: str) -> str:
    """Return ``text`` with every block holding the output of its commands."""

    def filled(found: re.Match[str]) -> str:
        name, parts = found["name"], []
        with tempfile.TemporaryDirectory() as folder:
            for command in _commands(found["body"]):
                printed = printed_by(command, Path(folder))
                parts.append(f"{PROMPT}{command}\n{printed}".rstrip() + "\n")
        body = "\n".join(parts)
        return f"<!-- output:{name} -->\n```console\n{body}```\n<!-- /output:{name} -->"

    return BLOCK.sub(filled, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages, or check them, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 on a change")
    options = parser.parse_args(arguments)
    changed = 0
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = fill(before)
        if after == before:
            continue
        changed += 1
        print(f"{page.relative_to(ROOT)}: output has changed")
        if not options.check:
            page.write_text(after, encoding="utf-8")
    return int(options.check and changed > 0)


if __name__ == "__main__":
    sys.exit(main())
