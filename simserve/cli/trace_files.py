"""The traces that ``simserve trace`` writes, and what it says about them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from simserve.errors import InputError

if TYPE_CHECKING:
    from simserve.traffic.trace_formats import TraceFile


def checked_target(to: str, out: Path, file: Path, option: str = "--out") -> str:
    """Return the form that is asked for, once it is certain that ``out`` can be written.

    ``option`` is what gave ``out``, for complaints.
    """
    from simserve.planning.destinations import check_file_destination
    from simserve.traffic.trace_writers import TARGETS, target_of

    if to[:1].isdecimal():
        allowed = f"{', '.join(TARGETS)}; the part to convert ends at --to-s"
        raise InputError("--to", None, to, allowed)
    target = target_of(to, "--to")
    check_file_destination(option, out, [file])
    return target


def write_out(out: Path, target: str, trace: TraceFile, block_tokens: int | None = None) -> None:
    """Write a trace, whole or not at all, and say on stderr what is not in it."""
    from simserve.results.whole_files import write_whole
    from simserve.traffic.trace_writers import losses, write_trace

    packed = out.suffix == ".gz"
    requests, measured = trace.requests, trace.measured
    write_whole(
        out,
        lambda path: write_trace(
            path, requests, target, block_tokens=block_tokens, packed=packed, measured=measured
        ),
    )
    lost = losses(requests, target, measured=bool(measured))
    say_notes([*trace.notes, *([f"{target} cannot say: {', '.join(lost)}"] if lost else [])])


def say_notes(notes: Iterable[str]) -> None:
    """Print notes on stderr."""
    for note in notes:
        typer.echo(f"note: {note}", err=True)
