"""``--set key=value``: one value of a scenario, named by its dotted key or by its end."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

from simserve.errors import InputError, nearest_name
from simserve.inputs.deployment import DeploymentSpec
from simserve.inputs.validation import key_paths
from simserve.inputs.workload import WorkloadSpec
from simserve.inputs.yaml_reader import parse_yaml

TOP_KEYS = ("workload", "deployment", "slo", "seed", "name", "start_date", "plan")


class Setting(NamedTuple):
    """A value for the dotted key ``path``; ``where`` is how it was written, for complaints."""

    path: str
    value: Any
    where: str


@functools.cache
def setting_keys() -> tuple[str, ...]:
    """Return every dotted key that can be set, sorted."""
    paths = key_paths(WorkloadSpec, "workload") + key_paths(DeploymentSpec, "deployment")
    return tuple(sorted([*TOP_KEYS, *paths]))


def parse_setting(text: str) -> Setting:
    """Return what ``key=value`` sets; the value is read as YAML is.

    Raises:
        InputError: if there is no ``=``, or the key is unknown or could be several.
    """
    where = f"--set {text}"
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(where, None, text, "key=value, such as deployment.max_num_seqs=64")
    path = _full_path(key.strip(), where)
    return Setting(path, parse_yaml(value, where), where)


def _full_path(key: str, where: str) -> str:
    keys = setting_keys()
    normal = key.replace("-", "_")
    if normal in keys:
        return normal
    found = [path for path in keys if path.endswith(f".{normal}")]
    if len(found) > 1:  # rate_per_s is that of the arrivals; the trace's is spelled in full
        found = [path for path in found if not path.startswith("workload.trace.")]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(where, key, "an ambiguous key", "one of " + ", ".join(found))
    hint = DeploymentSpec.KEY_HINTS.get(normal.removeprefix("deployment."))
    if hint is not None:
        ours = f"deployment.{hint.partition(' ')[0]}"
        if ours in keys:  # vLLM's name for what is set by another here
            return ours
        raise InputError(where, key, "an engine setting", hint)
    spelling = {path: path for path in keys} | {path.rpartition(".")[2]: path for path in keys}
    near = nearest_name(normal, spelling)
    hint = f"; did you mean {spelling[near]}?" if near else ""
    raise InputError(
        where, key, "an unknown key", "workload.KEY, deployment.KEY, slo, seed or name" + hint
    )


def with_value(entry: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """Return ``entry`` with the value at ``path`` replaced; None takes the key out."""
    changed = dict(entry)
    if len(path) > 1:
        inner = changed.get(path[0])
        changed[path[0]] = with_value(inner if isinstance(inner, dict) else {}, path[1:], value)
    elif value is None:
        changed.pop(path[0], None)
    else:
        changed[path[0]] = value
    return changed
