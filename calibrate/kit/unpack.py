"""Unpack a kit on the host: verify every file, install the wheels, decompress the kernels."""

from __future__ import annotations

import io
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from calibrate.kit import manifest
from calibrate.kit.manifest import Item, Manifest
from calibrate.kit.parts import MIB
from simserve.errors import InputError

Say = Callable[[str], None]
SITE: Final = "site"
_PREBUILT: Final = Path(SITE, "flashinfer", "data", "aot")  # where FlashInfer looks for modules


def unpack(kit: Path, target: Path, say: Say) -> None:
    """Unpack ``kit`` into the folder ``target``: ``site`` for Python, ``kernels`` for torch.

    The list of files is written last: a folder that has it is complete, and is left alone if it
    is of the same kit.

    Raises:
        InputError: if the kit is broken or for another Python, or if pip fails.
    """
    listed = manifest.read(kit)
    _check_python(kit, listed)
    if _is_done(listed, target):
        say(f"{target}: unpacked before, {len(listed.items)} parts")
        return
    contents = {item: manifest.verify(kit, item) for item in listed.items}
    say(f"{kit}: {len(contents)} files verified, {listed.bytes / MIB:.2f} MiB")
    if target.exists():
        shutil.rmtree(target)
    (target / "kernels").mkdir(parents=True)
    _install(kit, [item for item in contents if item.kind == manifest.WHEEL], target, say)
    for item, content in contents.items():
        if item.kind == manifest.KERNELS:
            _decompress(item, content, target, say)
        elif item.kind == manifest.MODULES:
            _prebuilt(item, content, target, say)
    listed.write(target)


def environment(target: Path) -> dict[str, str]:
    """Return the variables under which Python finds what was unpacked."""
    paths = [str(target / SITE), os.environ.get("PYTHONPATH", "")]
    found = {
        "CALIBRATE_KIT": str(target),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "FLASHINFER_WORKSPACE_BASE": str(target),  # the home folder may be read-only
    }
    if (target / _PREBUILT).is_dir():
        found["FLASHINFER_DISABLE_JIT"] = "1"
    return found


def _check_python(kit: Path, listed: Manifest) -> None:
    here = ".".join(map(str, sys.version_info[:2]))
    if here != listed.python:
        raise InputError(str(kit), "python", here, f"{listed.python}, as the kit's wheels")


def _is_done(listed: Manifest, target: Path) -> bool:
    return (target / manifest.NAME).is_file() and manifest.read(target) == listed


def _install(kit: Path, items: list[Item], target: Path, say: Say) -> None:
    """Install the wheels beside the host's own packages, which stay untouched."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    command += ["--no-compile", "--no-cache-dir", "--disable-pip-version-check"]
    command += ["--target", str(target / SITE)]
    command += [str(kit / item.file) for item in items]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise InputError(str(kit), "wheels", said[-1] if said else "pip failed", "installable")
    for item in items:
        say(f"{item.name} {item.version}: installed")


def _decompress(item: Item, content: bytes, target: Path, say: Say) -> None:
    raw = lzma.decompress(content)
    if manifest.sha256(raw) != item.unpacked_sha256:
        raise InputError(item.file, "unpacked_sha256", "another sum", item.unpacked_sha256)
    (target / "kernels" / item.unpacked).write_bytes(raw)
    say(f"{item.unpacked}: {len(raw) / MIB:.1f} MiB, from {item.name} {item.version}")


def _prebuilt(item: Item, content: bytes, target: Path, say: Say) -> None:
    place = target / _PREBUILT
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:xz") as archive:
        archive.extractall(place, filter="data")
    say(f"{item.name} {item.version}: {len(list(place.glob('*/*.so')))} prebuilt modules")
