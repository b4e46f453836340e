"""What kind of file somebody has, and everything that it says, resolved."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from simserve.cli.check_values import (
    Value,
    case_values,
    device_values,
    launch_values,
    model_values,
    scenario_values,
    trace_values,
    workload_values,
)
from simserve.errors import InputError, nearest_name, reason_of


class FileKind(enum.StrEnum):
    """The files that simserve reads."""

    SCENARIO = "scenario"
    WORKLOAD = "workload"
    DEPLOYMENT = "deployment"
    DEVICE = "device"
    MODEL = "model"
    TRACE = "trace"
    LAUNCH_LINE = "launch-line"
    CASE = "case"
    RESULT = "result"


@dataclasses.dataclass(frozen=True, slots=True)
class Checked:
    """A file that is fine, and the values that it stands for."""

    file: str
    kind: FileKind
    values: tuple[Value, ...]


_YAML_SUFFIXES = (".yaml", ".yml")
_CASE_SUFFIXES = (".case.json", ".case.json.gz")
_SCRIPT_SUFFIXES = (".sh", ".bash", ".zsh", ".txt")
_SERVERS = ("vllm", "sglang", "trtllm")
_DEVICE_KEYS = {"hbm_bandwidth", "cuda_reserved", "flops", "efficiency"}
_WORKLOAD_KEYS = {"arrivals", "trace", "prompt_tokens", "output_tokens", "num_requests"}
_MANIFEST_KEYS = {"services", "apiVersion", "kind", "containers", "spec", "image", "args"}
_CONFIG_KEYS = {"model_type", "architectures", "text_config", "num_hidden_layers", "n_layer"}
_DRAWN_REQUESTS = 10_000
# Enough to see whether a script starts a server.
_SCRIPT_BYTES = 1 << 16


def kind_of(path: Path) -> FileKind:
    """Return what kind of file ``path`` is, by its name and its first words.

    Raises:
        InputError: if it is not there, or could be anything.
    """
    try:
        there = path.exists()
    except (OSError, ValueError):  # a name that no file can have
        there = False
    if not there:
        raise InputError(str(path), None, "no such file", _near(path))
    if path.is_dir():
        return _kind_of_folder(path)
    if not path.is_file():
        raise InputError(str(path), None, "not a regular file", "a file or a folder")
    if path.name.endswith(_CASE_SUFFIXES):
        return FileKind.CASE
    suffix = path.suffix.lower()
    if suffix in _YAML_SUFFIXES:
        return _kind_of_yaml(path)
    if suffix == ".json":
        return _kind_of_json(path)
    if suffix in _SCRIPT_SUFFIXES or not suffix:
        with path.open("rb") as file:
            beginning = file.read(_SCRIPT_BYTES).decode(errors="replace")
        if suffix == ".sh" or any(server in beginning for server in _SERVERS):
            return FileKind.LAUNCH_LINE
    return FileKind.TRACE


def _near(path: Path) -> str:
    try:
        near = nearest_name(path.name, [one.name for one in path.parent.iterdir() if one.exists()])
    except (OSError, ValueError):
        near = None
    return "an existing file" + (f"; did you mean {path.parent / near}?" if near else "")


def _kind_of_folder(path: Path) -> FileKind:
    if (path / "run.json").exists():
        return FileKind.RESULT
    if (path / "config.json").exists():
        return FileKind.MODEL
    allowed = "a folder with the run.json of 'run --out', or a model's config.json"
    raise InputError(str(path), None, "a folder", allowed)


def _kind_of_yaml(path: Path) -> FileKind:
    """Return the kind by the keys at the top, most telling first."""
    from simserve.inputs.yaml_reader import read_yaml

    try:
        keys = set(read_yaml(path))
    except InputError as error:
        if "a second document" in str(error):  # manifests are often several
            return FileKind.LAUNCH_LINE
        raise
    if len(keys & _DEVICE_KEYS) > 1:
        return FileKind.DEVICE
    if {"workload", "deployment"} <= keys:
        return FileKind.SCENARIO
    if "workload" in keys or (keys & _WORKLOAD_KEYS and "deployment" not in keys):
        return FileKind.WORKLOAD
    if "deployment" in keys or ("model" in keys and "gpu" in keys):
        return FileKind.DEPLOYMENT
    if keys & _MANIFEST_KEYS:
        return FileKind.LAUNCH_LINE
    got = f"keys {', '.join(sorted(keys))}"
    raise InputError(str(path), None, got, f"a file of a known kind, or --as {_kinds()}")


def _kind_of_json(path: Path) -> FileKind:
    from simserve.inputs.yaml_reader import MAX_FILE_BYTES

    if path.stat().st_size > MAX_FILE_BYTES:
        return FileKind.TRACE
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        return _kind_of_broken_json(path, error)
    if isinstance(content, Mapping):
        if "facts" in content and "token_gaps" in content:
            return FileKind.RESULT
        if "scheduler" in content and "step_time" in content:
            return FileKind.CASE
        if _CONFIG_KEYS & content.keys():
            return FileKind.MODEL
    return FileKind.TRACE


def _kind_of_broken_json(path: Path, error: Exception) -> FileKind:
    """Return what JSON that does not parse was meant to be: one object a line, if any is."""
    if path.name == "config.json":
        return FileKind.MODEL
    with path.open("rb") as file:
        first = file.readline(_SCRIPT_BYTES)
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        raise InputError(str(path), None, reason_of(error), "JSON") from None
    return FileKind.TRACE


def _kinds() -> str:
    return ", ".join(kind for kind in FileKind if kind is not FileKind.RESULT)


def check_file(path: Path, kind: FileKind) -> Checked:
    """Return what the file says, every value resolved as a run would resolve it.

    Raises:
        InputError: for the first thing that is wrong with it.
    """
    return Checked(str(path), kind, tuple(_READERS[kind](path)))


def _scenario(path: Path) -> list[Value]:
    from simserve.inputs.scenario import load_scenario

    return scenario_values(load_scenario(path))


def _workload(path: Path) -> list[Value]:
    from simserve.inputs.scenario import load_scenario

    return workload_values(load_scenario(workload=path).workload)


def _deployment(path: Path) -> list[Value]:
    from simserve.cli.check_values import deployment_values
    from simserve.inputs.scenario import load_scenario

    return deployment_values(load_scenario(deployment=path).deployment)


def _device(path: Path) -> list[Value]:
    from simserve.inputs.hardware_profile import read_gpu
    from simserve.inputs.yaml_reader import read_yaml

    return device_values(read_gpu(read_yaml(path), str(path)))


def _model(path: Path) -> list[Value]:
    from simserve.inputs.hf_config import load_config

    return model_values(load_config(str(path), str(path), "model"))


def _trace(path: Path) -> list[Value]:
    from simserve.traffic.trace_formats import Part, detect_format, read_trace
    from simserve.traffic.trace_stats import trace_stats

    name = detect_format(path)
    # A pool of clients promises any number of requests; a few show whether it can be drawn from.
    head = _DRAWN_REQUESTS if name == "servegen" else None
    return trace_values(trace_stats(read_trace(path, name, Part(head=head))))


def _launch_line(path: Path) -> list[Value]:
    from simserve.inputs.launch_line import read_launch_line

    return launch_values(read_launch_line(f"@{path}"))


def _case(path: Path) -> list[Value]:
    from simserve.parity.case_file import load_case

    return case_values(load_case(path))


_READERS: dict[FileKind, Callable[[Path], list[Value]]] = {
    FileKind.SCENARIO: _scenario,
    FileKind.WORKLOAD: _workload,
    FileKind.DEPLOYMENT: _deployment,
    FileKind.DEVICE: _device,
    FileKind.MODEL: _model,
    FileKind.TRACE: _trace,
    FileKind.LAUNCH_LINE: _launch_line,
    FileKind.CASE: _case,
}


def as_json(checked: Checked) -> dict[str, Any]:
    """Return a checked file as JSON-able data."""
    values = {
        one.key: {"value": one.value, "unit": one.unit, "source": one.source}
        for one in checked.values
    }
    return {"file": checked.file, "kind": checked.kind.value, "ok": True, "values": values}
