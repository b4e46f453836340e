"""The parent's side of a worker: asks, waits no longer than a limit, kills, starts another."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simserve.errors import InputError

# One thread on a CPU, whatever library asks: two do not repeat (22-118 % spread on two cores).
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_STOP_S = 3.0
# From a signal that makes a hung process tell where it hangs, to the one that ends it.
_TELL_S = 1.0
# A process that a GPU's driver holds may outlive its end; then it is left behind.
_END_S = 10.0
_ROOT = Path(__file__).resolve().parents[2]


class WorkerGoneError(Exception):
    """The worker crashed or hung while it measured a point; it is not running any more."""


class WorkerHungError(WorkerGoneError):
    """The worker did not answer in time, and was ended."""


class Worker:
    """A worker process that is started when it is first needed."""

    def __init__(self, bench: str, config: Mapping[str, Any], log: Path, start_limit_s: float):
        self._bench, self._config, self._log = bench, config, log
        self._start_limit_s = start_limit_s
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""
        self.facts: dict[str, Any] = {}
        self.starts = 0

    def start(self) -> dict[str, Any]:
        """Start the process, unless it runs, and return its facts.

        Raises:
            InputError: if it cannot start, with its own reason.
        """
        if self._process is not None:
            return self.facts
        config = json.dumps({**self._config, "parent": os.getpid()})
        command = [sys.executable, "-m", "calibrate.measure.worker", self._bench, config]
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        env = os.environ | {"PYTHONPATH": path}
        if self._config.get("device") == "cpu":
            env |= dict.fromkeys(_ONE_THREAD, "1")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=env,
                start_new_session=True,  # Ctrl-C is for the parent
            )
        self.starts += 1
        try:
            answer = self._answer(self._start_limit_s)
        except WorkerGoneError as error:
            raise InputError(
                "calibrate", "worker", f"{error} at its start", f"see {self._log}"
            ) from None
        if "error" in answer:
            self.stop()
            raise InputError("calibrate", "worker", answer["error"], "a device that torch can use")
        self.facts = answer["facts"]
        return self.facts

    def ask(self, request: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        """Return the answer to one request; ``lost`` in it says that the process is gone.

        Raises:
            WorkerGoneError: if the process crashed, or took longer than ``limit_s``.
            InputError: if it cannot be started again.
        """
        self.start()
        process = self._process
        if process is None or process.stdin is None:
            raise WorkerGoneError("not running")
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            raise WorkerGoneError(self._end("crashed")) from None
        answer = self._answer(limit_s)
        if answer.get("lost"):
            self.stop()
        return answer

    def stop(self) -> None:
        """End the process, gently first."""
        process = self._process
        if process is None:
            return
        with contextlib.suppress(OSError):
            if process.stdin:
                process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        self._end("stopped")

    def _answer(self, limit_s: float) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdout is None:
            raise WorkerGoneError("not running")
        deadline = time.monotonic() + limit_s
        source = process.stdout.fileno()
        while b"\n" not in self._unread:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([source], [], [], left_s)[0]:
                raise WorkerHungError(self._end(f"hung: no answer within {limit_s:g} s"))
            chunk = os.read(source, 1 << 16)
            if not chunk:
                raise WorkerGoneError(self._end("crashed"))
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def _end(self, how: str) -> str:
        """End the process and return what became of it; one that hung first says where."""
        process, self._process, self._unread = self._process, None, b""
        if process is None:
            return how
        if how.startswith("hung"):
            self._signal(process, signal.SIGABRT, _TELL_S)
            with contextlib.suppress(OSError):  # and what it started
                os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        if process.returncode is None:
            self._signal(process, signal.SIGKILL, _END_S)
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        code = process.returncode
        if how == "crashed" and code is not None:
            return f"crashed: signal {-code}" if code < 0 else f"crashed: exit status {code}"
        return how

    @staticmethod
    def _signal(process: subprocess.Popen[bytes], number: int, wait_s: float) -> None:
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)
