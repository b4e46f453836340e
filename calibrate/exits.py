"""How a command ends: one line on stderr instead of a traceback, and an exit status.

0 is fine, 1 says that the answer is no, 2 that the input or the machine is not right.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import sys
import threading
from typing import Any

from typer.core import TyperGroup
from typer.exceptions import TyperException

from simserve.errors import InputError, SimserveError

FINE, ANSWER_IS_NO, INPUT_IS_WRONG = 0, 1, 2
_INTERRUPTED, _READER_GONE = 128 + signal.SIGINT, 128 + signal.SIGPIPE


class OneLineGroup(TyperGroup):
    """The group of all commands; whatever is wrong is said in one line."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line and leave the process with its exit status."""
        extra["standalone_mode"] = False
        _end_politely()
        try:
            status = super().main(*args, **extra)
            sys.stdout.flush()
        except InputError as error:
            status = _say(str(error), INPUT_IS_WRONG)
        except SimserveError as error:
            status = _say(str(error), ANSWER_IS_NO)
        except TyperException as error:
            status = _say(error.format_message().rstrip("."), INPUT_IS_WRONG)
        except KeyboardInterrupt:
            status = _INTERRUPTED
        except BrokenPipeError:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = _READER_GONE
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            status = _say(f"{place}{error.strerror or error}", INPUT_IS_WRONG)
        sys.exit(status if isinstance(status, int) else FINE)


def _end_politely() -> None:
    """Let a command tidy up when it is asked to end, also one that a shell started with ``&``."""
    if threading.current_thread() is threading.main_thread():
        for kind in (signal.SIGINT, signal.SIGTERM):
            signal.signal(kind, signal.default_int_handler)


def need_torch() -> None:
    """Refuse to go on without torch.

    Raises:
        InputError: saying how to get it.
    """
    if importlib.util.find_spec("torch") is None:
        raise InputError("torch", None, "not installed", "pip install 'simserve[calibrate]'")


def need_cuda(wanted: str) -> None:
    """Refuse to go on without a CUDA device.

    Raises:
        InputError: naming what needs one, and what does not.
    """
    import torch

    if not torch.cuda.is_available():
        allowed = "a machine with an NVIDIA GPU; --plan cpu-smoke runs anywhere, --dry-run too"
        raise InputError(wanted, None, "no CUDA device", allowed)


def _say(message: str, status: int) -> int:
    with contextlib.suppress(OSError):
        print(f"calibrate: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    return status
