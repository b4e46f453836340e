from __future__ import annotations

import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from calibrate.kit import host
from calibrate.kit.__main__ import main
from simserve.errors import InputError
from tests.calibrate.kit.packages import tiny_world


@pytest.fixture(autouse=True)
def small_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The work is a program of a few lines, and little time is kept for packing."""
    root = Path(__file__).parents[3]
    monkeypatch.chdir(root)
    monkeypatch.setattr(host, "TASKS", {"run": ("tests.calibrate.kit.worker", "{work}")})
    monkeypatch.setattr(host, "_VERSIONS", "platform")
    monkeypatch.setattr(host, "_PACKING_S", 0.0)
    monkeypatch.setattr(host, "_CLOSING_S", 0.0)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))


def worked(out: Path, how: str, limit_s: float = 30.0, **extra: Path | None) -> tuple[int, str]:
    kit = extra.pop("kit", None)
    said: list[str] = []
    status = host.work("run", [how], out=out, kit=kit, limit_s=limit_s, say=said.append, **extra)
    assert (out / "run.log").read_text().splitlines() == said
    return status, "\n".join(said)


def members(out: Path) -> list[str]:
    with tarfile.open(out / "run.tar.xz") as archive:
        return sorted(name.removeprefix("./") for name in archive.getnames() if name != ".")


@pytest.mark.parametrize(("how", "status"), [("good", 0), ("fail", 3)])
def test_results_and_log_are_there_however_it_ends(how: str, status: int, tmp_path: Path) -> None:
    ended, said = worked(tmp_path / "out", how)
    assert (ended, members(tmp_path / "out")) == (status, [f"{how}.bin"])
    assert f"exit status {status} after" in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["run.log", "run.tar.xz"]
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.slow  # the limit must be long enough for a busy machine to start the work
def test_work_that_takes_too_long_is_interrupted_and_packed(tmp_path: Path) -> None:
    status, said = worked(tmp_path / "out", "hang", limit_s=15.0)
    assert status == 124
    assert "interrupted" in said
    assert members(tmp_path / "out") == ["hang.bin", "journal"]


def test_what_is_there_is_packed_while_the_work_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever lends a host may end all its processes at once."""
    monkeypatch.setattr(host, "_SAVE_EVERY_S", 0.05)
    seen: list[list[str]] = []
    pack = host._pack

    def noted(results: Path, archive: Path, **quick: Any) -> list[Path]:
        pieces = pack(results, archive, **quick)
        if pieces and quick:
            seen.append(members(archive.parent))
        return pieces

    monkeypatch.setattr(host, "_pack", noted)
    status, _ = worked(tmp_path / "out", "slow")
    assert status == 0
    assert seen[0] == ["slow.bin"]
    assert members(tmp_path / "out") == ["last", "slow.bin"]
    assert not list((tmp_path / "out").glob("*.part"))


def test_large_results_come_in_pieces_that_resume_joins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(host, "PIECE_BYTES", 20_000)
    worked(tmp_path / "out", "good")
    pieces = sorted(path.name for path in (tmp_path / "out").glob("run.tar.xz*"))
    assert pieces[:2] == ["run.tar.xz", "run.tar.xz.1"]
    assert all((tmp_path / "out" / piece).stat().st_size <= 20_000 for piece in pieces)
    _, said = worked(tmp_path / "more", "fail", resume=tmp_path / "out" / "run.tar.xz")
    assert "earlier: good.bin" in said


def test_the_work_finds_the_unpacked_kit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from calibrate.kit.collect import collect

    tiny_world(monkeypatch)
    collect(tmp_path / "kit", modules=None, say=lambda _: None)
    _, said = worked(tmp_path / "out", "good", kit=tmp_path / "kit")
    assert f"kit: {tmp_path / 'scratch' / 'calibrate-kit'}" in said


def test_an_archive_that_is_none_costs_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.tar.xz").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"broken\.tar\.xz: .*an archive of results"):
        worked(tmp_path / "out", "good", resume=tmp_path / "broken.tar.xz")


def test_what_follows_two_dashes_is_passed_on(tmp_path: Path) -> None:
    command = ["host", "run", "--out", str(tmp_path / "out"), "--no-kit", "--", "fail", "--kit"]
    assert main(command) == 3
    assert members(tmp_path / "out") == ["fail.bin"]


def test_every_task_is_a_command_that_calibrate_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option of a task is one of its command; paths and seconds are filled in."""
    pytest.importorskip("torch")
    from calibrate.cli import click_command

    monkeypatch.undo()
    for task in host.TASKS:
        module, name, *words = host._command(task, Path("/results"), time.monotonic() + 100)
        command = click_command().commands[name]
        options = {each for option in command.params for each in option.opts}
        assert module == "calibrate"
        assert {word for word in words if word.startswith("--")} <= options
        assert not any("{" in word for word in words)
        assert all(word in ("99", "100") for word in words if word.isdigit())


def test_a_validation_takes_the_profile_of_an_earlier_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.undo()
    assert "--profile" not in host._command("validate", tmp_path, 0.0)
    (tmp_path / "run" / "profile").mkdir(parents=True)
    *_, option, value = host._command("validate", tmp_path, 0.0)
    assert (option, value) == ("--profile", str(tmp_path / "run" / "profile"))
