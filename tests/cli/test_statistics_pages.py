"""The pages on statistics and capacity: their commands parse, their numbers are the code's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from simserve.cli import click_command
from simserve.cli.capacity_command import _REPLICATIONS
from simserve.planning.calibration import DRAWS
from simserve.planning.capacity import MOST_USERS, REPLICATIONS
from simserve.planning.load_tests import LATENCIES_PER_RUN
from simserve.planning.precision import MOST_REPLICATIONS
from simserve.results.batch_means import BATCH_COUNTS, INDEPENDENCE_LEVEL
from simserve.results.intervals import (
    FEWEST_RISES,
    FEWEST_RISES_BEYOND,
    FEWEST_RISES_OF_MEAN,
    SMALLEST_SIZE,
    SMALLEST_TAIL,
)

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = {
    name: (DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ("statistics", "capacity")
}
COMMANDS = [
    command
    for page in PAGES.values()
    for command in re.findall(r"^\$ (simserve .*)$", page, re.MULTILINE)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_pages_parse(command: str) -> None:
    program, name, *options = shlex.split(command)
    root = click_command()
    context = root.make_context(program, [name, *options])
    found, sub, _ = root.resolve_command(context, [name, *options])
    assert found is not None and sub is not None
    sub.make_context(found, options, parent=context)


def test_the_numbers_of_the_pages_are_those_of_the_code() -> None:
    first, *others = BATCH_COUNTS
    said = " ".join(PAGES["statistics"].split())
    assert f"{first} of them, or {others[0]}, {others[1]} or {others[2]}" in said
    assert f"independence at level {INDEPENDENCE_LEVEL}" in said
    assert f"fewer than {SMALLEST_SIZE} independent requests" in said
    assert f"or fewer than {SMALLEST_TAIL} independent requests lie beyond it" in said
    assert f"rises above its median fewer than {FEWEST_RISES_OF_MEAN} times" in said
    assert f"rises above its median fewer than {FEWEST_RISES} times" in said
    assert f"fewer than {FEWEST_RISES_BEYOND} of these rises are left" in said
    assert f"at most {MOST_REPLICATIONS}." in said and f"{DRAWS} draws" in said
    assert f"More than {MOST_USERS:,} users" in " ".join(PAGES["capacity"].split())
    assert LATENCIES_PER_RUN == 20 and "at least twenty latencies long" in PAGES["capacity"]
    assert REPLICATIONS == _REPLICATIONS


def test_output_of_the_pages_fits_80_columns() -> None:
    for page in PAGES.values():
        for block in re.findall(r"```(?:console)?\n(.*?)```", page, re.DOTALL):
            # An answer of one line stays one line.
            lines = [line for line in block.splitlines() if not line.startswith("No load meets")]
            assert max(map(len, lines)) <= 80
