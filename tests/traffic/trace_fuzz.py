"""Damages trace files the way disks, editors and exporters do: for tests of the readers.

``python -m tests.traffic.trace_fuzz FILE... --cases 10000`` runs many cases by hand.
"""

from __future__ import annotations

import argparse
import gzip
import random
import sys
import tempfile
from pathlib import Path

from simserve.errors import InputError
from simserve.traffic.trace_formats import FORMATS, Part, read_trace

ODD = [
    b"", b"nan", b"NaN", b"-1", b"0", b"1e400", b"-inf", b"null", b"true", b'"x"', b"[]", b"{}",
    b"99999999999999999999999", b"1.5", b"0x10", b"2023-02-30 00:00:00", b"\xff\xfe", b"\x00",
    b'"', b",", b"\r", b"\n", b"[" * 2000, "é٣".encode(), b"1_000", b"+5", b" ",
]  # fmt: skip
_SEPARATORS = b',:[]{}" \n'


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return ``content`` with one to three things wrong with it."""
    for _ in range(rng.randint(1, 3)):
        kind = rng.randrange(8)
        at = rng.randrange(len(content) + 1)
        if kind == 0:  # a bit flips
            at = min(at, len(content) - 1)
            flipped = bytes([content[at] ^ (1 << rng.randrange(8))])
            content = content[:at] + flipped + content[at + 1 :]
        elif kind == 1:  # the end is missing
            content = content[:at]
        elif kind == 2:  # something is put in between
            content = content[:at] + rng.choice(ODD) + content[at:]
        elif kind == 3:  # a line is missing, or twice, or elsewhere
            lines = content.split(b"\n")
            line = lines.pop(rng.randrange(len(lines)))
            for _ in range(rng.randrange(3)):
                lines.insert(rng.randrange(len(lines) + 1), line)
            content = b"\n".join(lines)
        elif kind == 4:  # another unit of text
            content = content.decode(errors="replace").encode("utf-16")
        else:  # a value becomes an odd one
            content = _replaced(content, at, rng)
        if not content:
            return content
    return content


def _replaced(content: bytes, at: int, rng: random.Random) -> bytes:
    begin = max((content.rfind(bytes([one]), 0, at) for one in _SEPARATORS), default=-1) + 1
    ends = [content.find(bytes([one]), at) for one in _SEPARATORS]
    end = min((one for one in ends if one >= 0), default=len(content))
    return content[:begin] + rng.choice(ODD) + content[max(begin, end) :]


def case(content: bytes, path: Path, rng: random.Random) -> bool:
    """Read a damaged file; return whether it loads, fail if it is not refused in one line."""
    content = damaged(content, rng)
    if rng.random() < 0.3:
        content = gzip.compress(content, 1)
        if rng.random() < 0.5:
            content = damaged(content, rng)
    path.write_bytes(content)
    name = rng.choice([None, None, None, *FORMATS])
    part = rng.choice([Part(), Part(), Part(head=5), Part(from_s=1, to_s=30)])
    try:
        trace = read_trace(path, name, part, rate_per_s=1.0)
    except InputError as error:
        text = str(error)
        assert text.startswith(str(path)), text
        assert "\n" not in text
        assert len(text) < 2000
        return False
    table = trace.requests
    assert len(table) and table.prompt_tokens.min() >= 1 and table.output_tokens.min() >= 1
    assert table.arrival_ps[0] >= 0 and (table.arrival_ps[1:] >= table.arrival_ps[:-1]).all()
    return True


def head_of(path: Path, lines: int) -> bytes:
    """Return the first lines of a trace, unpacked."""
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    if content[:4] == b"PAR1":
        return content
    return b"".join(content.splitlines(keepends=True)[:lines])


def main() -> None:
    """Run many cases and say how many files still loaded."""
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for file in asked.files:
            content = head_of(file, 30)
            loaded = 0
            for number in range(asked.cases):
                seed = f"{asked.seed} {file.name} {number}"
                try:
                    loaded += case(content, Path(folder) / "trace", random.Random(seed))
                except Exception:
                    sys.stderr.write(f"failed: seed {seed!r}\n")
                    raise
            sys.stdout.write(f"{file.name}: {asked.cases} cases, {loaded} loaded, rest refused\n")


if __name__ == "__main__":
    main()
