"""The YAML file of ``vllm serve --config``: its keys become the flags they are named after.

As in vLLM, they stand before the flags of the line, so that the line has the last word. vLLM
reads the file by YAML 1.1, where ``yes`` and ``on`` are true; so it is here, for flags that are
on or off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from simserve.errors import InputError
from simserve.inputs.launch_line.arguments import Given, read_arguments
from simserve.inputs.launch_line.flag_table import FlagTable
from simserve.inputs.launch_line.manifest import scalar_text
from simserve.inputs.yaml_reader import read_yaml

_YES, _NO = ("yes", "on"), ("no", "off")


def read_config(file: str, table: FlagTable, where: str) -> list[Given]:
    """Return the flags that ``file`` gives.

    Raises:
        InputError: if it is not YAML, or a key is no flag.
    """
    if file.rpartition(".")[2] not in ("yaml", "yml"):
        raise InputError(where, "--config", file, "a file whose name ends in .yaml or .yml")
    given: list[Given] = []
    for key, value in read_yaml(file).items():
        if key.replace("_", "-") == "config":
            raise InputError(file, key, "a file in a file", "one config file")
        found = read_arguments(_words(key, value, table), table, file).given
        given += [Given(one.flag, one.value, f"--config {file}: {key}") for one in found]
    return given


def _words(key: str, value: Any, table: FlagTable) -> list[str]:
    """Return the words that vLLM makes of one key: a false that has no --no-… is left out."""
    name = f"--{key}"
    found = table.find(name.replace("_", "-"))
    if found is not None and found[0].takes_no_value and isinstance(value, str):
        lower = value.lower()
        value = True if lower in _YES else False if lower in _NO else value
    if isinstance(value, bool):
        no = f"--no-{key.replace('_', '-')}"
        if found is None:
            return [name]
        return [name] if value else [no] if table.find(no) else []
    if isinstance(value, list):
        return [name, *map(scalar_text, value)] if value else []
    if isinstance(value, Mapping):
        return [f"{name}={json.dumps(value)}"]
    return [f"{name}={scalar_text(value)}"]
