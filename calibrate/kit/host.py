"""One command on a GPU host: unpack, say what is there, work within a time limit, pack up.

The work itself is ``python -m calibrate …`` in a process of its own. Whatever happens to it, its
log and what it wrote so far are in the output folder, in few files of limited size: also while
it works, as whoever lends the host may end everything at once.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Final, Literal

from calibrate.kit.parts import MIB
from calibrate.kit.unpack import environment, unpack
from simserve.errors import InputError, reason_of

Say = Callable[[str], None]

LIMIT_S: Final = 570.0
"""Default limit: half a minute less than the ten minutes that a command may take."""
PIECE_BYTES: Final = 16 * MIB
"""The largest file that is written."""
_PACKING_S: Final = 30.0  # kept for stopping the work and for packing its results
_GRACE_S: Final = 15.0  # from the polite signal to the other one: a profile is written
_SAVE_EVERY_S: Final = 60.0  # what is there is packed so often while the work goes on

_CLOSING_S: Final = 20.0  # for what a measurement writes after its last point

# {work} is the folder of results, {limit_s} the seconds that are left for measuring. A GPU is
# asked for by name: without one a task ends, instead of taking the processor.
TASKS: Final[dict[str, tuple[str, ...]]] = {
    "check": ("calibrate", "check", "--device", "cuda"),
    "run": ("calibrate", "run", "--out", "{work}/run", "--limit-s", "{limit_s}"),
    "memory": ("calibrate", "memory", "--device", "cuda", "--out", "{work}/memory"),
    "validate": ("calibrate", "validate", "--out", "{work}/validate", "--limit-s", "{limit_s}"),
}
# What an earlier run left: a validation takes it.
_PROFILE: Final = Path("run", "profile")
_VERSIONS: Final = "calibrate.kit.versions"
_STOPPED = 124  # as timeout(1) says it
_QUICK: Final = 0  # presets of xz
_THOROUGH: Final = 6


def work(
    task: str,
    extra: Sequence[str],
    *,
    out: Path,
    kit: Path | None,
    resume: Path | None = None,
    limit_s: float = LIMIT_S,
    say: Say,
) -> int:
    """Do one of ``TASKS`` and return its exit status, 124 if it had to be stopped.

    ``out`` gets ``TASK.log`` and ``TASK.tar.xz``, in pieces if it is large. ``resume`` is such
    an archive (its first piece) of an earlier call, to go on from.

    Raises:
        InputError: if the kit, the archive or the folder cannot be used.
    """
    started = time.monotonic()
    deadline = started + limit_s - _PACKING_S
    _make(out)
    with (
        tempfile.TemporaryDirectory() as scratch,
        (out / f"{task}.log").open("w", encoding="utf-8") as log,
    ):
        tell = _both(say, log)
        results, variables = Path(scratch, "results"), dict(os.environ)
        results.mkdir()
        if kit is not None:
            unpacked = Path(tempfile.gettempdir(), "calibrate-kit")
            unpack(kit, unpacked, tell)
            variables |= environment(unpacked)
        if resume is not None:
            _extract(resume, results)
        python = [sys.executable, "-u", "-m"]
        _run([*python, _VERSIONS], variables, deadline, tell)
        command = _command(task, results, deadline - _CLOSING_S) + list(extra)
        tell(f"python -m {' '.join(command)}")
        archive = out / f"{task}.tar.xz"
        save = functools.partial(_pack, results, archive, preset=_QUICK)
        status = _run([*python, *command], variables, deadline, tell, save)
        tell(f"exit status {status} after {time.monotonic() - started:.0f} s")
        for piece in _pack(results, archive):
            tell(f"{piece.name}: {piece.stat().st_size / MIB:.2f} MiB")
    return status


def _command(task: str, results: Path, deadline: float) -> list[str]:
    left_s = max(1.0, deadline - time.monotonic())
    places = {"work": str(results), "limit_s": f"{left_s:.0f}"}
    command = [word.format_map(places) for word in TASKS[task]]
    if task == "validate" and (results / _PROFILE).is_dir():
        command += ["--profile", str(results / _PROFILE)]
    return command


def _run(
    command: Sequence[str],
    variables: dict[str, str],
    deadline: float,
    tell: Say,
    save: Callable[[], object] = lambda: None,
) -> int:
    """Run a command, tell its output line by line, and stop it and all its own at the deadline.

    ``save`` is called now and then.
    """
    process = subprocess.Popen(
        command,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    lines = process.stdout or ()
    reader = threading.Thread(target=_tell_all, args=(lines, tell), daemon=True)
    reader.start()
    try:
        status = _ended(process, deadline, save)
    except subprocess.TimeoutExpired:
        tell("the time is up: stopping")
        status = _STOPPED
        _stop(process)
    except KeyboardInterrupt:
        _stop(process)
        raise
    reader.join(_GRACE_S)
    return status


def _ended(process: subprocess.Popen[str], deadline: float, save: Callable[[], object]) -> int:
    """Return the exit status of a process that ends by the deadline.

    Raises:
        subprocess.TimeoutExpired: if it does not.
    """
    while (left_s := deadline - time.monotonic()) > _SAVE_EVERY_S:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(_SAVE_EVERY_S)
        with contextlib.suppress(OSError):  # a file that the work just renamed
            save()
    return process.wait(max(0.0, left_s))


def _stop(process: subprocess.Popen[str]) -> None:
    """Interrupt a process group, which lets it finish its journal; then end it."""
    for kind in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, kind)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)


def _tell_all(lines: Iterable[str], tell: Say) -> None:
    for line in lines:
        tell(line.rstrip("\n"))


def _both(say: Say, log: IO[str]) -> Say:
    def tell(line: str) -> None:
        say(line)
        if not log.closed:
            log.write(f"{line}\n")
            log.flush()

    return tell


def _pack(results: Path, archive: Path, preset: Literal[0, 6] = _THOROUGH) -> list[Path]:
    """Write what is in ``results``, and return the pieces; joined, they are the archive."""
    if not any(results.iterdir()):
        return []
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz", preset=preset) as tar:
        tar.add(results, arcname=".")
    content = packed.getvalue()
    pieces = []
    for number, start in enumerate(range(0, len(content), PIECE_BYTES)):
        piece = archive if number == 0 else archive.with_name(f"{archive.name}.{number}")
        half = piece.with_name(f"{piece.name}.part")
        half.write_bytes(content[start : start + PIECE_BYTES])
        half.replace(piece)
        pieces.append(piece)
    return pieces


def _extract(archive: Path, results: Path) -> None:
    """Unpack what an earlier call packed; further pieces lie beside the first."""
    try:
        content = archive.read_bytes()
        number = 1
        while (piece := archive.with_name(f"{archive.name}.{number}")).is_file():
            content += piece.read_bytes()
            number += 1
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:xz") as tar:
            tar.extractall(results, filter="data")
    except (OSError, EOFError, tarfile.TarError) as error:
        raise InputError(str(archive), None, reason_of(error), "an archive of results") from error


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(str(folder), None, error.strerror, "a folder to write to") from error
