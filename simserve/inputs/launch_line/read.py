"""Reads a launch line into a deployment: the mapping that a YAML file would hold.

Hardware is not in a launch line: the GPU is named beside it, and their number is checked.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simserve.errors import InputError, one_line
from simserve.inputs.launch_line.arguments import Given, expected, read_arguments
from simserve.inputs.launch_line.config_file import read_config
from simserve.inputs.launch_line.flag_table import (
    EXPANDED,
    IRRELEVANT,
    MODELLED,
    FlagTable,
    other_table,
    vllm_table,
)
from simserve.inputs.launch_line.flag_values import AUTO_LENGTH, parse_value
from simserve.inputs.launch_line.launch import GpuCount, Launch, launch_in_text
from simserve.inputs.launch_line.manifest import launch_in_manifest
from simserve.inputs.launch_line.other_engines import CONVERSIONS, read_options_file
from simserve.inputs.yaml_reader import MAX_FILE_BYTES

OPTION = "--serve-cmd"
# How a setting's origin reads in complaints and in the resolved configuration.
ORIGIN = "launch line"
_YAML_SUFFIXES = (".yaml", ".yml")
_LONGEST_SHOWN = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchLine:
    """What a launch line says: a deployment in simserve's keys, and what else to know.

    ``origins`` says for each key which words of the line it comes from; ``notes`` are sentences
    on what was read without effect.
    """

    engine: str
    deployment: dict[str, Any]
    origins: dict[str, str]
    notes: tuple[str, ...]
    gpus: GpuCount | None = None


def read_launch_line(text: str) -> LaunchLine:
    """Return what the launch line ``text`` says, or the file ``@file``, or ``-`` for stdin.

    Raises:
        InputError: for words that are no launch line, a flag that is unknown or refused, or
            more GPUs in use than there are.
    """
    launch, where = _find_launch(text)
    if launch.engine == "vllm":
        line = _Reading(launch, vllm_table(), where).line()
    else:
        line = _Reading(launch, other_table(launch.engine), where).line()
    if line.gpus is not None:
        tp, replicas = line.deployment.get("tp", 1), line.deployment.get("replicas", 1)
        check_gpus(tp, replicas, line.gpus.count, f"{where}: {line.gpus.said_by}")
    return line


def check_gpus(tp: int, replicas: int, count: int, said_by: str) -> None:
    """Refuse a deployment that needs more than ``count`` GPUs."""
    if tp * replicas > count:
        needed = f"at least {tp * replicas} GPUs: tensor parallel {tp} × {replicas} replicas"
        raise InputError(said_by, None, f"{count} GPU{'' if count == 1 else 's'}", needed)


def _find_launch(text: str) -> tuple[Launch, str]:
    """Return the server that ``text``, a file or stdin starts, and how to name the place."""
    if text == "-":
        return launch_in_text(_stdin(), f"{OPTION} -"), f"{OPTION} -"
    if not text.startswith("@"):
        return launch_in_text(text, OPTION), OPTION
    path = Path(text[1:])
    content = _read_file(path)
    where = f"{OPTION} {text}"
    if path.suffix.lower() in _YAML_SUFFIXES:
        return launch_in_manifest(content, where), where
    return launch_in_text(content, where), where


@functools.cache
def _stdin() -> str:
    """Return what stands on stdin: once, because a sweep asks for it at every point."""
    try:
        return sys.stdin.read(MAX_FILE_BYTES)
    except UnicodeDecodeError:
        raise InputError(f"{OPTION} -", None, "bytes that are not UTF-8", "UTF-8 text") from None


def _read_file(path: Path) -> str:
    where = f"{OPTION} @{path}"
    try:
        if not path.is_file():
            raise InputError(where, None, "no such file", "a shell script or a YAML manifest")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(where, None, "a huge file", f"at most {MAX_FILE_BYTES} bytes")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(where, None, "bytes that are not UTF-8", "UTF-8 text") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(where, None, str(error), "a readable file") from None


class _Reading:
    """The settings while the flags are gone through; later flags replace earlier ones."""

    def __init__(self, launch: Launch, table: FlagTable, where: str) -> None:
        self.launch, self.table, self.where = launch, table, where
        self.deployment: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self.notes: list[str] = list(table.remarks)
        self.irrelevant: list[str] = []
        self.at_default: list[str] = []

    def line(self) -> LaunchLine:
        arguments = read_arguments(self.launch.words, self.table, self.where)
        given = self._expanded(arguments.given)
        for one in given:
            self._take(one)
        self._model(arguments.positional, given)
        self._environment()
        self._finish_notes()
        return LaunchLine(
            engine=self.table.engine,
            deployment=self.deployment,
            origins=self.origins,
            notes=tuple(map(one_line, self.notes)),
            gpus=self.launch.gpus,
        )

    def _expanded(self, given: Sequence[Given]) -> list[Given]:
        """Return the flags with those of a config file in front, as vLLM puts them."""
        files = [one for one in given if one.flag.meaning == EXPANDED]
        rest = [one for one in given if one.flag.meaning != EXPANDED]
        if len(files) > 1:
            raise InputError(self.where, files[1].spelled, "a second file", "one config file")
        if not files:
            return rest
        if self.table.engine == "vllm":
            return read_config(str(files[0].value), self.table, self.where) + rest
        return read_options_file(str(files[0].value), self.table) + rest

    def _take(self, given: Given) -> None:
        if given.flag.meaning == MODELLED:
            self._set(given)
        elif given.flag.meaning == IRRELEVANT:
            self.irrelevant.append(given.flag.name)
        elif self._changes_nothing(given):
            self.at_default.append(given.flag.name)
        else:
            raise self._refusal(given)

    def _value(self, given: Given) -> Any:
        try:
            return parse_value(given.flag, given.value)
        except (ValueError, OverflowError):
            allowed = expected(given.flag)
            if "$" in str(given.value):
                allowed += "; simserve does not know what the shell would put there"
            raise InputError(self.where, given.spelled, given.value, allowed) from None

    def _set(self, given: Given) -> None:
        setting, value = given.flag.setting, self._value(given)
        convert = CONVERSIONS.get(setting)
        if convert is not None:
            changes, note = convert(value)
        elif setting == "max_model_len" and value == AUTO_LENGTH:
            changes, note = {}, "max_model_len auto: the model's own length, if that fits"
        elif setting == "replicas":
            changes, note = _data_parallel(value)
        else:
            changes, note = {setting: value}, ""
        for key, one in changes.items():
            if one is not None:
                if key in self.deployment and key == setting:
                    self.notes.append(f"{given.flag.name} is given twice: the last one counts")
                self.deployment[key] = one
                self.origins[key] = f"{ORIGIN}: {self._shown(given)}"
        if note:
            self.notes.append(note)

    @staticmethod
    def _shown(given: Given) -> str:
        if isinstance(given.value, bool):
            return given.spelled
        value = str(given.value)
        short = value if len(value) <= _LONGEST_SHOWN else value[: _LONGEST_SHOWN - 1] + "…"
        return f"{given.spelled} {short}"

    def _changes_nothing(self, given: Given) -> bool:
        """Return whether a refused flag has the engine's default, or a value equal to it."""
        try:
            value = parse_value(given.flag, given.value)
        except (ValueError, OverflowError):
            return False
        same = [given.flag.default, *given.flag.same]
        if isinstance(value, str):
            value, same = value.lower(), [s.lower() if isinstance(s, str) else s for s in same]
        return any(
            value == one and isinstance(value, bool) == isinstance(one, bool) for one in same
        )

    def _refusal(self, given: Given) -> InputError:
        flag = given.flag
        fine = [value for value in (flag.default, *flag.same) if value not in (None, [], {}, "")]
        if flag.takes_no_value:
            allowed = "leave it out"
        elif fine:
            allowed = f"{', '.join(map(str, fine))}, or leave it out"
        else:
            allowed = "leave it out"
        got = "this flag" if isinstance(given.value, bool) else given.value
        return InputError(self.where, given.spelled, got, f"{allowed}: {flag.why}")

    def _model(self, positional: Sequence[str], given: Sequence[Given]) -> None:
        """Set the model: the first word that belongs to no flag, or --model."""
        named = [one for one in given if one.flag.setting == "model"]
        if len(positional) > 1 or (positional and any(one.value != positional[0] for one in named)):
            extra = positional[1] if len(positional) > 1 else positional[0]
            raise InputError(self.where, None, extra, "one model, and words behind a flag")
        if positional:
            self.deployment["model"] = positional[0]
            self.origins["model"] = f"{ORIGIN}: {positional[0]}"
        flag = self.table.for_setting("model")
        if "model" not in self.deployment and flag is not None and flag.default is not None:
            self.deployment["model"] = flag.default
            origin = f"{ORIGIN}, which names no model: default of {self.table.engine}"
            self.origins["model"] = f"{origin} {self.table.version}"
        if _is_path(str(self.deployment.get("model", ""))):
            self.origins["model"] += " (a path or a variable: name the model by --model)"

    def _environment(self) -> None:
        others = []
        for name, value in self.launch.environment.items():
            only = self.table.only_values.get(name)
            if only is not None and value != only:
                raise InputError(self.where, name, value, only)
            if only is not None or name in self.table.harmless_variables:
                self.irrelevant.append(name)
            elif name.startswith(("VLLM_", "SGLANG_", "TRTLLM_")):
                allowed = "leave it out: it may change step times, and that is not modelled"
                raise InputError(self.where, name, value, allowed)
            elif name != "CUDA_VISIBLE_DEVICES":
                others.append(name)
        if others:
            self.notes.append("variables not read: " + ", ".join(sorted(set(others))))

    def _finish_notes(self) -> None:
        if self.irrelevant:
            names = ", ".join(dict.fromkeys(self.irrelevant))
            self.notes.append(f"no effect on the simulation: {names}")
        if self.at_default:
            names = ", ".join(dict.fromkeys(self.at_default))
            self.notes.append(f"not modelled, but at a value that changes nothing: {names}")
        if self.launch.not_read:
            self.notes.append("not read: " + " ".join(self.launch.not_read))
        version = self.launch.image_version
        vllm = vllm_table().version
        if version and version.split(".")[:2] != vllm.split(".")[:2]:
            self.notes.append(f"the image is vLLM {version}; flags and defaults are of {vllm}")


def _data_parallel(size: int) -> tuple[dict[str, Any], str]:
    if size == 1:
        return {"replicas": 1}, ""
    note = "data parallel ranks are whole replicas; the one with the fewest requests gets the next"
    return {
        "replicas": size,
        "router": "least-loaded",
    }, f"{note} (vLLM counts waiting ones fourfold)"


def _is_path(model: str) -> bool:
    return model.startswith(("/", "./", "../", "~")) or "$" in model
