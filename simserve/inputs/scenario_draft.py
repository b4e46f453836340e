"""A scenario being put together from files and options, before anything is checked.

It remembers where each value was given, so that a complaint names that place.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simserve.errors import InputError, nearest_name
from simserve.inputs.data_files import data_dir, normal_name
from simserve.inputs.launch_line.read import LaunchLine
from simserve.inputs.settings import TOP_KEYS, with_value
from simserve.inputs.slo import Slo, parse_slo
from simserve.inputs.sourced import refuse_unknown_keys
from simserve.inputs.validation import Origins
from simserve.inputs.yaml_reader import read_yaml

DEFAULT_SCENARIO = "chat"
LARGEST_SEED = 2**63 - 1
_PART_KEYS = {
    "--rate": "rate_per_s",
    "--head": "head",
    "--from": "from_s",
    "--to": "to_s",
    "--trace-columns": "columns",
}


class Draft:
    """The parts of a scenario as they were written; later ones replace earlier ones."""

    def __init__(self, entry: dict[str, Any], where: str, name: str) -> None:
        self.entry = entry
        self.origins = Origins(where)
        self.default_name = name

    def forget_promises(self) -> None:
        """Drop name and SLO, which belong to the workload that is about to be replaced."""
        self.entry = {key: one for key, one in self.entry.items() if key not in ("name", "slo")}

    @classmethod
    def from_file(cls, path: str | Path | None) -> Draft:
        """Return the draft in the scenario file ``path``; None is the scenario that ships."""
        file, shown = _find_scenario(path)
        return cls.from_mapping(read_yaml(file), shown, file.parent, file.stem)

    @classmethod
    def from_mapping(cls, entry: dict[str, Any], where: str, folder: Path, name: str) -> Draft:
        """Return the draft that ``entry`` describes; its file names are relative to ``folder``."""
        refuse_unknown_keys(entry, TOP_KEYS, where)
        draft = cls(dict(entry), where, name)
        for key in ("workload", "deployment"):
            section = entry.get(key)
            if isinstance(section, str):
                draft._take_file(key, *_find_file(section, folder, where, key))
            elif key == "workload":
                draft.entry[key] = _anchored(section, folder)
        return draft

    def replace_section(self, key: str, file: str | Path, option: str) -> None:
        """Put the section that ``file`` holds in place of the present one."""
        self._take_file(key, *_find_file(str(file), Path(), option, None))
        self.default_name = Path(file).stem if key == "workload" else self.default_name

    def use_launch_line(self, line: LaunchLine, keep_gpu: bool) -> None:
        """Make the deployment what a launch line says; the GPU is not in it, and may be kept."""
        before = self.entry.get("deployment")
        kept: dict[str, Any] = {}
        if keep_gpu and isinstance(before, dict) and "gpu" in before:
            kept = {"gpu": before["gpu"]}
        gpu_from = self.origins.where("deployment.gpu")
        self.entry["deployment"] = kept | line.deployment
        self.origins.note("deployment", "--serve-cmd")
        for key, origin in line.origins.items():
            self.origins.note(f"deployment.{key}", origin)
        if kept:
            self.origins.note("deployment.gpu", gpu_from)

    def check_launch_line(self) -> None:
        """Refuse a launch line beside which nobody named the GPU."""
        section = self.entry.get("deployment")
        if isinstance(section, dict) and section.get("gpu") is None:
            allowed = "--gpu NAME beside it: a launch line does not name the hardware"
            raise InputError("--serve-cmd", "deployment.gpu", "nothing", allowed)

    def use_trace(self, file: str | Path | None, trace_format: str | None) -> None:
        """Make the workload the trace ``file``; without one, only set the trace's format."""
        if file is not None:
            self.entry["workload"] = {"trace": {"file": str(file)}}
            self.origins.note("workload", "--trace")
            self.default_name = Path(file).name.split(".")[0] or Path(file).name
        if trace_format is not None:
            workload = self.entry.get("workload")
            if not isinstance(workload, dict) or "trace" not in workload:
                raise InputError("--trace-format", None, trace_format, "a trace to go with it")
            self.set("workload.trace.format", trace_format, "--trace-format")

    def use_part(self, options: Mapping[str, object]) -> None:
        """Set how fast requests arrive, and what of a trace is read, where that is given."""
        section = self.entry.get("workload")
        workload = section if isinstance(section, dict) else {}
        traced = workload.get("trace") is not None
        timed = traced and "arrivals" not in workload
        for option, value in options.items():
            if value is None:
                continue
            if option == "--rate" and not timed:
                self.set("workload.arrivals.rate_per_s", value, option)
            elif traced:
                self.set(f"workload.trace.{_PART_KEYS[option]}", value, option)
            else:
                got = ",".join(value) if isinstance(value, dict) else value
                allowed = "a trace to read; num_requests and duration_s say how much is made up"
                raise InputError(option, None, got, allowed)

    def set(self, path: str, value: Any, where: str) -> None:
        """Set the dotted key ``path``; refuse to set it twice from the command line."""
        for before in (self.origins.given(path) or "", *self.origins.given_below(path)):
            if before.startswith("--"):
                raise InputError(where, path, "a second value", f"one of {before} and {where}")
        self.entry = with_value(self.entry, path.split("."), value)
        self.origins.note(path, where)

    def section(self, key: str) -> object:
        """Return the section as it is now; refuse a draft without it."""
        if self.entry.get(key) is None:
            raise InputError(
                self.origins.default, key, "nothing", f"a {key}, or the name of a file"
            )
        return self.entry[key]

    def checked_slo(self) -> Slo | None:
        """Return the objectives, None if there are none."""
        value = self.entry.get("slo")
        return None if value is None else parse_slo(value, self.origins.where("slo"), "slo")

    def checked_seed(self) -> int:
        """Return the seed, 0 if none was given."""
        seed = self.entry.get("seed")
        if seed is None:
            return 0
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED:
            allowed = f"an integer from 0 to {LARGEST_SEED}"
            raise InputError(self.origins.where("seed"), "seed", seed, allowed)
        return seed

    def checked_name(self) -> str:
        """Return the scenario's name: as given, else after its file."""
        name = self.entry.get("name")
        if name is None:
            return self.default_name
        if not isinstance(name, str) or not name.strip():
            raise InputError(self.origins.where("name"), "name", name, "text")
        return name

    def checked_start_date(self) -> str | None:
        """Return when the simulated clock starts, in ISO form, None if that was not given."""
        date = self.entry.get("start_date")
        if date is None:
            return None
        allowed = "a date such as 2026-11-20 or 2026-11-20T09:00:00"
        try:
            return dt.datetime.fromisoformat(date).isoformat()
        except (TypeError, ValueError):
            where = self.origins.where("start_date")
            raise InputError(where, "start_date", date, allowed) from None

    def _take_file(self, key: str, file: Path, shown: str) -> None:
        content: Any = read_yaml(file)
        section = content.get(key, content)
        if isinstance(section, str):
            nested, shown = _find_file(section, file.parent, shown, key)
            content, file = read_yaml(nested), nested
            section = content.get(key, content)
        self.entry[key] = _anchored(section, file.parent) if key == "workload" else section
        self.origins.note(key, shown)


def _anchored(workload: object, folder: Path) -> object:
    """Return ``workload`` with a relative trace file put under ``folder``."""
    if not isinstance(workload, dict) or not isinstance(workload.get("trace"), dict):
        return workload
    file = workload["trace"].get("file")
    if not isinstance(file, str) or not file:
        return workload
    return with_value(workload, ["trace", "file"], str(folder / file))


def _find_scenario(path: str | Path | None) -> tuple[Path, str]:
    """Return the scenario file and how to show its name."""
    if path is None:
        return _shipped(DEFAULT_SCENARIO)
    return _find_file(str(path), Path(), str(path), None)


def _find_file(name: str, folder: Path, where: str, which: str | None) -> tuple[Path, str]:
    """Return the file ``name`` in ``folder``, or the shipped scenario of that name."""
    file = folder / name
    try:
        exists = file.exists()
    except (OSError, ValueError):
        exists = False
    if exists:
        return file, str(file)
    shipped = sorted(found.stem for found in data_dir("workloads").glob("*.yaml"))
    if normal_name(name) in shipped:
        return _shipped(normal_name(name))
    try:
        beside = {one.stem: one.name for one in file.parent.glob("*.yaml")}
    except (OSError, ValueError):
        beside = {}
    near = nearest_name(normal_name(name), shipped)
    near = near or beside.get(nearest_name(file.stem, beside) or "")
    hint = f"; did you mean {near}?" if near else ""
    allowed = f"an existing file, or one of {', '.join(shipped)}{hint}"
    raise InputError(where, which, "no such file" if which is None else name, allowed)


def _shipped(name: str) -> tuple[Path, str]:
    return data_dir("workloads") / f"{name}.yaml", f"workloads/{name}.yaml"
