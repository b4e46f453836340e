"""Splits shell text into commands and words, as a POSIX shell does, and runs nothing.

Quotes, line continuations, comments, operators and redirections are understood. Variables and
substitutions are kept as they stand: simserve does not know what the shell would put there.
"""

from __future__ import annotations

import re

from simserve.errors import InputError

_BLANKS = " \t"
_OPERATORS = ";|&()\n"
_CLOSING = {"$(": ")", "${": "}", "`": "`"}
_BLANK_AFTER_BACKSLASH = re.compile(r"\\[ \t]+\n")


def split_commands(text: str, where: str) -> list[list[str]]:
    """Return the commands in ``text``, each as its words; redirections are left out.

    Raises:
        InputError: for a quote or substitution that does not end, or a here-document.
    """
    text = text.replace("\r\n", "\n")
    if _BLANK_AFTER_BACKSLASH.search(text):
        raise InputError(where, None, "a blank after a backslash", "a backslash that ends its line")
    return _Splitter(text, where).commands()


class _Splitter:
    """Goes through the text once; ``word`` is None between words."""

    def __init__(self, text: str, where: str) -> None:
        self.text, self.where = text, where
        self.at = 0
        self.word: str | None = None
        self.words: list[str] = []
        self.done: list[list[str]] = []
        self.next_is_target = False

    def commands(self) -> list[list[str]]:
        while self.at < len(self.text):
            self._step(self.text[self.at])
        self._end_command()
        return self.done

    def _step(self, char: str) -> None:
        pair = self.text[self.at : self.at + 2]
        if char == "\\":
            if pair != "\\\n":
                self._add(pair[1:])
            self.at += 2
        elif char == "'":
            self._add(self._until("'", self.at + 1))
        elif char == '"':
            self._double_quoted()
        elif pair in _CLOSING or char in _CLOSING:
            self._substitution(pair if pair in _CLOSING else char)
        elif char == "#" and self.word is None:
            end = self.text.find("\n", self.at)
            self.at = len(self.text) if end < 0 else end
        elif char in "<>" or pair == "&>":
            self._redirection(pair)
        elif char in _OPERATORS:
            self._end_command()
            self.at += 1
        elif char in _BLANKS:
            self._end_word()
            self.at += 1
        else:
            self._add(char)
            self.at += 1

    def _add(self, text: str) -> None:
        self.word = (self.word or "") + text

    def _until(self, closing: str, start: int) -> str:
        """Return the text from ``start`` to ``closing``, and go on behind it."""
        end = self.text.find(closing, start)
        if end < 0:
            got = f"no {closing} that ends what {self.text[self.at : self.at + 20]!r} begins"
            raise InputError(self.where, None, got, "a whole line")
        self.at = end + len(closing)
        return self.text[start:end]

    def _double_quoted(self) -> None:
        start, self.at = self.at, self.at + 1
        self._add("")
        while self.at < len(self.text):
            char = self.text[self.at]
            following = self.text[self.at + 1 : self.at + 2]
            if char == '"':
                self.at += 1
                return
            if char == "\\" and following and following in '"\\$`\n':
                self._add("" if following == "\n" else following)
                self.at += 2
            else:
                self._add(char)
                self.at += 1
        self.at = start
        self._until('"', len(self.text))

    def _substitution(self, opening: str) -> None:
        inside = self._until(_CLOSING[opening], self.at + len(opening))
        self._add(opening + inside + _CLOSING[opening])

    def _redirection(self, pair: str) -> None:
        if pair == "<<":
            raise InputError(self.where, None, "<<", "the command without a here-document")
        if self.word is not None and self.word.isdigit():
            self.word = None
        self._end_word()
        self.at += 1
        while self.text[self.at : self.at + 1] in (">", "&", "|"):
            self.at += 1
        self.next_is_target = True

    def _end_word(self) -> None:
        if self.word is not None:
            if not self.next_is_target:
                self.words.append(self.word)
            self.next_is_target = False
        self.word = None

    def _end_command(self) -> None:
        self._end_word()
        self.next_is_target = False
        if self.words:
            self.done.append(self.words)
        self.words = []
