"""The loop built as C: the same run to the byte, and the same steps as the plain rules."""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEADER = Path(sysconfig.get_path("include"), "Python.h")
EXTENSION = sysconfig.get_config_var("EXT_SUFFIX") or ".so"
SCENARIOS = {
    "default": (),
    "in turn": ("async_scheduling=false", "workload.arrivals.rate_per_s=25"),
    "static": ("scheduler=static", "workload.arrivals.rate_per_s=2"),
    "few blocks": ("num_gpu_blocks=1500", "max_model_len=16384", "workload.arrivals.rate_per_s=20"),
    "two replicas": ("replicas=2", "router=least-loaded", "workload.arrivals.rate_per_s=40"),
    "small steps": ("max_num_batched_tokens=512", "max_num_seqs=32"),
}
"""One of each: planning ahead and in turn, pressure, replicas behind a router, chunks."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler"),
    pytest.mark.skipif(not HEADER.is_file(), reason="no headers of Python for C"),
]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds the compiled packages; nothing is downloaded."""
    folder = tmp_path_factory.mktemp("compiled")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder), "-t"]
    subprocess.run([*build, "sdist"], cwd=ROOT, check=True, capture_output=True)
    (archive,) = folder.iterdir()
    shutil.unpack_archive(archive, folder / "source")
    archive.unlink()
    (source,) = (folder / "source").iterdir()
    asked = os.environ | {"HATCH_BUILD_HOOK_ENABLE_MYPYC": "1"}
    done = subprocess.run(
        [*build, "wheel"], cwd=source, env=asked, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "site")
    return folder / "site"


def simserve(site: Path, *arguments: str) -> str:
    """Return what a command prints, with the packages in ``site``."""
    done = subprocess.run(
        [sys.executable, "-m", "simserve", *arguments],
        cwd=site,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def test_the_loop_is_compiled_and_says_so(compiled: Path) -> None:
    for room, module in (("engine", "replica"), ("policy", "cohort"), ("latency", "roofline")):
        assert (compiled / "simserve" / room / f"{module}{EXTENSION}").is_file()
    assert "(compiled)" in simserve(compiled, "--version")
    assert "(compiled)" not in simserve(ROOT, "--version")


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_compiled_run_is_the_same_to_the_byte(name: str, compiled: Path, tmp_path: Path) -> None:
    settings = [word for setting in SCENARIOS[name] for word in ("--set", setting)]
    for site, out in ((compiled, tmp_path / "compiled"), (ROOT, tmp_path / "source")):
        simserve(site, "run", *settings, "--out", str(out))
    written = sorted(path.name for path in (tmp_path / "source").iterdir())
    assert len(written) == 3
    same, _, _ = filecmp.cmpfiles(
        tmp_path / "compiled", tmp_path / "source", written, shallow=False
    )
    assert sorted(same) == written


def test_compiled_steps_are_those_of_the_plain_rules(compiled: Path) -> None:
    assert "0 diverging of 300 scenarios" in simserve(compiled, "verify", "--fuzz", "300")
