"""Damages a file the way disks, editors, exporters and tired people do."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

ODD = [
    b"", b"nan", b".nan", b"NaN", b"Infinity", b"-Infinity", b".inf", b"-1", b"0", b"-0.0",
    b"1e400", b"1e308", b"1e-400", b"null", b"~", b"true", b"yes",
    b'"x"', b"[]", b"{}", b"[1, 2]", b"{a: 1}",
    b"9" * 23, b"9" * 5000, b"1.5", b"0x10", b"0o17", b"1_000", b"+5", b" ", b"2023-02-30 00:00:00",
    b"\xff\xfe", b"\x00", b"\x1b[31m", b'"', b"'", b",", b":", b"\r", b"\n", b"\t", b"[" * 3000,
    b"{" * 3000, b"[" * 200 + b"]" * 200, "é٣".encode(), "\u2028".encode(), "\U0001f600".encode(),
    b'"\\ud800"', b"&a [*a]", b"*a", b"!!python/object:os.system", b"<<: {a: 1}", b"---", b"80GB",
    b"80GiB", b"5 furlongs", b"3.35TB/s", b"250ms", b"-250ms", b"32k", b"32K", b"1e9k", b"$2.49/h",
    b"a" * 2000, b"../../etc", b"x.json", b"1:2", b"0:0", b"9223372036854775808",
]  # fmt: skip
"""What may stand where a value is expected."""

_WORD = re.compile(rb"[^\s,:\[\]{}\"']+")
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


def damaged(content: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Return ``content`` with one to four things wrong; ``others`` lend lines to it."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        content = rng.choice(_DAMAGES)(content, rng, others)
        if not content:
            break
    return content


def _flip(content: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]


def _cut_end(content: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _delete(content: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + content[at + rng.randint(1, 1 << rng.randrange(8)) :]


def _insert(content: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.choice(ODD) + content[at:]


def _move_line(content: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """A line goes missing, comes twice (a key with it), moves, or comes from another file."""
    lines = content.split(b"\n")
    line = lines.pop(rng.randrange(len(lines)))
    if rng.random() < 0.3:
        line = rng.choice(rng.choice(others).split(b"\n")[:200])
    for _ in range(rng.randrange(3)):
        lines.insert(rng.randrange(len(lines) + 1), line)
    return b"\n".join(lines)


def _other_text(content: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    """Another encoding or other line ends."""
    text = content.decode(errors="replace")
    return rng.choice(
        (
            text.encode("utf-16"),
            b"\xef\xbb\xbf" + content,
            content.replace(b"\n", b"\r\n"),
            content.replace(b"\n", b"\r"),
            text.encode("latin-1", "replace"),
        )
    )


def _odd_word(content: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    """A word, key or value, becomes an odd one."""
    return _replaced(content, _WORD, rng.choice(ODD), rng)


def _odd_number(content: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    """A number gets another size, sign, unit or type."""
    found = list(_NUMBER.finditer(content[:20_000]))
    if not found:
        return content
    one = rng.choice(found)
    number = one[0]
    changed = rng.choice(
        (
            b"-" + number, number + b"0" * rng.randint(1, 30), number + b".5", number + b"e9",
            b'"' + number + b'"', b"[" + number + b"]", number + b"ms", number + b"GB", b"0", b"1",
            number + b"e999", b"0." + number, number * 2, str(2 ** rng.randrange(80)).encode(),
        )
    )  # fmt: skip
    return content[: one.start()] + changed + content[one.end() :]


def _other_word(content: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """A word is replaced by one from anywhere."""
    other = rng.choice(others)
    at = rng.randrange(max(1, len(other) - 200))
    words = _WORD.findall(other[at : at + 400])
    return _replaced(content, _WORD, rng.choice(words) if words else b"x", rng)


def _splice(content: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """The beginning of this file and the end of another."""
    other = rng.choice(others)
    return content[: rng.randrange(len(content) + 1)] + other[rng.randrange(len(other) + 1) :]


def _reindent(content: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    lines = content.split(b"\n")
    at = rng.randrange(len(lines))
    lines[at] = b" " * rng.randint(1, 5) + lines[at] if rng.random() < 0.6 else lines[at].lstrip()
    return b"\n".join(lines)


def _replaced(content: bytes, what: re.Pattern[bytes], by: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content) + 1)
    found = what.search(content, at) or what.search(content)
    return content[: found.start()] + by + content[found.end() :] if found else content + by


_DAMAGES: tuple[Callable[[bytes, random.Random, Sequence[bytes]], bytes], ...] = (
    _flip, _cut_end, _delete, _insert, _move_line, _other_text, _odd_word, _odd_word, _odd_word,
    _odd_number, _odd_number, _odd_number, _other_word, _splice, _reindent,
)  # fmt: skip
