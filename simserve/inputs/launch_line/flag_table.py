"""The flags of an engine as dated data: their spelling, their values, and what each means here.

Every flag is *modelled* (it becomes a setting), *irrelevant* (no effect on the simulation),
*refused* (it changes timing in a way that is not modelled) or *expanded* (it names a file of
further flags).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simserve.errors import InputError, nearest_name
from simserve.inputs.data_files import CATALOGUE
from simserve.inputs.yaml_reader import read_yaml

MODELLED, IRRELEVANT, REFUSED, EXPANDED = "modelled", "irrelevant", "refused", "expanded"
_INVERSES = {"--enable-": "--disable-", "--disable-": "--enable-"}
_ENGINES = CATALOGUE / "engines"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One flag. ``same`` are values that change nothing, beside ``default``."""

    name: str
    kind: str
    default: Any
    meaning: str
    aliases: tuple[str, ...] = ()
    choices: tuple[Any, ...] = ()
    optional: bool = False
    setting: str = ""
    why: str = ""
    same: tuple[Any, ...] = ()

    @property
    def takes_no_value(self) -> bool:
        """Whether the flag alone says all."""
        return self.kind in ("flag", "switch")

    @property
    def negations(self) -> Iterator[str]:
        """The spellings that say no: ``--no-x`` and the inverse of ``--enable-x``."""
        if self.kind != "flag":
            return
        for name in (self.name, *self.aliases):
            if name.startswith("--"):
                yield f"--no-{name.removeprefix('--')}"
            for prefix, inverse in _INVERSES.items():
                if name.startswith(prefix):
                    yield inverse + name.removeprefix(prefix)


class FlagTable:
    """All flags of one engine version, by every way to spell them."""

    def __init__(
        self, engine: str, version: str, date: str, flags: list[Flag], rest: Mapping[str, Any]
    ) -> None:
        self.engine, self.version, self.date, self.flags = engine, version, date, flags
        self.gone: Mapping[str, str] = rest.get("gone") or {}
        environment = rest.get("environment") or {}
        self.harmless_variables = frozenset(str(environment.get("irrelevant", "")).split())
        self.only_values: Mapping[str, str] = environment.get("only") or {}
        self.remarks: tuple[str, ...] = tuple(rest.get("remarks") or ())
        self._spellings: dict[str, tuple[Flag, bool]] = {}
        for flag in flags:
            for spelling in (flag.name, *flag.aliases):
                self._spellings[spelling] = (flag, True)
        for flag in flags:
            for spelling in flag.negations:
                self._spellings.setdefault(spelling, (flag, False))

    def find(self, spelling: str) -> tuple[Flag, bool] | None:
        """Return the flag and whether the spelling affirms it, None for an unknown one."""
        return self._spellings.get(spelling)

    def unknown(self, where: str, spelling: str) -> InputError:
        """Return the error for a spelling that is not in the table."""
        if spelling in self.gone:
            got = f"a flag that {self.engine} {self.version} does not have any more"
            return InputError(where, spelling, got, self.gone[spelling])
        near = nearest_name(spelling, [name for name in self._spellings if name.startswith("--")])
        allowed = f"a flag of {self.engine} {self.version} that simserve knows"
        hint = f"; did you mean {near}?" if near else ""
        return InputError(where, spelling, "an unknown flag", allowed + hint)

    def for_setting(self, setting: str) -> Flag | None:
        """Return the flag that becomes ``setting``."""
        return next((flag for flag in self.flags if flag.setting == setting), None)


@functools.cache
def vllm_table() -> FlagTable:
    """Return the table of vLLM 0.33: the facts of its wheel, joined with what they mean."""
    facts = json.loads((_ENGINES / "vllm-0.33-flags.json").read_text(encoding="utf-8"))
    file = _ENGINES / "vllm-0.33-flag-classes.yaml"
    classes = read_yaml(file)
    meanings = _meanings(classes)
    rows = facts["flags"]
    missing = {row["name"] for row in rows} ^ set(meanings)
    if missing:
        raise InputError(str(file), min(missing), "a flag in one of two files", "the same flags")
    flags = [_flag(row, meanings[row["name"]]) for row in rows]
    return FlagTable(facts["engine"], facts["version"], facts["date"], flags, classes)


def _meanings(classes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {
        name: {"meaning": MODELLED, "setting": setting}
        for name, setting in classes[MODELLED].items()
    }
    found[classes[EXPANDED]] = {"meaning": EXPANDED}
    for meaning in (IRRELEVANT, REFUSED):
        for group in classes[meaning]:
            words = {"meaning": meaning, "why": group["why"], "same": group.get("same", ())}
            found |= dict.fromkeys(group["flags"].split(), words)
    return found


def _flag(row: Mapping[str, Any], meaning: Mapping[str, Any]) -> Flag:
    return Flag(
        name=row["name"],
        kind=row["kind"],
        default=row.get("default"),
        meaning=meaning["meaning"],
        aliases=tuple(row.get("aliases", ())),
        choices=tuple(row.get("choices", ())),
        optional=row.get("optional", False),
        setting=meaning.get("setting", ""),
        why=meaning.get("why", ""),
        same=tuple(meaning.get("same", ())),
    )


@functools.cache
def other_table(engine: str) -> FlagTable:
    """Return the table of ``sglang`` or ``trtllm``: their main flags, in one file each."""
    entry = read_yaml(_other_file(engine))
    flags = [_flag(row, {"meaning": MODELLED} | row) for row in entry[MODELLED]]
    flags += [_flag(row, {"meaning": REFUSED} | row) for row in entry[REFUSED]]
    for kind, names in entry[IRRELEVANT].items():
        for name in names.split():
            flags.append(Flag(name=name, kind=kind, default=None, meaning=IRRELEVANT))
    return FlagTable(entry["name"], entry["version"], entry["date"], flags, entry)


def _other_file(engine: str) -> Path:
    return _ENGINES / f"{engine}-flags.yaml"
