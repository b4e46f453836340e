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
        parts = [shortened(one_line(self.where), _LONGEST_PLACE)]
        if self.which:
            parts.append(shortened(one_line(self.which), _LONGEST_SHOWN))
        detail = []
        if self.got is not None:
            detail.append(f"got {_short(self.got)}")
        if self.allowed:
            room = _LONGEST_MESSAGE - sum(map(len, (*parts, *detail))) - _LONGEST_GLUE
            detail.append(f"allowed: {shortened(one_line(self.allowed), room)}")
        if detail:
            parts.append(", ".join(detail))
        return ": ".join(parts)


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
    return InputError(where, which, got, known_names(got, sorted(known)))


def known_names(got: str, known: Iterable[str]) -> str:
    """Return which names are known, and the one nearest to ``got``, in words."""
    names = list(known)
    near = nearest_name(got, names)
    hint = f"; did you mean {near}?" if near else ""
    if len(names) <= _MOST_NAMES:
        return ", ".join(names) + hint
    shown = _NAMES_BESIDE_HINT if near else _MOST_NAMES // 2
    close = difflib.get_close_matches(got, names, n=shown, cutoff=0.0)
    return f"{', '.join(close)}, … ({len(names)} in all){hint}"


def one_line(text: str) -> str:
    """Return ``text`` as one line that a terminal can show: no breaks, no control characters.

    Text from a damaged file may hold escape sequences, or halves of characters that cannot
    be printed at all.
    """
    flat = " ".join(text.split())
    if flat.isprintable():
        return flat
    return "".join(one if one.isprintable() else _escaped(one) for one in flat)


def reason_of(error: BaseException) -> str:
    """Return what an exception says, in words: of a missing key or file, its name."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, KeyError) and error.args:
        return f"no {error.args[0]!s}"
    return str(error) or type(error).__name__


def shortened(text: str, most: int) -> str:
    """Return ``text`` in at most ``most`` characters; what is left out is in the middle."""
    if len(text) <= most:
        return text
    tail = most // 3
    return f"{text[: most - tail - 1]}…{text[len(text) - tail :]}"


_MOST_NAMES, _NAMES_BESIDE_HINT = 12, 3
_LONGEST_SHOWN = 80
_LONGEST_PLACE = 120
# About five lines of a terminal: the last resort; most messages fill one or two.
_LONGEST_MESSAGE = 400
_LONGEST_GLUE = len(": ") * 2 + len(", allowed: ")


def _short(value: object) -> str:
    if isinstance(value, bytes):
        text = value[: 2 * _LONGEST_SHOWN].decode(errors="backslashreplace")
    else:
        plain = isinstance(value, str) and " ".join(value.split()) == value
        text = str(value) if plain else repr(value)  # quotes show blanks at its ends
    text = one_line(text[: 2 * _LONGEST_SHOWN])
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
