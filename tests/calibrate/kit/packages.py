"""Tiny packages in place of those on PyPI, so that a kit is made without network."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from calibrate.kit import collect as collecting
from calibrate.kit import parts, wheels

KERNEL = b"\x7fELF" + bytes(range(256)) * 50


def wheel(folder: Path, name: str, version: str, **files: bytes | str) -> Path:
    """Write a pure wheel whose one module is ``NAME.py``, besides ``files``."""
    distribution = name.replace("-", "_")
    facts = f"{distribution}-{version}.dist-info"
    path = folder / f"{distribution}-{version}-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nLicense: MIT\n"
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    inside = {f"{distribution}.py": f"version = {version!r}\n", **files}
    inside |= {f"{facts}/METADATA": metadata, f"{facts}/WHEEL": tags}
    record = "".join(f"{each},,\n" for each in [*inside, f"{facts}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in (inside | {f"{facts}/RECORD": record}).items():
            archive.writestr(zipfile.ZipInfo(member), content)  # always the same bytes
    return path


class Downloads:
    """``wheels.download`` of a world in which every package is tiny."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, name: str, version: str, folder: Path) -> Path:
        self.asked.append(f"{name}=={version}")
        files = {}
        if name == parts.VLLM.name:
            files = {part.member: KERNEL + part.file.encode() for part in parts.FROM_VLLM}
        return wheel(folder, name, version, **files)


def tiny_world(monkeypatch: pytest.MonkeyPatch, repository_bytes: int = 0) -> Downloads:
    """Replace pip, git and the Python version of the host by those of a test."""
    import sys

    downloads = Downloads()
    monkeypatch.setattr(wheels, "download", downloads)
    monkeypatch.setattr(wheels, "installed_version", lambda name: "1.0")
    monkeypatch.setattr(collecting, "repository_bytes", lambda folder: repository_bytes)
    monkeypatch.setattr(collecting, "PYTHON", sys.version_info[:2])
    return downloads
