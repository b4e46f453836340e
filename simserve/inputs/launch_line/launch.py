"""Finds the server in what people start it with: a shell line, a container, a wrapper."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from simserve.errors import InputError
from simserve.inputs.launch_line.shell_words import split_commands

_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_PYTHON = re.compile(r"(pypy|python)[\d.]*")
_MODULES = {
    "vllm.entrypoints.openai.api_server": "vllm",
    "vllm.entrypoints.launchers.api_server.entry": "vllm",
    "vllm.entrypoints.api_server": "vllm",
    "sglang.launch_server": "sglang",
}
_SUBCOMMANDS = {"vllm": "vllm", "sglang": "sglang"}
_SHELLS = ("bash", "sh", "dash", "zsh")
_CONTAINERS = ("docker", "podman", "nerdctl")
# `docker run --help`: the options that take no value.
_VALUELESS = (
    *("-d", "--detach", "--disable-content-trust", "--help", "--init", "-i", "--interactive"),
    *("--no-healthcheck", "--oom-kill-disable", "--privileged", "-P", "--publish-all", "-q"),
    *("--quiet", "--read-only", "--rm", "--sig-proxy", "-t", "--tty", "--use-api-socket"),
)
_VLLM_TAG = re.compile(r"vllm[^/]*:v?(\d+\.\d+(?:\.\w+)*)")
# Wrappers of wrappers; nobody needs more.
_DEEPEST = 8


@dataclass(frozen=True, slots=True)
class GpuCount:
    """How many GPUs the server may use, and what says so."""

    count: int
    said_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One server: its engine, the words behind its name, and what stands around them."""

    engine: str
    words: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    gpus: GpuCount | None = None
    image_version: str | None = None
    not_read: tuple[str, ...] = ()


def launch_in_text(text: str, where: str) -> Launch:
    """Return the one server that the shell text ``text`` starts.

    Raises:
        InputError: if there is none, or more than one.
    """
    commands = split_commands(text, where)
    found = launches_in(commands, where)
    if not found and len(commands) == 1 and commands[0][0].startswith("-"):
        return Launch(engine="vllm", words=tuple(commands[0]))
    return only_one(found, where, commands)


def only_one(found: Sequence[Launch], where: str, commands: Sequence[Sequence[str]] = ()) -> Launch:
    """Return the only launch in ``found``; refuse none and several."""
    loose = [words[0] for words in commands if words[0].startswith("-")]
    if found and loose:
        got = f"{loose[0]} at the start of a line"
        raise InputError(where, None, got, "a backslash at the end of the line before")
    if len(found) == 1:
        return found[0]
    got = f"{len(found)} servers" if found else "no server"
    allowed = "one line with vllm serve MODEL …, sglang.launch_server, trtllm-serve, or docker run"
    raise InputError(where, None, got, allowed)


def launches_in(commands: Sequence[Sequence[str]], where: str, depth: int = 0) -> list[Launch]:
    """Return every server that ``commands`` start, with the environment set before it."""
    if depth > _DEEPEST:
        raise InputError(where, None, "shells in shells", f"at most {_DEEPEST} levels")
    exported: dict[str, str] = {}
    found: list[Launch] = []
    for words in commands:
        first = 1 if words[0] in ("export", "declare") else 0
        set_here = _leading_assignments(words[first:])
        if first or len(set_here) == len(words):
            exported |= set_here
            continue
        launch = _launch_of(words, where, depth)
        if launch is not None:
            launch = replace(launch, environment={**exported, **launch.environment})
            found.append(replace(launch, gpus=launch.gpus or visible_gpus(launch.environment)))
    return found


def _leading_assignments(words: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        assignment = _ASSIGNMENT.fullmatch(word)
        if assignment is None:
            break
        found[assignment[1]] = assignment[2]
    return found


def _launch_of(words: Sequence[str], where: str, depth: int) -> Launch | None:
    """Return the server that one command starts, None if it starts none."""
    for at, word in enumerate(words):
        launch = _launch_at(words, at, word.rpartition("/")[2], where, depth)
        if launch is not None:
            before = [one for one in words[:at] if not _ASSIGNMENT.fullmatch(one)]
            around = {
                one[1]: one[2] for one in map(_ASSIGNMENT.fullmatch, words[:at]) if one is not None
            }
            return replace(
                launch,
                environment={**around, **launch.environment},
                not_read=(*before, *launch.not_read),
            )
    return None


def _launch_at(
    words: Sequence[str], at: int, program: str, where: str, depth: int
) -> Launch | None:
    rest = tuple(words[at + 1 :])
    if program in _SUBCOMMANDS and rest[:1] == ("serve",):
        return Launch(engine=_SUBCOMMANDS[program], words=rest[1:])
    if program == "trtllm-serve":
        return Launch(engine="trtllm", words=rest[1:] if rest[:1] == ("serve",) else rest)
    if _PYTHON.fullmatch(program):
        return _python_module(rest)
    if program in _SHELLS:
        script = next((i for i, one in enumerate(rest) if re.fullmatch(r"-[a-z]*c", one)), None)
        if script is not None and script + 1 < len(rest):
            inner = launches_in(split_commands(rest[script + 1], where), where, depth + 1)
            return only_one(inner, where) if inner else None
    if program in _CONTAINERS and "run" in rest:
        return _container(rest[rest.index("run") + 1 :], where, depth)
    return None


def _python_module(rest: tuple[str, ...]) -> Launch | None:
    if "-m" not in rest:
        return None
    behind = rest[rest.index("-m") + 1 :]
    if behind and behind[0] in _MODULES:
        return Launch(engine=_MODULES[behind[0]], words=behind[1:])
    return None


def _container(words: Sequence[str], where: str, depth: int) -> Launch | None:
    """Return the server in ``docker run``'s words: options, the image, and words for it."""
    environment: dict[str, str] = {}
    gpus: GpuCount | None = None
    entrypoint: list[str] = []
    at = 0
    while at < len(words) and words[at].startswith("-"):
        option, equals, value = words[at].partition("=")
        bundle = re.fullmatch(r"-[ditqP]+", option) is not None
        at += 1
        if not equals and option not in _VALUELESS and not bundle:
            value = words[at] if at < len(words) else ""
            at += 1
        if option in ("-e", "--env"):
            name, _, setting = value.partition("=")
            environment[name] = setting
        elif option == "--gpus":
            gpus = _docker_gpus(value)
        elif option == "--entrypoint":
            entrypoint = value.split()
    if at >= len(words):
        return None
    launch = launch_in_image(words[at], entrypoint, words[at + 1 :], where, depth)
    return launch and replace(launch, environment={**environment, **launch.environment}, gpus=gpus)


def launch_in_image(
    image: str, entrypoint: Sequence[str], arguments: Sequence[str], where: str, depth: int = 0
) -> Launch | None:
    """Return the server that a container of ``image`` starts, None if that cannot be told."""
    launch = _launch_of([*entrypoint, *arguments], where, depth)
    if launch is None and not entrypoint and "vllm" in image.lower() and arguments:
        launch = Launch(engine="vllm", words=tuple(arguments))
    tag = _VLLM_TAG.search(image)
    return launch and replace(launch, image_version=tag[1] if tag else None)


def _docker_gpus(value: str) -> GpuCount | None:
    text = value.strip("'\"")
    if text.isdecimal():
        return GpuCount(int(text), f"--gpus {text}")
    if (devices := re.search(r"device=([^\"']+)", text)) is not None:
        return GpuCount(len(devices[1].split(",")), f"--gpus {text}")
    return None


def visible_gpus(environment: Mapping[str, str]) -> GpuCount | None:
    """Return how many GPUs CUDA_VISIBLE_DEVICES lists; None if it is absent or a variable."""
    devices = environment.get("CUDA_VISIBLE_DEVICES")
    if not devices or "$" in devices or devices == "all":
        return None
    return GpuCount(len(devices.split(",")), f"CUDA_VISIBLE_DEVICES={devices}")
