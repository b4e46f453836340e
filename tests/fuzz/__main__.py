"""``python -m tests.fuzz``: damaged files for every public loader, over two processes.

A finding is an exception that is no ``SimserveError``, more than 5 s for one input, more than
1 GB of memory, a dead process, or a message that is longer than 400 characters or one line. Each
place in the code that fails is written once, as the file that makes it fail.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path

from tests.fuzz.cases import Outcome, made
from tests.fuzz.seeds import KINDS
from tests.fuzz.workers import Worker

PROCESSES = 2
REPORT_EVERY_S = 60.0


def main() -> int:
    """Run the fuzzer as the command line asks; return its exit status."""
    asked = _arguments()
    kinds = asked.kinds.split(",")
    deadline = time.monotonic() + 60 * asked.minutes if asked.minutes else None
    summary = Summary(asked.seed, Path(asked.out))
    jobs = ((number, kinds[number % len(kinds)]) for number in range(asked.n))
    with tempfile.TemporaryDirectory() as folder:
        workers = [Worker(asked.seed, Path(folder) / str(i)) for i in range(PROCESSES)]
        while workers:
            for worker in list(workers):
                while not worker.busy() and (job := _next(jobs, deadline)) is not None:
                    worker.start(*job)
                if not worker.jobs:
                    worker.end()
                    workers.remove(worker)
            if workers:
                wait([worker.pipe for worker in workers], timeout=0.5)
            for worker in workers:
                for number, outcome in worker.outcomes():
                    summary.add(number, outcome)
    sys.stdout.write(summary.text())
    return 1 if summary.places else 0


def _next(jobs: Iterator[tuple[int, str]], deadline: float | None) -> tuple[int, str] | None:
    late = deadline is not None and time.monotonic() > deadline
    return None if late else next(jobs, None)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--n", type=int, default=10_000, help="inputs to try")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--minutes", type=float, default=None, help="stop after so long")
    parser.add_argument("--out", default="fuzz-findings", help="folder for findings")
    asked = parser.parse_args()
    unknown = set(asked.kinds.split(",")) - set(KINDS)
    if unknown:
        parser.error(f"--kinds: {', '.join(sorted(unknown))}, allowed: {', '.join(KINDS)}")
    return asked


class Summary:
    """Counts by kind and outcome; the first input of every failing place is written."""

    def __init__(self, seed: int, out: Path) -> None:
        self.seed, self.out = seed, out
        self.counts: Counter[tuple[str, str]] = Counter()
        self.places: dict[str, str] = {}
        self.started = self.reported = time.monotonic()

    def add(self, number: int, outcome: Outcome) -> None:
        """Count an outcome; write the input if its place is new."""
        self.counts[outcome.kind, outcome.word] += 1
        if outcome.finding is not None and outcome.place not in self.places:
            self.places[outcome.place] = f"{outcome.kind} {number}: {outcome.finding}"
            self._write(number, outcome)
        if time.monotonic() - self.reported > REPORT_EVERY_S:
            self.reported = time.monotonic()
            sys.stderr.write(f"{sum(self.counts.values())} inputs, {len(self.places)} places\n")

    def _write(self, number: int, outcome: Outcome) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        seed, content, _ = made(self.seed, outcome.kind, number)
        name = f"{self.seed}-{outcome.kind}-{number}"
        (self.out / f"{name}.input").write_bytes(content)
        note = f"role {seed.role}\n{outcome.place}\n{outcome.finding}\n"
        (self.out / f"{name}.txt").write_text(note, errors="backslashreplace")
        sys.stderr.write(f"finding: {outcome.place} ({name})\n")

    def text(self) -> str:
        """Return the table of counts, and every finding in one line."""
        kinds = sorted({kind for kind, _ in self.counts})
        words = sorted({word for _, word in self.counts} | {"loaded", "refused"})
        total = sum(self.counts.values())
        elapsed_s = time.monotonic() - self.started
        lines = [f"{total} inputs, seed {self.seed}, {elapsed_s:.0f} s", ""]
        lines.append(f"{'kind':<12}" + "".join(f"{word:>20}" for word in words))
        for kind in [*kinds, "all"]:
            row = [
                sum(n for (k, w), n in self.counts.items() if w == word and kind in (k, "all"))
                for word in words
            ]
            lines.append(f"{kind:<12}" + "".join(f"{count:>20}" for count in row))
        lines += ["", f"{len(self.places)} findings"]
        lines += [
            f"  {place}: {' '.join(text.split())[:160]}" for place, text in self.places.items()
        ]
        return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
