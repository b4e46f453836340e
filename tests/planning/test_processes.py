"""Processes that work for a command end with it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simserve.planning.processes import as_finished, in_order

# Starting two workers, or noticing that their command is gone, takes far less.
PATIENCE_S = 60.0

COMMAND = """
from simserve.planning.processes import in_order
from tests.planning.test_processes import tell_and_sleep
in_order(tell_and_sleep, [1, 2], workers=2)
"""


def squared(number: int) -> int:
    return number * number


def tell_and_sleep(_: int) -> None:
    os.write(1, f"{os.getpid()}\n".encode())
    time.sleep(PATIENCE_S * 2)


def is_alive(pid: int) -> bool:
    """Return whether a process is there; one that nobody has buried is not."""
    try:
        said = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return False
    return said.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("workers", [1, 2])
def test_results_do_not_depend_on_the_number_of_processes(workers: int) -> None:
    assert in_order(squared, range(5), workers) == [0, 1, 4, 9, 16]
    assert sorted(as_finished(squared, range(3), workers)) == [(0, 0), (1, 1), (2, 4)]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_workers_end_with_a_command_that_is_killed() -> None:
    command = subprocess.Popen([sys.executable, "-c", COMMAND], stdout=subprocess.PIPE, text=True)
    assert command.stdout is not None
    pids = [int(command.stdout.readline()) for _ in range(2)]
    assert all(map(is_alive, pids)) and command.pid not in pids
    command.send_signal(signal.SIGKILL)
    command.wait()
    until = time.monotonic() + PATIENCE_S
    while any(map(is_alive, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    left = [pid for pid in pids if is_alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left
