"""Processes that try inputs: one that dies or hangs takes nothing with it."""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import resource
import sys
import time
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from tests.fuzz.cases import LONGEST_S, MOST_BYTES, Outcome, peak_bytes, tried
from tests.fuzz.seeds import KINDS

# The worker notices a hang itself, unless it hangs in a library that holds the interpreter.
PATIENCE_S = 3 * LONGEST_S
# What an input may take before the machine is in danger; more than what counts as a finding.
ADDRESS_SPACE_BYTES = 6 * 10**9
_FULL = 3  # exit status of a worker that has used up its memory


class Worker:
    """A process that tries inputs; a dead or stuck one is replaced, and its input a finding."""

    BATCH = 50

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed, self.folder = seed, folder
        folder.mkdir(parents=True)
        self.jobs: list[tuple[int, str]] = []
        self.pipe, self.process = self._begin()
        self.heard = time.monotonic()

    def _begin(self) -> tuple[Connection, SpawnProcess]:
        ours, theirs = mp.Pipe()
        context = mp.get_context("spawn")
        process = context.Process(target=_serve, args=(theirs, self.seed, self.folder), daemon=True)
        process.start()
        theirs.close()
        self.warm = False
        return ours, process

    def busy(self) -> bool:
        """Whether enough inputs are on their way."""
        return len(self.jobs) >= self.BATCH

    def start(self, number: int, kind: str) -> None:
        """Hand over an input."""
        if not self.jobs:
            self.heard = time.monotonic()
        self.jobs.append((number, kind))
        with contextlib.suppress(BrokenPipeError):  # a dead worker is noticed by ``outcomes``
            self.pipe.send((number, kind))

    def outcomes(self) -> list[tuple[int, Outcome]]:
        """Return what was found since."""
        found: list[tuple[int, Outcome]] = []
        try:
            while self.pipe.poll():
                number, outcome = self.pipe.recv()
                found.append((number, outcome))
                self.jobs.remove((number, outcome.kind))
                self.heard, self.warm = time.monotonic(), True
        except (EOFError, OSError):
            self.process.join()
            if not self.warm:
                raise RuntimeError("a worker cannot even load whole files") from None
            if self.process.exitcode == _FULL:
                self._restart(self.jobs)
            else:
                found.append(self._replaced("crash", f"exit status {self.process.exitcode}"))
        patience_s = PATIENCE_S if self.warm else 10 * PATIENCE_S
        if self.jobs and time.monotonic() - self.heard > patience_s:
            self.process.kill()
            found.append(self._replaced("hang", "no answer, and no reaction to a signal"))
        return found

    def _replaced(self, word: str, text: str) -> tuple[int, Outcome]:
        self.process.join()
        (number, kind), *rest = self.jobs
        self._restart(rest)
        return number, Outcome(kind, word, text, f"{word} {kind}")

    def _restart(self, jobs: list[tuple[int, str]]) -> None:
        self.pipe, self.process = self._begin()
        self.jobs = []
        for job in jobs:
            self.start(*job)

    def end(self) -> None:
        """Drop the process, which has nothing to do."""
        self.process.kill()
        self.process.join()


def _serve(pipe: Connection, seed: int, folder: Path) -> None:
    for kind in KINDS:
        tried(seed, kind, -1, folder)  # imports what there is to import
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    while True:
        number, kind = pipe.recv()
        outcome = tried(seed, kind, number, folder)
        pipe.send((number, outcome))
        if peak_bytes() > MOST_BYTES:
            sys.exit(_FULL)  # the peak never falls again: a fresh process goes on
