"""Finds the server in a YAML file of Compose, Kubernetes or a Helm chart's values.

A container is any mapping with ``command``, ``args`` or ``entrypoint``; its words are those that
a shell line would have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from simserve.errors import InputError
from simserve.inputs.launch_line.launch import (
    GpuCount,
    Launch,
    launch_in_image,
    only_one,
    visible_gpus,
)
from simserve.inputs.launch_line.shell_words import split_commands
from simserve.inputs.yaml_reader import parse_yaml

_DOCUMENT_START = re.compile(r"^---.*$", re.MULTILINE)
_GPU_RESOURCE = "nvidia.com/gpu"


def launch_in_manifest(text: str, where: str) -> Launch:
    """Return the one server in the YAML ``text``, which may hold several documents.

    Raises:
        InputError: if there is none or more than one, or the text is not YAML.
    """
    documents = [parse_yaml(part, where) for part in _DOCUMENT_START.split(text)]
    found: list[Launch] = []
    many = False
    for mapping in (one for document in documents for one in _mappings(document)):
        many = many or _whole(mapping.get("replicas"), 0) > 1
        launch = _launch_in(mapping, where)
        if launch is not None:
            found.append(launch)
    launch = only_one(found, where)
    return replace(launch, not_read=("replicas of the manifest",)) if many else launch


def _mappings(value: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
        for inner in value.values():
            yield from _mappings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _mappings(inner)


def _launch_in(container: Mapping[str, Any], where: str) -> Launch | None:
    words = {
        key: _words(container.get(key), where, key) for key in ("entrypoint", "command", "args")
    }
    if not any(words.values()):
        return None
    image = container.get("image")
    image = image if isinstance(image, str) else ""
    launch = launch_in_image(image, words["entrypoint"], [*words["command"], *words["args"]], where)
    if launch is None:
        return None
    environment = _environment(container)
    gpus = _gpus(container) or visible_gpus(environment)
    return replace(launch, environment=environment, gpus=gpus or launch.gpus, not_read=())


def _words(value: object, where: str, key: str) -> list[str]:
    """Return a list of scalars, or the words of a text, as a container would get them."""
    if value is None or isinstance(value, Mapping):
        return []
    if isinstance(value, str):
        commands = split_commands(value.replace("\n", " "), where)
        return [word for command in commands for word in command]
    if isinstance(value, list):
        if any(isinstance(one, (list, Mapping)) for one in value):
            raise InputError(where, key, "a list in a list", "a list of words")
        return [scalar_text(one) for one in value]
    return [scalar_text(value)]


def scalar_text(value: object) -> str:
    """Return a YAML scalar as it was written: true rather than True."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _environment(container: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for section in (container.get("env"), container.get("environment")):
        if isinstance(section, Mapping):
            found |= {key: scalar_text(value) for key, value in section.items()}
        for one in section if isinstance(section, list) else ():
            if isinstance(one, str):
                name, _, value = one.partition("=")
                found[name] = value
            elif isinstance(one, Mapping) and isinstance(one.get("name"), str):
                found[one["name"]] = scalar_text(one.get("value"))
    return found


def _gpus(container: Mapping[str, Any]) -> GpuCount | None:
    """Return the GPUs that Kubernetes limits or Compose devices give the container."""
    limits = _at(container, "resources", "limits")
    if _GPU_RESOURCE in limits:
        count = _whole(limits[_GPU_RESOURCE], 0)
        return GpuCount(count, f"resources.limits {_GPU_RESOURCE}") if count else None
    devices = _at(container, "deploy", "resources", "reservations").get("devices")
    for device in devices if isinstance(devices, list) else ():
        if not isinstance(device, Mapping):
            continue
        ids = device.get("device_ids")
        count = len(ids) if isinstance(ids, list) else _whole(device.get("count"), 0)
        if count:
            return GpuCount(count, "deploy.resources.reservations.devices")
    return None


def _at(value: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    for key in keys:
        inner = value.get(key)
        if not isinstance(inner, Mapping):
            return {}
        value = inner
    return value


def _whole(value: object, otherwise: int) -> int:
    if isinstance(value, str) and value.isdecimal() and value.isascii():
        return int(value[:9])
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise
