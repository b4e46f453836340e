"""The list of a kit's files: what each is, where it comes from, and its SHA-256."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

from simserve.errors import InputError, reason_of

NAME: Final = "MANIFEST.json"
SCHEMA: Final = 1
WHEEL, KERNELS, MODULES = "wheel", "kernels", "flashinfer-modules"
KINDS: Final = (WHEEL, KERNELS, MODULES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One file of a kit.

    ``unpacked`` is the name of the file inside, ``unpacked_sha256`` its sum; both are empty for
    an archive of several.
    """

    file: str  # relative to the kit
    kind: str
    name: str
    version: str
    licence: str
    source: str
    bytes: int
    sha256: str
    unpacked: str = ""
    unpacked_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A kit's files, and the Python that they are for."""

    python: str
    made: str  # date, ISO 8601
    items: tuple[Item, ...]

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(item.bytes for item in self.items)

    def write(self, kit: Path) -> None:
        """Write the list into the kit's folder."""
        content = {
            "schema": SCHEMA,
            "python": self.python,
            "made": self.made,
            "files": [asdict(item) for item in self.items],
        }
        (kit / NAME).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read(kit: Path) -> Manifest:
    """Return the list of a kit, unverified.

    Raises:
        InputError: if there is none, or if it is not one of ours.
    """
    path = kit / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise InputError(str(path), "schema", content["schema"], str(SCHEMA))
        items = tuple(Item(**each) for each in content["files"])
        manifest = Manifest(content["python"], content["made"], items)
    except FileNotFoundError as error:
        raise InputError(
            str(path), None, "no such file", "a kit (calibrate.kit collect)"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(str(path), None, reason_of(error), "a list of a kit's files") from error
    for item in items:
        _check(path, item)
    return manifest


def verify(kit: Path, item: Item) -> bytes:
    """Return the content of a file of the kit.

    Raises:
        InputError: if it is missing, or not the file that was collected.
    """
    path = kit / item.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(str(path), None, error.strerror, "a file of the kit") from error
    found = sha256(content)
    if found != item.sha256:
        raise InputError(str(path), "sha256", f"{found[:12]}…", f"{item.sha256[:12]}…, as listed")
    return content


def sha256(content: bytes) -> str:
    """Return the sum in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _check(path: Path, item: Item) -> None:
    """Refuse an item of wrong types, of an unknown kind, or that points out of the kit."""
    for field in fields(item):
        wanted = int if field.name == "bytes" else str
        got = getattr(item, field.name)
        if type(got) is not wanted:
            raise InputError(str(path), f"{item.file}.{field.name}", got, wanted.__name__)
    if item.kind not in KINDS:
        raise InputError(str(path), f"{item.file}.kind", item.kind, ", ".join(KINDS))
    for name in (item.file, item.unpacked):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(str(path), item.file, name, "a path inside the kit")
