"""``simserve compare``: two runs, or a run and a measurement, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from simserve.planning.where_it_changed import Parts

Side = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        show_default=False,
        help="A folder of 'run --out', or JSON of vllm bench, SGLang, GuideLLM or AIPerf.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a report.")]


def compare(a: Side, b: Side, as_json: AsJson = False) -> None:
    """Say what differs between two runs beyond chance.

    B is measured by A. Formats are told apart by what is in the files, definitions
    are converted to those of vLLM. Requests that pair are compared one by one. Of two
    simulated runs, it says in which part of a latency they differ.

    \b
    Examples:
      simserve compare runs/before runs/after
      simserve compare measured.json runs/simulated
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    from simserve.errors import InputError
    from simserve.planning.where_it_changed import is_run_folder, where_it_changed
    from simserve.results.compare import compare as compared
    from simserve.results.measured_files import read_measured

    found = compared(read_measured(a), read_measured(b))
    parts: Sequence[Parts] = ()
    if is_run_folder(a) and is_run_folder(b):
        try:
            parts = where_it_changed(a, b)
        except InputError as error:
            missing = f"where the time went: {error}"
            found = replace(found, not_compared=(*found.not_compared, missing))
    if as_json:
        from simserve.report.compare import compare_dict
        from simserve.results.whole_files import json_text

        typer.echo(json_text(compare_dict(found, parts)), nl=False)
        return
    from simserve.report.compare import compare_text

    typer.echo(compare_text(found, parts))
