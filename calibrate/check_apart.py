"""Checks kernels in a process that they may take with them, and tells every row as it comes.

A crash or a hang is a failed row; the next case has a new process.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch

from calibrate.check import CheckRow, KernelTrials, alive, choose, not_run
from calibrate.measure.client import Worker, WorkerGoneError, WorkerHungError
from simserve.errors import InputError

# A case compiles and launches one kernel, twice, in seconds; on a CPU the reference takes its time.
_CASE_S: Final[Mapping[str, float]] = {"cuda": 30.0, "cpu": 600.0}
_START_S: Final = 300.0
# A kernel that ended so many processes is not asked for another case; one hang is enough, as it
# takes the time of a whole family.
_MOST_LOST: Final = 2


class Checker:
    """The worker's side: one device, one kernel after the other."""

    def __init__(self, device: str, seed: int, names: Sequence[str]) -> None:
        self._device, self._seed = torch.device(device), seed
        self._labels, self._rows = choose(self._device, names)
        self._trials: KernelTrials | None = None

    def facts(self) -> dict[str, Any]:
        """Return the kernels to check, and rows of those that are not there."""
        return {"labels": self._labels, "rows": list(map(asdict, self._rows))}

    def measure(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return the rows of one case; no ``rows`` if the kernel has no more."""
        if self._trials is None or self._trials.label != asked["kernel"]:
            self._trials = KernelTrials(asked["kernel"], self._device, self._seed)
        found = self._trials.check(asked["case"])
        rows = None if found is None else list(map(asdict, found))
        return {"rows": rows, "lost": not self.healthy()}

    def healthy(self) -> bool:
        """Return whether the device still answers this process."""
        return alive(self._device)


def open_checker(config: Mapping[str, Any]) -> Checker:
    """Return the checker that a worker's configuration describes."""
    return Checker(config["device"], config["seed"], config["names"])


def check_apart(
    device: str,
    seed: int,
    names: Sequence[str] = (),
    tell: Callable[[CheckRow], None] = lambda _: None,
    bench: str = f"{__name__}:open_checker",
    left: Callable[[Sequence[str]], None] = lambda _: None,
) -> list[CheckRow]:
    """Return the rows of ``run_checks``, each told as it comes.

    Where it is interrupted, ``left`` is told which kernels were not checked to their end. Where no
    process can be started, a failed row says so.
    """
    rows: list[CheckRow] = []
    with tempfile.TemporaryDirectory() as folder:
        config = {"device": device, "seed": seed, "names": list(names)}
        worker = Worker(bench, config, Path(folder, "log"), _START_S)
        try:
            for row in _rows(worker, Path(folder, "log"), _CASE_S[device], done := set[str]()):
                rows.append(row)
                tell(row)
        except KeyboardInterrupt:
            left([label for label in worker.facts.get("labels", ()) if label not in done])
            raise
        finally:
            worker.stop()
    return rows


def _rows(worker: Worker, log: Path, limit_s: float, done: set[str]) -> Iterator[CheckRow]:
    """Yield the rows of one kernel after the other; those whose cases are over are ``done``."""
    try:
        facts = worker.start()
    except InputError as error:  # a library may end the process that loads it
        yield not_run("every kernel", f"no process starts: {error}; {_last_words(log)}")
        return
    yield from (CheckRow(**row) for row in facts["rows"])
    for label in facts["labels"]:
        lost = 0
        for number in itertools.count():
            if lost >= _MOST_LOST:
                yield not_run(label, "given up: it hung, or crashed twice", "other cases")
                break
            try:
                answer = worker.ask({"kernel": label, "case": number}, limit_s)
            except WorkerGoneError as error:
                lost += _MOST_LOST if isinstance(error, WorkerHungError) else 1
                yield not_run(label, f"{error}; {_last_words(log)}", f"case {number}")
                continue
            except InputError as error:
                yield not_run("everything else", f"no process starts any more: {error}")
                return
            lost += bool(answer.get("lost"))
            if "error" in answer:
                yield not_run(label, answer["error"], f"case {number}")
            elif answer["rows"] is None:
                break
            yield from (CheckRow(**row) for row in answer.get("rows", ()))
        done.add(label)


def _last_words(log: Path) -> str:
    """Return where a process was when it ended: the innermost calls of its traceback."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    places = [line.strip() for line in lines if line.lstrip().startswith("File ")]
    starts = [at for at, line in enumerate(lines) if "most recent call first" in line]
    if starts:
        places = [line.strip() for line in lines[starts[-1] + 1 : starts[-1] + 4]]
    return " < ".join(places[:3]) or "no traceback"
