"""The command line: what it says when something is not there, and one run from end to end."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simserve.latency.tables.profile import read_profile

ROOT = Path(__file__).resolve().parents[3]


def calibrate(*words: str, without_torch: bool = False) -> subprocess.CompletedProcess[str]:
    hide = "sys.modules['torch'] = None;" if without_torch else ""
    program = f"import sys; {hide} from calibrate.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_without_torch_one_line_says_how_to_get_it(tmp_path: Path) -> None:
    done = calibrate("run", "--plan", "cpu-smoke", "--out", str(tmp_path), without_torch=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'simserve[calibrate]'" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_help_tells_every_command_in_one_whole_line() -> None:
    done = calibrate("--help")
    assert done.returncode == 0
    commands = done.stdout.partition("Commands:")[2].strip().splitlines()
    assert len(commands) == 8
    assert all(line.endswith(".") and not line.endswith("...") for line in commands)


def test_without_torch_a_plan_can_be_looked_at() -> None:
    done = calibrate("run", "--dry-run", "--only", "mla", without_torch=True)
    assert done.returncode == 0
    assert "deepseek-v3" in done.stdout


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
def test_a_plan_for_a_gpu_says_that_there_is_none(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = calibrate("run", "--out", str(tmp_path))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no CUDA device" in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("run",), "--out"),
        (("run", "--plan", "h100", "--out", "x"), "h200-10min"),
        (("report", "nowhere"), "no such file"),
        (("profile", "nowhere"), "no such file"),
    ],
)
def test_a_mistake_costs_one_line_and_status_two(words: tuple[str, ...], told: str) -> None:
    done = calibrate(*words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert told in done.stderr
    assert done.stdout == ""


def test_help_fits_a_terminal() -> None:
    for command in ("run", "profile", "report", "check", "memory", "validate", "replay"):
        done = calibrate(command, "--help")
        assert done.returncode == 0
        assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
def test_a_cpu_is_measured_reported_and_resumed(tmp_path: Path) -> None:
    words = ("run", "--plan", "cpu-smoke", "--out", str(tmp_path))
    first = calibrate(*words, "--only", "decode", "--only", "pointwise")
    assert first.returncode == 0, first.stderr
    profile = read_profile(tmp_path / "profile")
    assert set(profile.tables) == {"attn_decode", "pointwise"}
    assert profile.gpu == "cpu"
    second = calibrate(*words, "--only", "decode", "--resume")
    assert "0 points" in second.stderr
    report = calibrate("report", str(tmp_path))
    assert report.returncode == 0
    assert max(map(len, report.stdout.splitlines())) <= 80
    fresh = calibrate(*words, "--fresh")
    assert fresh.returncode == 2


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
def test_an_interrupted_run_leaves_its_journal_and_profile(tmp_path: Path) -> None:
    program = "from calibrate.cli import main; main()"
    words = ["run", "--plan", "cpu-smoke", "--out", str(tmp_path), "--only", "pointwise"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    journal = tmp_path / "journal.jsonl"
    while not journal.exists() or '"point"' not in journal.read_text():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert process.returncode == 130
    assert "goes on from here" in err
    assert out.startswith("profile: ")
