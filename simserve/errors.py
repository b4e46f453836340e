"""The two ways a command ends badly: the input is wrong, or the answer is no.

An ``InputError`` is one sentence, *where: which: got what, allowed: what*, built
here and nowhere else, so that every complaint of the program looks alike. The
command line prints it without a traceback and exits with status 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SimserveError(Exception):
    """Anything that simserve raises on purpose."""


class InputError(SimserveError):
    """A value that the user gave and that cannot be used (exit status 2).

    ``where`` is a file or an option, ``which`` the key inside it (dotted, or a row),
    ``got`` the offending value, ``allowed`` what would have been accepted.
    """

    def __init__(
        self, where: str, which: str | None = None, got: object = None, allowed: str | None = None
    ) -> None:
        self.where, self.which, self.got, self.allowed = where, which, got, allowed
        super().__init__(where, which, got, allowed)

    def __str__(self) -> str:
        parts = [self.where]
        if self.which:
            parts.append(self.which)
        detail = []
        if self.got is not None:
            detail.append(f"got {_short(self.got)}")
        if self.allowed:
            detail.append(f"allowed: {self.allowed}")
        if detail:
            parts.append(", ".join(detail))
        return " ".join(": ".join(parts).split())


class DoesNotFitError(InputError):
    """A model that the given GPUs cannot hold."""


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to ``name``, or None if none is close."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return found[0] if found else None


def unknown_name(where: str, which: str, got: str, known: Iterable[str]) -> InputError:
    """Return the error for a name that is not in a catalogue, with the nearest one.

    A long catalogue is not recited: its nearest names and their number will do.
    """
    names = sorted(known)
    near = nearest_name(got, names)
    hint = f"; did you mean {near}?" if near else ""
    if len(names) > _MOST_NAMES:
        close = difflib.get_close_matches(got, names, n=_MOST_NAMES // 2, cutoff=0.0)
        return InputError(where, which, got, f"{', '.join(close)}, … ({len(names)} in all){hint}")
    return InputError(where, which, got, ", ".join(names) + hint)


_MOST_NAMES = 12
_LONGEST_SHOWN = 160


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"
