"""Gives one damaged file to the loaders that a user's file would reach."""

from __future__ import annotations

import contextlib
import random
import shutil
import warnings
from pathlib import Path
from unittest import mock

from tests.fuzz.seeds import Seed

_MOST_DRAWN = 1_000_000


def load(seed: Seed, content: bytes, folder: Path, rng: random.Random) -> None:
    """Write the damaged ``content`` of ``seed`` into ``folder`` and load it.

    Whatever a loader raises is left to the caller; a warning counts as an error, because
    the command line would print it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _LOADERS[seed.kind](seed, content, folder, rng)


def _yaml(seed: Seed, content: bytes, folder: Path, rng: random.Random) -> None:
    from simserve.inputs.hardware_profile import read_gpu
    from simserve.inputs.model_catalogue import read_model
    from simserve.inputs.scenario import load_scenario
    from simserve.inputs.yaml_reader import read_yaml

    path = _written(folder, "f.yaml", content)
    if seed.role == "device":
        read_gpu(read_yaml(path), str(path))
    elif seed.role == "model":
        read_model(read_yaml(path), str(path))
    elif seed.role == "scenario":
        load_scenario(path).resolved()
    elif seed.role == "workload":
        load_scenario(workload=path)
    else:
        load_scenario(deployment=path)


def _trace(seed: Seed, content: bytes, folder: Path, rng: random.Random) -> None:
    from simserve.traffic.prometheus_import import read_service_load, workload_text
    from simserve.traffic.trace_formats import FORMATS, Part, read_trace, servegen

    path = _written(folder, "trace", content)
    if seed.role == "prometheus":
        workload_text(read_service_load(path, seconds=3600.0, since=None, model=None), path.name)
        return
    asked = rng.choice([None, None, None, None, *FORMATS])
    part = rng.choice([Part(), Part(), Part(head=5), Part(from_s=1, to_s=30)])
    # A pool of clients may promise 100 million requests, and then they are drawn.
    with mock.patch.object(servegen, "MOST_REQUESTS", _MOST_DRAWN):
        trace = read_trace(
            path,
            asked,
            part,
            rate_per_s=rng.choice((None, 1.0)),
            skip_incomplete=asked == "otel" and rng.random() < 0.5,
        )
    table = trace.requests
    _must(all(note.isprintable() for note in trace.notes), "a note that is no line")
    _must(len(table) > 0 and int(table.prompt_tokens.min()) >= 1, "a prompt without a token")
    _must(int(table.output_tokens.min()) >= 1, "a request without an output token")
    _must(bool((table.arrival_ps[1:] >= table.arrival_ps[:-1]).all()), "arrivals go back")


def _config(seed: Seed, content: bytes, folder: Path, rng: random.Random) -> None:
    from simserve.inputs.model_catalogue import load_model
    from simserve.inputs.scenario import load_scenario

    path = _written(folder, "config.json", content)
    if rng.random() < 0.5:
        load_scenario(model=str(path), gpu="h200-sxm").resolved()
    else:
        load_model(str(path))


def _serve_cmd(seed: Seed, content: bytes, folder: Path, rng: random.Random) -> None:
    from simserve.inputs.scenario import load_scenario

    name = "m.yaml" if seed.role == "manifest" else "launch.sh"
    path = _written(folder, name, content)
    with contextlib.chdir(folder):
        scenario = load_scenario(serve_cmd=f"@{path}", gpu="h200-sxm")
    _must(scenario.launch_line is not None, "no launch line in the scenario")
    for note in scenario.launch_line.notes if scenario.launch_line else ():
        _must(note.isprintable(), "a note that is no line")


def _json_result(seed: Seed, content: bytes, folder: Path, rng: random.Random) -> None:
    from simserve.parity.case_file import load_case, load_expected
    from simserve.results.folder_laws import check_folder

    if seed.role == "case":
        load_case(_written(folder, "c.case.json", content))
        return
    place = folder / "result"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name, whole in seed.beside.items():
        (place / name).write_bytes(whole)
    (place / seed.role).write_bytes(content)
    if seed.role.endswith(".expected.jsonl"):
        load_expected(place / "c.case.json")
        return
    for broken in check_folder(place):
        _must(len(str(broken).splitlines()) == 1, "a broken law of several lines")


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


def _written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


_LOADERS = {
    "yaml": _yaml,
    "trace": _trace,
    "config": _config,
    "serve-cmd": _serve_cmd,
    "json-result": _json_result,
}
