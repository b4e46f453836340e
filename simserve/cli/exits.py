"""How a command ends: the exit status, and one line on stderr instead of a traceback.

0 is fine, 1 says that the answer is no, 2 that the input is wrong. Statuses above are those
of the shell: 130 for Ctrl-C, 141 for a reader of stdout that went away. 70 is a bug of ours.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.core import TyperGroup
from typer.exceptions import TyperException

from simserve.cli.interrupt import INTERRUPTED, leave
from simserve.errors import InputError, SimserveError, nearest_name

FINE, ANSWER_IS_NO, INPUT_IS_WRONG = 0, 1, 2
CRASHED = 70  # EX_SOFTWARE of sysexits.h

_READER_GONE = 128 + 13  # the shell's status of a command ended by SIGPIPE


class OneLineGroup(TyperGroup):
    """The group of all commands; whatever is wrong is said in one line."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line and leave the process with its exit status."""
        extra["standalone_mode"] = False
        _open_what_is_closed()
        try:
            with _interrupted_once():
                status = super().main(*args, **extra)
            sys.stdout.flush()
        except InputError as error:
            status = _say(str(error), INPUT_IS_WRONG)
        except SimserveError as error:  # a law does not hold
            status = _say(str(error), ANSWER_IS_NO)
        except TyperException as error:
            status = _say(_usage_message(error), INPUT_IS_WRONG)
        except KeyboardInterrupt:
            status = INTERRUPTED
        except BrokenPipeError:
            _drop_stdout()
            status = _READER_GONE
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            status = _say(f"{place}{error.strerror or error}", INPUT_IS_WRONG)
        if status == INTERRUPTED:  # typer says so too
            leave()
        sys.exit(status if isinstance(status, int) else FINE)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a reader that went away is handled by ``main``."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _drop_stdout()
            sys.exit(_READER_GONE)


@contextlib.contextmanager
def _interrupted_once() -> Iterator[None]:
    """Let the first Ctrl-C end the command, and nothing disturb or lament its ending.

    A terminal interrupts the whole process group, helpers of the worker pool included, and
    some shells do so twice.
    """

    def end(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        warnings.simplefilter("ignore")
        threading.excepthook = lambda _: None
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is end:  # else the process is ending
            signal.signal(signal.SIGINT, before)


def _say(message: str, status: int) -> int:
    with contextlib.suppress(OSError):
        print(f"simserve: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    return status


def _usage_message(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    message = error.format_message().rstrip(".").replace("Value error, ", "")
    wrong, possible = getattr(error, "option_name", None), getattr(error, "possibilities", None)
    if wrong and possible:
        near = nearest_name(wrong, possible) or possible[0]
        message = f"No such option {wrong!r}. Did you mean {near!r}?"
    return f"{message} (see '{context.command_path} --help')" if context else message


def _open_what_is_closed() -> None:
    """Let streams that the shell has closed (``2>&-``) be empty: Python has None for them."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115


def _drop_stdout() -> None:
    """Let the interpreter's last flush go nowhere, so that it does not complain."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
