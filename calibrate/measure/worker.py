"""The process in which kernels run: it may crash or hang, its parent then starts another.

It reads one request per line and answers with one line. What libraries print goes to stderr.
Run as ``python -m calibrate.measure.worker MODULE:FUNCTION CONFIG``.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from simserve.errors import one_line, shortened

# prctl(2): the signal that a process gets when its parent dies, also by SIGKILL.
_PR_SET_PDEATHSIG = 1
_LONGEST_ERROR = 300


class Bench(Protocol):
    """What measures."""

    def facts(self) -> dict[str, Any]:
        """Return the device and the software."""
        ...

    def measure(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns of one point, with its ``status``."""
        ...

    def healthy(self) -> bool:
        """Return whether a further point can be measured in this process."""
        ...


def serve(open_bench: Callable[[Mapping[str, Any]], Bench], config: Mapping[str, Any]) -> None:
    """Answer requests until there are no more, or the device is lost."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(answer: Mapping[str, Any]) -> None:
        channel.write(json.dumps(answer) + "\n")
        channel.flush()

    try:
        bench = open_bench(config)
        say({"facts": bench.facts()})
    except Exception as error:  # noqa: BLE001 (whatever it is, the parent must know)
        say({"error": _told(error)})
        return
    for line in sys.stdin:
        try:
            answer = bench.measure(json.loads(line))
        except Exception as error:  # noqa: BLE001 (a kernel may raise anything)
            answer = {"status": "failed", "error": _told(error)}
            if not bench.healthy():
                say({**answer, "lost": True})
                return
        say(answer)


def _told(error: Exception) -> str:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return shortened(one_line(f"{type(error).__name__}: {first}"), _LONGEST_ERROR)


def _die_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)


def main(arguments: list[str]) -> None:
    """Serve the bench that the arguments name."""
    name, config = arguments
    faulthandler.enable()  # a crash, or SIGABRT from the parent, leaves a traceback in the log
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # and no gigabytes in the folder
    described = json.loads(config)
    _die_with_parent(int(described["parent"]))
    module, function = name.split(":")
    serve(getattr(importlib.import_module(module), function), described)


if __name__ == "__main__":
    main(sys.argv[1:])
