"""A progress bar on stderr: only on a terminal, and only once the work has taken a while."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PATIENCE_S = 0.5
"""Shorter work shows no bar."""


@contextlib.contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield what is to be told (done, all); None where nobody would see it."""
    if not sys.stderr.isatty():
        yield None
        return
    bar = _LateBar(label)
    try:
        yield bar.update
    finally:
        bar.close()


class _LateBar:
    """Appears with the first news after ``PATIENCE_S``."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._due_s = time.monotonic() + PATIENCE_S
        self._shown: tuple[Progress, TaskID] | None = None

    def update(self, done: int, everything: int) -> None:
        if self._shown is None:
            if time.monotonic() < self._due_s:
                return
            self._shown = self._show(everything)
        bar, task = self._shown
        bar.update(task, completed=done, total=everything)

    def _show(self, everything: int) -> tuple[Progress, TaskID]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as Remaining

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        bar = Progress(*columns, Remaining(), console=Console(stderr=True), transient=True)
        bar.start()
        return bar, bar.add_task(self._label, total=everything)

    def close(self) -> None:
        if self._shown is not None:
            self._shown[0].stop()
