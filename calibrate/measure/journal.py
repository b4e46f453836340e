"""The journal of a calibration: one line per finished point, so that nothing is lost.

``journal.jsonl`` is only ever appended to, and flushed after every line. A process that is
killed leaves at most one torn line at the end, which the next one cuts off.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from simserve.errors import InputError

FILE = "journal.jsonl"
SESSION, POINT, REPEAT, SENTINEL, END = "session", "point", "repeat", "sentinel", "end"
Entry = dict[str, Any]


class Journal:
    """The journal of one folder, open for appending by one process at a time."""

    def __init__(self, folder: Path, session: str) -> None:
        """Open the journal, with what an earlier run of the same session left.

        Raises:
            InputError: if it is of another session, or another process has it open.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE
        self._file: IO[bytes] = self.path.open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise InputError(
                str(self.path), None, "a journal that another run writes", "one run at a time"
            ) from None
        _cut_torn_line(self.path)
        self.entries = list(read_journal(self.path))
        for entry in self.entries:
            if entry["kind"] == SESSION and entry["session"] != session:
                self.close()
                allowed = f"the same plan, seed and protocol ({entry['plan']}), or another --out"
                raise InputError(str(self.path), "session", entry["session"], allowed)

    def add(self, kind: str, entry: Mapping[str, Any]) -> None:
        """Append one entry; when this returns it survives the end of this process."""
        line: Entry = {"kind": kind, **entry}
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        self.entries.append(line)

    def close(self) -> None:
        """Let another run have it."""
        self._file.close()

    def finished(self, kind: str) -> dict[str, Entry]:
        """Return the entries of one kind by the point's name; the last of a name counts."""
        return {entry["name"]: entry for entry in self.entries if entry["kind"] == kind}


def read_journal(path: Path) -> Iterator[Entry]:
    """Yield the whole lines of a journal; a torn last line is left out.

    Raises:
        InputError: if there is no journal, or a line that is not the last is no entry.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise InputError(str(path), None, "no such file", "the --out folder of a run") from None
    for number, line in enumerate(lines[:-1], start=1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or "kind" not in entry:
            raise InputError(str(path), f"line {number}", "a damaged line", "an entry as JSON")
        yield entry


def _cut_torn_line(path: Path) -> None:
    """Cut off what follows the last whole line."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
