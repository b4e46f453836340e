"""``simserve report``: a run, a sweep or an answer in JSON as one page that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simserve.errors import InputError, reason_of
from simserve.planning.sweep_files import read_table
from simserve.report.page.parts import Page
from simserve.results.result import RUN_FILE, Result
from simserve.results.whole_files import make_directory, write_whole

SUMMARY_FILE = "summary.csv"
_TABLES = (".csv", ".parquet")
_ALLOWED = (
    "a folder of 'run --out', a folder or table of 'sweep --out', or the JSON of 'capacity', "
    "'cost', 'explain' or 'plan'"
)


def load_page(source: Path, result: Result | None = None) -> Page:
    """Return the page of what ``source`` holds; ``result`` is the run in it, if loaded already.

    Raises:
        InputError: if it is nothing that can be reported.
    """
    if result is not None or (source / RUN_FILE).is_file():
        from simserve.report.page.run import run_page

        found = result or Result.load(source)
        with _damage(source):
            return run_page(found)
    table = source / SUMMARY_FILE if source.is_dir() else source
    if table.suffix in _TABLES and table.is_file():
        from simserve.report.page.sweep import sweep_page

        rows = read_table(table)
        with _damage(source):
            return sweep_page(rows, source)
    if source.suffix == ".json" and source.is_file():
        from simserve.report.page.answer import answer_page

        entry = _json(source)
        with _damage(source):
            return answer_page(entry, source)
    raise InputError(str(source), None, _what(source), _ALLOWED)


@contextmanager
def _damage(source: Path) -> Iterator[None]:
    """Call it a damaged input where something is missing from it, or is of another kind."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(str(source), None, reason_of(error), _ALLOWED) from error


def write_page(page: Page, path: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        InputError: if it cannot be written there.
    """
    text = page.markup()
    write_whole(path, lambda temporary: _write(temporary, text))


def write_figures(page: Page, folder: Path) -> list[Path]:
    """Write every figure of the page as SVG and as PNG into ``folder``; return the files.

    Raises:
        InputError: if they cannot be written there.
    """
    from simserve.report.charts.style import save_files

    make_directory(folder)
    return [path for one in page.figures() for path in save_files(one.figure, folder, one.name)]


def _json(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(str(path), None, reason_of(error), _ALLOWED) from error
    if not isinstance(found, dict):
        raise InputError(str(path), None, f"a {type(found).__name__}", _ALLOWED)
    return found


def _what(source: Path) -> str:
    """Return what ``source`` is, as far as can be seen."""
    if not source.exists():
        return "no such file or folder"
    if not source.is_dir():
        return "a file of another kind"
    if (source / f"{SUMMARY_FILE}.partial").exists():
        return "a sweep that has not ended (sweep --resume ends it)"
    return f"a folder without {RUN_FILE} or {SUMMARY_FILE}"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
