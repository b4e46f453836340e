"""Where a plan keeps its runs: an SQLite file, one row a run, written as soon as it is finished.

Rows stand under the digest of the scenario that was run, the version of simserve and that of the
format, so that a row is never taken for another. A process that is killed at any instant leaves
a file with every row that was put before; ``--resume`` goes on from there.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import simserve
from simserve.errors import InputError
from simserve.planning.destinations import check_directory_destination
from simserve.planning.plan.outcomes import FORMAT, Outcome, decoded, encoded, flat_rows
from simserve.results.whole_files import make_directory, write_whole

INDEX, TABLE = "outcomes.sqlite", "outcomes.parquet"
_CREATE = """
create table if not exists outcomes (
    digest text not null, version text not null, format integer not null,
    outcome blob not null, primary key (digest, version, format)
) without rowid
"""
_MOST_VARIABLES = 500  # of one statement; SQLite allows 999 everywhere


class OutcomeStore:
    """The runs in ``folder``; without one, they are kept in memory."""

    def __init__(self, folder: Path | None, *, resume: bool = False) -> None:
        self.folder = folder
        self._known: dict[str, Outcome] = {}
        self._database: sqlite3.Connection | None = None
        if folder is None:
            if resume:
                raise InputError("--resume", None, None, "only together with --store")
            return
        check_directory_destination("--store", folder)
        index = folder / INDEX
        if index.exists() and not resume and (rows := self._count(index)):
            raise InputError(
                str(index), None, f"{rows} finished runs", "--resume to use them, or remove it"
            )
        make_directory(folder)
        self._database = self._opened(index)

    def get(self, digest: str) -> Outcome | None:
        """Return the run with this digest; None if it is not there."""
        return self.get_all([digest]).get(digest)

    def get_all(self, digests: Sequence[str]) -> dict[str, Outcome]:
        """Return the runs that are there, by digest."""
        missing = [one for one in digests if one not in self._known]
        if self._database is not None:
            for at in range(0, len(missing), _MOST_VARIABLES):
                part = missing[at : at + _MOST_VARIABLES]
                marks = ",".join("?" * len(part))
                query = (
                    "select digest, outcome from outcomes where version = ? and format = ? "
                    f"and digest in ({marks})"
                )
                with self._explained():
                    rows = self._database.execute(query, (*_key(), *part)).fetchall()
                self._known |= {digest: decoded(content) for digest, content in rows}
        return {one: self._known[one] for one in digests if one in self._known}

    def put(self, outcome: Outcome) -> None:
        """Keep a run, whole or not at all.

        Raises:
            InputError: if it cannot be written; what was put before is there.
        """
        self._known[outcome.digest] = outcome
        if self._database is None:
            return
        with self._explained(), self._database:
            self._database.execute(
                "insert or replace into outcomes values (?, ?, ?, ?)",
                (outcome.digest, *_key(), encoded(outcome)),
            )

    def write_table(self, outcomes: Sequence[Outcome]) -> None:
        """Write the runs as one Parquet table beside the index, whole or not at all."""
        if self.folder is None:
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = flat_rows(outcomes)
        names = list(dict.fromkeys(name for row in rows for name in row))
        table = pa.table({name: [row.get(name) for row in rows] for name in names})
        write_whole(self.folder / TABLE, lambda temporary: pq.write_table(table, str(temporary)))

    def close(self) -> None:
        """Let go of the file."""
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def _count(self, index: Path) -> int:
        with self._explained(), contextlib.closing(sqlite3.connect(index)) as database:
            names = database.execute("select name from sqlite_master where name = 'outcomes'")
            if names.fetchone() is None:
                return 0
            return int(database.execute("select count(*) from outcomes").fetchone()[0])

    def _opened(self, index: Path) -> sqlite3.Connection:
        with self._explained():
            database = sqlite3.connect(index)
            # A killed process loses nothing with the log of changes, and no run waits for a disk.
            database.execute("pragma journal_mode = wal")
            database.execute("pragma synchronous = normal")
            database.execute(_CREATE)
            database.commit()
        return database

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            allowed = "a place with room; what was finished before is kept, --resume goes on"
            where = str(self.folder / INDEX) if self.folder is not None else INDEX
            raise InputError(where, None, str(error), allowed) from error


def _key() -> tuple[str, int]:
    return simserve.__version__, FORMAT
