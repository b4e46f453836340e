"""Runs are kept whole, under what was run, and whoever is killed loses nothing."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
from functools import cache
from pathlib import Path

import pytest

import simserve
from simserve.errors import InputError
from simserve.planning.plan.outcomes import Kept, Outcome, decoded, encoded
from simserve.planning.plan.store import INDEX, TABLE, OutcomeStore
from tests.planning.plan.questions import planned, planned_into, small_question, text_of

# CPU seconds in which the small question is planned, roughly: kills fall within.
PLANNING_CPU_S = 1.2


def outcome(digest: str) -> Outcome:
    return Outcome(
        digest=digest,
        requests=10,
        verdict="stable",
        steady=True,
        kept=(Kept("ttft_p95:500", 0.95, 1.0, 1.0, 0.7, 1.0, 0.5),),
        latency_ms={"ttft": {"mean": 0.1 + 0.2}},
        requests_per_s=1 / 3,
        input_tokens_per_s=2e-9,
        output_tokens_per_s=5.0,
    )


@cache
def undisturbed() -> str:
    return text_of(planned(small_question()))


def test_an_outcome_comes_back_as_it_was() -> None:
    one = outcome("a" * 64)
    assert decoded(encoded(one)) == one
    assert encoded(decoded(encoded(one))) == encoded(one)


def test_what_was_put_is_there_again(tmp_path: Path) -> None:
    digests = [f"{number:064d}" for number in range(1200)]
    store = OutcomeStore(tmp_path / "runs")
    for digest in digests:
        store.put(outcome(digest))
    store.close()
    again = OutcomeStore(tmp_path / "runs", resume=True)
    found = again.get_all([*digests, "another"])
    assert list(found) == digests
    assert found[digests[7]] == outcome(digests[7])
    again.close()


def test_runs_of_another_version_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = OutcomeStore(tmp_path)
    store.put(outcome("d"))
    store.close()
    monkeypatch.setattr(simserve, "__version__", "0.0.0-other")
    again = OutcomeStore(tmp_path, resume=True)
    assert again.get("d") is None
    again.close()


def test_runs_are_not_used_again_unless_that_is_asked(tmp_path: Path) -> None:
    store = OutcomeStore(tmp_path)
    store.put(outcome("d"))
    store.close()
    with pytest.raises(InputError, match="got 1 finished runs, allowed: --resume to use them"):
        OutcomeStore(tmp_path)


@pytest.mark.parametrize("content", [b"not a database, but long enough to be read" * 9, b""])
def test_a_file_that_is_no_index_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / INDEX).write_bytes(content)
    if not content:  # SQLite makes an empty file one
        OutcomeStore(tmp_path).close()
        return
    with pytest.raises(InputError, match="file is not a database") as caught:
        OutcomeStore(tmp_path, resume=True)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    store = OutcomeStore(tmp_path)
    database = store._database
    assert database is not None
    # The disk of this file has room for a few pages; SQLite itself then says that it is full.
    database.execute("pragma max_page_count = 6")
    put: list[str] = []
    with pytest.raises(InputError, match="is full, allowed: a place with room") as caught:
        for number in range(1000):
            store.put(outcome(f"{number:064d}"))
            put.append(f"{number:064d}")
    assert "\n" not in str(caught.value) and "--resume" in str(caught.value)
    store.close()
    assert len(put) > 5
    again = OutcomeStore(tmp_path, resume=True)
    assert list(again.get_all(put)) == put
    again.close()


def test_a_plan_on_a_full_disk_goes_on_where_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = OutcomeStore._opened

    def small_disk(self: OutcomeStore, index: Path) -> sqlite3.Connection:
        database = opened(self, index)
        database.execute("pragma max_page_count = 5")
        return database

    with monkeypatch.context() as patch:
        patch.setattr(OutcomeStore, "_opened", small_disk)
        with pytest.raises(InputError, match="is full"):
            planned_into(tmp_path)
    assert rows_in(tmp_path) > 2
    assert planned_into(tmp_path) == undisturbed()


def test_without_a_folder_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    undisturbed()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="--resume: allowed: only together with --store"):
        OutcomeStore(None, resume=True)


def test_a_resumed_plan_runs_nothing_twice_and_leaves_a_table(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    assert planned_into(tmp_path) == undisturbed()
    before = rows_in(tmp_path)
    table = pq.read_table(tmp_path / TABLE)
    assert table.num_rows == before
    assert {"scenario_digest", "p99_ttft_ms", "kept ttft_p95:500"} <= set(table.column_names)
    with forbidden_runs():
        assert planned_into(tmp_path) == undisturbed()
    assert rows_in(tmp_path) == before


def test_ten_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    assert survive_kills(tmp_path, kills=10, seed=random.randrange(10**6)) >= 10


@pytest.mark.slow
def test_a_hundred_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    assert survive_kills(tmp_path, kills=100, seed=random.randrange(10**6)) >= 100


def survive_kills(folder: Path, kills: int, seed: int) -> int:
    """Plan again and again, killed at random moments, until there were ``kills``.

    Every plan that comes to its end says what an undisturbed one does, and no kill takes a row.
    """
    rng = random.Random(seed)
    wanted = undisturbed()
    killed = rounds = 0
    while killed < kills:
        store = folder / f"round-{rounds}"
        rows = 0
        while plan_until_killed(store, rng.uniform(0.01, PLANNING_CPU_S / 4)):
            killed += 1
            now = rows_in(store)
            assert now >= rows, f"seed {seed}: a kill took {rows - now} rows"
            rows = now
        assert (store / "answer.json").read_text() == wanted, f"seed {seed}"
        rounds += 1
    return killed


def plan_until_killed(folder: Path, cpu_s: float) -> bool:
    """Plan in a process of its own that the kernel ends after ``cpu_s`` of its processor time.

    SIGPROF ends a process as SIGKILL does: nothing is closed, flushed or cleaned up. Counting
    the process's own time makes the moment independent of what else the machine does.
    """
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_PROF, cpu_s)
            answer = planned_into(folder)
            signal.setitimer(signal.ITIMER_PROF, 0)
            (folder / "answer.json").write_text(answer)
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGPROF
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def rows_in(folder: Path) -> int:
    if not (folder / INDEX).exists():
        return 0
    with contextlib.closing(sqlite3.connect(folder / INDEX)) as database:
        try:
            return int(database.execute("select count(*) from outcomes").fetchone()[0])
        except sqlite3.OperationalError:  # killed before there was a table
            return 0


@contextlib.contextmanager
def forbidden_runs():  # type: ignore[no-untyped-def]
    from simserve.planning.plan import backends

    def nothing_runs(scenario: object) -> Outcome:
        raise AssertionError(f"run again: {scenario}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "outcome_of", nothing_runs)
        yield
