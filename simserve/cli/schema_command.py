"""``simserve schema``: the keys of a YAML file as JSON Schema, for editors."""

from __future__ import annotations

import enum
import json
from typing import Annotated

import typer


class Name(enum.StrEnum):
    """The files that have a schema."""

    SCENARIO = "scenario"
    WORKLOAD = "workload"
    DEPLOYMENT = "deployment"
    DEVICE = "device"


def schema(
    name: Annotated[
        Name,
        typer.Argument(metavar="NAME", help="scenario, workload, deployment or device."),
    ],
) -> None:
    """Print the JSON Schema of a YAML file.

    Editors complete and check keys by it. For those with yaml-language-server
    (VS Code, Neovim, Helix, Zed), put this line at the top of the YAML file:

    \b
      # yaml-language-server: $schema=scenario.json

    \b
    Example:
      simserve schema scenario > scenario.json
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    from simserve.inputs.json_schema import file_schema

    typer.echo(json.dumps(file_schema(name.value), indent=2, ensure_ascii=False))
