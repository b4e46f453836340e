"""A slice of ``python -m tests.fuzz``, the harness itself, and inputs that are simply huge."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from simserve.errors import InputError
from tests.fuzz import cases
from tests.fuzz.cases import LOADED, MOST_BYTES, REFUSED, Outcome, made, tried
from tests.fuzz.seeds import KINDS, seeds

ROOT = Path(__file__).resolve().parents[2]
SEED, INPUTS = 2026, 2000


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_load_or_are_refused_in_one_short_line(kind: str, tmp_path: Path) -> None:
    print(f"seed {SEED}")  # noqa: T201 (random tests print their seed)
    outcomes = [tried(SEED, kind, number, tmp_path) for number in range(INPUTS // len(KINDS))]
    assert [one for one in outcomes if one.finding is not None] == []
    words = [one.word for one in outcomes]
    assert set(words) == {LOADED, REFUSED}
    assert words.count(REFUSED) > words.count(LOADED) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_good_files_load(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "damaged", lambda content, rng, others: content)
    for seed in seeds(kind):
        monkeypatch.setattr(cases, "seeds", lambda kind, only=seed: (only,))
        # The role of a trace's reader is drawn; any that is not the file's own may refuse it.
        words = {tried(SEED, kind, number, tmp_path).word for number in range(12)}
        assert LOADED in words and words <= {LOADED, REFUSED}, seed.role
        assert kind == "trace" or words == {LOADED}, seed


def test_an_input_is_the_same_whenever_it_is_made() -> None:
    for kind in KINDS:
        assert made(1, kind, 5)[:2] == made(1, kind, 5)[:2]
        assert made(1, kind, 5)[1] != made(2, kind, 5)[1]


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (KeyError("x"), "exception"),
        (MemoryError(), "exception"),
        (InputError("f", None, None, "a" * 900), REFUSED),
        (InputError("f\x1b[31m", None, "a\nb", "c"), REFUSED),
    ],
)
def test_what_a_loader_raises_is_judged(
    error: Exception, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "load", _raising(error))
    assert tried(0, "yaml", 0, tmp_path).word == word


def test_a_hang_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "LONGEST_S", 0.05)
    monkeypatch.setattr(cases, "load", _endless)
    assert tried(0, "yaml", 0, tmp_path).word == "hang"


def _raising(error: Exception) -> object:
    def load(*_: object) -> None:
        raise error

    return load


def _endless(*_: object) -> None:
    while True:
        pass


def test_the_command_writes_each_finding_as_a_file(tmp_path: Path) -> None:
    from tests.fuzz.__main__ import Summary

    summary = Summary(SEED, tmp_path / "found")
    summary.add(3, Outcome("yaml", "exception", "KeyError: 'x'", "exception KeyError a.py:1"))
    summary.add(8, Outcome("yaml", "exception", "KeyError: 'x'", "exception KeyError a.py:1"))
    summary.add(9, Outcome("yaml", LOADED))
    [content, note] = sorted((tmp_path / "found").iterdir())
    assert content.read_bytes() == made(SEED, "yaml", 3)[1]
    assert "KeyError: 'x'" in note.read_text()
    assert "3 inputs" in summary.text() and "1 findings" in summary.text()


# --- huge inputs ---

KEYS = 1_000_000
TRACE_BYTES = 10**9
CHILD = """
import re, sys
from pathlib import Path
from simserve.errors import InputError
try:
    if sys.argv[1] == "yaml":
        from simserve.inputs.scenario import load_scenario
        load_scenario(sys.argv[2])
    else:
        from simserve.traffic.trace_formats import read_trace
        print(len(read_trace(sys.argv[2]).requests))
except InputError as error:
    print(error)
status = Path("/proc/self/status").read_text()
print(int(re.search(r"VmHWM:\\s*(\\d+) kB", status)[1]) * 1024)
"""


ON_LINUX = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="memory is read from /proc, which Linux has"
)


def read_in_child(kind: str, path: Path) -> tuple[str, int]:
    """Return what reading the file gave, and the most memory that it took."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, kind, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    told, peak_bytes = done.stdout.splitlines()
    return told, int(peak_bytes)


@ON_LINUX
def test_a_yaml_file_of_a_million_keys_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text("".join(f"k{i}: {i}\n" for i in range(KEYS)))
    told, peak_bytes = read_in_child("yaml", path)
    assert "put requests into a JSONL or CSV trace" in told and len(told) < 400
    assert peak_bytes < MOST_BYTES // 4


@ON_LINUX
def test_the_most_keys_that_a_file_can_hold_are_refused_by_the_first(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text("workload:\n" + "".join(f"  k{i}: 1\n" for i in range(150_000)))
    told, peak_bytes = read_in_child("yaml", path)
    assert "workload.k0: got an unknown key" in told and len(told) < 400
    assert peak_bytes < MOST_BYTES


JSON_ROW = '{{"timestamp": {}.25, "input_length": 100, "output_length": 20}}\n'


@ON_LINUX
@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "row", "most_bytes"),
    [
        ("", JSON_ROW, TRACE_BYTES),
        ("arrival_s,prompt_tokens,output_tokens\n", "{}.25,1000,200\n", TRACE_BYTES * 8 // 5),
    ],
    ids=["JSONL", "CSV"],
)
def test_a_trace_of_a_gigabyte_loads_in_bounded_memory(
    head: str, row: str, most_bytes: int, tmp_path: Path
) -> None:
    path, rows = tmp_path / "trace", 0
    with path.open("w") as file:
        file.write(head)
        while file.tell() < TRACE_BYTES:
            file.write("".join(row.format(i // 20) for i in range(rows, rows + 100_000)))
            rows += 100_000
    told, peak_bytes = read_in_child("trace", path)
    path.unlink()
    assert told == str(rows)
    assert peak_bytes < most_bytes
