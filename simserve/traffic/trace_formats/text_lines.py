"""A trace file as numbered lines, compressed or not; every way of not being text is refused."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from simserve.errors import InputError

# RFC 1952, section 2.3.1: the two bytes that every gzip member starts with.
_GZIP_MAGIC = b"\x1f\x8b"
# RFC 8878, section 3.1.1.
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# A prompt of a million tokens in 16-token blocks is a line of about half a MiB; a file
# without line ends must not be read into memory whole to find that out.
_LONGEST_LINE_MIB = 16
LONGEST_LINE_BYTES = _LONGEST_LINE_MIB * 1024 * 1024
_BUFFER_BYTES = 1 << 18
_FIRST_BLOCK_BYTES, _LARGEST_BLOCK_BYTES = 1 << 16, 1 << 23


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of ``path`` that are not blank, with their row numbers, from 1.

    Gzip and Zstandard are recognised by content, not by name. Line ends (LF or CRLF), the spaces
    around a line and a byte-order mark are taken off.

    Raises:
        InputError: if the file cannot be opened or unpacked, or a line is too long.
    """
    row = 0
    with _named(path, lambda: row), _open(path) as file:
        while line := file.readline(LONGEST_LINE_BYTES):
            row += 1
            if len(line) == LONGEST_LINE_BYTES:
                raise _too_long(path, row)
            if row == 1:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            line = line.strip()
            if line:
                yield row, line


def line_blocks(path: Path, largest_bytes: int | None = None) -> Iterator[tuple[int, bytes]]:
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
            if len(rest) + (begin if end else len(chunk)) >= LONGEST_LINE_BYTES:
                raise _too_long(path, row)
            if not end:
                rest += chunk
                continue
            block, rest = rest + chunk[:end], chunk[end:]
            yield row, block
            row += lines_in(block)
            size = min(4 * size, largest_bytes or _LARGEST_BLOCK_BYTES)
        if rest:
            yield row, rest


def lines_in(block: bytes) -> int:
    """Return how many line ends there are; ``bytes.count`` takes three times as long."""
    return int(np.count_nonzero(np.frombuffer(block, np.uint8) == ord("\n")))


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


def beginning(path: Path) -> bytes:
    """Return what a file begins with, unpacked, as much as one line may hold.

    Raises:
        InputError: as ``numbered_lines``.
    """
    with _named(path, lambda: 0), _open(path) as file:
        return file.read(LONGEST_LINE_BYTES).removeprefix(_BYTE_ORDER_MARK).lstrip()


def whole_content(path: Path, most_bytes: int | None = None) -> bytes | None:
    """Return the unpacked content of a file, or None if it cannot be read whole, or is larger."""
    try:
        with _open(path) as file:
            content = file.read(-1 if most_bytes is None else most_bytes + 1)
    except (InputError, EOFError, OSError, zlib.error, MemoryError):
        return None
    large = most_bytes is not None and len(content) > most_bytes
    return None if large else content.removeprefix(_BYTE_ORDER_MARK)


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
            magic = file.read(len(_ZSTD_MAGIC))
    except ValueError:  # a zero byte
        got = "a name that no file can have"
        raise InputError(str(path), None, got, "a readable trace file") from None
    # The buffer makes lines of a packed file as cheap as those of a plain one.
    if magic.startswith(_GZIP_MAGIC):
        return io.BufferedReader(gzip.GzipFile(path), _BUFFER_BYTES)
    if magic == _ZSTD_MAGIC:
        import pyarrow as pa

        unpacked = pa.CompressedInputStream(path.open("rb"), "zstd")
        return io.BufferedReader(unpacked, _BUFFER_BYTES)
    return path.open("rb", _BUFFER_BYTES)
