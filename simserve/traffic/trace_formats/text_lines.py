"""A trace file as numbered lines, compressed or not; every way of not being text is refused."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from simserve.errors import InputError

# RFC 1952, section 2.3.1: the two bytes that every gzip member starts with.
_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# A prompt of a million tokens in 16-token blocks is a line of about half a MiB; a file
# without line ends must not be read into memory whole to find that out.
_LONGEST_LINE_MIB = 16
_LONGEST_LINE_BYTES = _LONGEST_LINE_MIB * 1024 * 1024
_FIRST_BLOCK_BYTES, _LARGEST_BLOCK_BYTES = 1 << 16, 1 << 23


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of ``path`` that are not blank, with their row numbers, from 1.

    Gzip is recognised by its content, not by its name. Line ends (LF or CRLF), the spaces
    around a line and a byte-order mark are taken off.

    Raises:
        InputError: if the file cannot be opened or unpacked, or a line is too long.
    """
    row = 0
    with _named(path, lambda: row), _open(path) as file:
        while line := file.readline(_LONGEST_LINE_BYTES):
            row += 1
            if len(line) == _LONGEST_LINE_BYTES:
                raise _too_long(path, row)
            if row == 1:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            line = line.strip()
            if line:
                yield row, line


def line_blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield whole lines, many at a time, with the row number of the first of them.

    Blocks begin small and grow, so that a look at the first rows costs no more than that.
    Their lines are those of ``numbered_lines``, blank ones and line ends included.

    Raises:
        InputError: as ``numbered_lines``.
    """
    row, size = 1, _FIRST_BLOCK_BYTES
    rest = b""
    with _named(path, lambda: row - 1), _open(path) as file:
        while chunk := file.read(size):
            if row == 1 and not rest:
                chunk = chunk.removeprefix(_BYTE_ORDER_MARK)
            begin, end = chunk.find(b"\n"), chunk.rfind(b"\n") + 1
            if len(rest) + (begin if end else len(chunk)) >= _LONGEST_LINE_BYTES:
                raise _too_long(path, row)
            if not end:
                rest += chunk
                continue
            block, rest = rest + chunk[:end], chunk[end:]
            yield row, block
            row += block.count(b"\n")
            size = min(4 * size, _LARGEST_BLOCK_BYTES)
        if rest:
            yield row, rest


@contextlib.contextmanager
def _named(path: Path, row: Callable[[], int]) -> Iterator[None]:
    """Turn what goes wrong in reading ``path``, after ``row()``, into the refusal of the file."""
    try:
        yield
    except EOFError:
        got = f"a gzip file that ends early, after row {row()}"
        raise InputError(str(path), None, got, "the whole file; copy it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        got = f"damaged gzip data after row {row()} ({error})"
        raise InputError(str(path), None, got, "an undamaged file") from None
    except OSError as error:
        got = error.strerror or str(error)
        raise InputError(str(path), None, got, "a readable trace file") from None


def _too_long(path: Path, row: int) -> InputError:
    allowed = f"lines below {_LONGEST_LINE_MIB} MiB; is it a text file?"
    return InputError(str(path), f"row {row}", "a longer line", allowed)


def whole_content(path: Path) -> bytes | None:
    """Return the unpacked content of a file, or None if it cannot be read whole."""
    try:
        with _open(path) as file:
            return file.read()
    except (InputError, EOFError, OSError, zlib.error, MemoryError):
        return None


def decoded(path: Path, row: int, line: bytes) -> str:
    """Return a line as text, or refuse it with its row number."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise InputError(str(path), f"row {row}", line, "UTF-8 text") from None


def refuse_pipe(path: Path) -> None:
    """Refuse a pipe, of which what was read once is gone: the first rows would be missing."""
    if path.is_fifo():
        raise InputError(str(path), None, "a pipe", "a file: it is read more than once")


def _open(path: Path) -> IO[bytes]:
    refuse_pipe(path)
    try:
        with path.open("rb") as file:
            packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    except ValueError:  # a zero byte
        got = "a name that no file can have"
        raise InputError(str(path), None, got, "a readable trace file") from None
    # The buffer makes lines of a gzip file as cheap as those of a plain one.
    return io.BufferedReader(gzip.GzipFile(path)) if packed else path.open("rb")
