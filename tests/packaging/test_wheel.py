"""What is built is what is meant to travel, and it runs where no checkout is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA_FOLDERS = ("hardware_profiles", "workloads")


def _build(kind: str, source: Path, folder: Path) -> Path:
    """Build with the hatchling of this environment; nothing is downloaded."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


def _files(folder: Path, pattern: str = "**/*") -> set[str]:
    """Return the files below ``folder`` that belong to the project, as posix paths."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.glob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def wheel_files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_holds_every_data_file(wheel_files: set[str]) -> None:
    for name in DATA_FOLDERS:
        expected = {f"simserve/_data/{name}/{path}" for path in _files(ROOT / name)}
        assert expected, f"{name} is empty"
        assert expected <= wheel_files


def test_wheel_holds_the_catalogue_and_the_type_marker(wheel_files: set[str]) -> None:
    catalogue = _files(ROOT / "simserve", "inputs/catalogue/**/*.yaml")
    assert catalogue
    assert {f"simserve/{path}" for path in catalogue} <= wheel_files
    assert "simserve/py.typed" in wheel_files


def test_wheel_holds_nothing_but_the_packages_and_their_licence(
    wheel: Path, wheel_files: set[str]
) -> None:
    name, version, *_ = wheel.stem.split("-")
    metadata = f"{name}-{version}.dist-info/"
    ours = ("simserve/", "calibrate/", metadata)
    strangers = {path for path in wheel_files if not path.startswith(ours)}
    assert not strangers
    assert f"{metadata}licenses/LICENSE" in wheel_files


def test_wheel_built_from_the_sdist_is_the_same(wheel_files: set[str], tmp_path: Path) -> None:
    sdist = _build("sdist", ROOT, tmp_path / "dist")
    shutil.unpack_archive(sdist, tmp_path / "unpacked")
    (source,) = (tmp_path / "unpacked").iterdir()
    rebuilt = _build("wheel", source, tmp_path / "again")
    with zipfile.ZipFile(rebuilt) as archive:
        assert set(archive.namelist()) == wheel_files


@pytest.mark.slow
def test_installed_wheel_runs_the_default_workload_outside_the_checkout(
    wheel: Path, tmp_path: Path
) -> None:
    environment, elsewhere = tmp_path / "venv", tmp_path / "elsewhere"
    elsewhere.mkdir()
    venv.create(environment, with_pip=True)
    tools = environment / ("Scripts" if os.name == "nt" else "bin")
    subprocess.run(
        [tools / "python", "-m", "pip", "install", "--quiet", str(wheel)],
        check=True,
        cwd=elsewhere,
    )
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV"))
    }
    command = shutil.which("simserve", path=str(tools))
    assert command is not None
    done = subprocess.run(
        [command, "run"], cwd=elsewhere, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "TTFT" in done.stdout
