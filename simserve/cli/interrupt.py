"""How a command ends on Ctrl-C, even while it is still being imported: quietly, with 130."""

from __future__ import annotations

import signal
import sys

TYPE_CHECKING = False  # as typing's, which takes a moment to import
if TYPE_CHECKING:
    from typing import NoReturn

INTERRUPTED = 128 + signal.SIGINT
"""The shell's status of a command that was ended by Ctrl-C."""


def leave() -> NoReturn:
    """End the process; further interrupts do not disturb its ending."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("simserve: interrupted", file=sys.stderr)  # noqa: T201
    sys.exit(INTERRUPTED)
