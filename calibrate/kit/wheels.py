"""Wheels for the host's Python, fetched with pip."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

from calibrate.kit.parts import PLATFORMS, PYTHON
from simserve.errors import InputError


def installed_version(name: str) -> str:
    """Return the version of an installed package.

    Raises:
        InputError: if it is not installed.
    """
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError("collect", name, "not installed here", "an installed package") from error


def download(name: str, version: str, folder: Path) -> Path:
    """Return the wheel of a package for the host, fetched into ``folder``.

    Raises:
        InputError: if pip cannot get it.
    """
    before = set(folder.glob("*.whl"))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation", "cp"]
    command += ["--python-version", ".".join(map(str, PYTHON)), "--dest", str(folder)]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    wanted = f"{name}=={version}"
    done = subprocess.run([*command, wanted], capture_output=True, text=True, check=False)
    new = set(folder.glob("*.whl")) - before
    if done.returncode or len(new) != 1:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise InputError("collect", wanted, said[-1] if said else "no wheel", "a wheel on PyPI")
    return new.pop()


def licence(wheel: Path) -> str:
    """Return the licence that a wheel states about itself."""
    facts = _metadata(wheel)
    stated = facts["License-Expression"] or facts["License"] or ""
    classified = [
        line.rpartition(" :: ")[2]
        for line in facts.get_all("Classifier", [])
        if line.startswith("License :: ")
    ]
    short = stated.strip().splitlines()[0] if stated.strip() else ""
    return short or ", ".join(classified) or "not stated"


def _metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode("utf-8"))
