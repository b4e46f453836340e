"""The command that gives an answer again, for those who were sent only the answer."""

from __future__ import annotations

import enum
import shlex
from typing import Any

import typer

from simserve.cli.options import SHARED

SCENARIO_FILE = "scenario.yaml"
"""What the scenario of an answer is saved as: its ``resolved`` values hold all of it."""
# The answer does not depend on how it is printed, kept or computed.
_NO_MATTER = ("as_json", "workers", "backend", "cluster", "store", "resume", "figures")


def again(ctx: typer.Context, *, as_typed: bool = False) -> str:
    """Return the command that asks the same of ``scenario.yaml``.

    The options that make the scenario are in that file. With ``as_typed`` they are kept, and so
    is the file that was named.
    """
    words = ["simserve", str(ctx.info_name)]
    if not as_typed:
        words.append(SCENARIO_FILE)
    for parameter in ctx.command.params:
        name, value = str(parameter.name), ctx.params.get(str(parameter.name))
        source = ctx.get_parameter_source(name)
        if source is None or source.name != "COMMANDLINE" or name in _NO_MATTER:
            continue
        if parameter.param_type_name == "argument":
            words += [str(value)] if as_typed else []
        elif as_typed or name not in SHARED:
            words += _option(parameter, value)
    return shlex.join(words)


def _option(parameter: Any, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [parameter.opts[0] if value else (*parameter.secondary_opts, parameter.opts[0])[0]]
    values = value if isinstance(value, list | tuple) else [value]
    return [
        word
        for one in values
        for word in (parameter.opts[0], str(one.value if isinstance(one, enum.Enum) else one))
    ]
