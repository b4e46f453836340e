"""What stands behind the Makefile: make a virtual environment, then run one task in it.

Only the standard library is used, so that it starts on a machine with nothing but Python.
The environment is made once and brought up to date when ``pyproject.toml`` changes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = "Scripts" if os.name == "nt" else "bin"
VENV = ROOT / ".venv"
BIN = VENV / SCRIPTS
PYTHON = BIN / "python"
COMPILED_VENV = ROOT / ".venv-compiled"
COMPILED_PYTHON = COMPILED_VENV / SCRIPTS / "python"
TEST_PROCESSES = "2"
TORCH, TRITON = "torch==2.13.0", "triton==3.6.0"
"""What the tests of ``calibrate`` were written with; no GPU is needed."""


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run ``command`` in the checkout; end with its exit status if it fails."""
    status = subprocess.run([str(part) for part in command], cwd=cwd, check=False).returncode
    if status:
        sys.exit(status)


def pip_install(*what: str) -> None:
    """Install ``what`` into the virtual environment, quietly."""
    run(PYTHON, "-m", "pip", "install", "--quiet", *what)


def make_venv() -> None:
    """Create the virtual environment, also where the system left ``ensurepip`` out."""
    print(f"creating {VENV.name} with Python {sys.version.split()[0]}", flush=True)
    with_pip = importlib.util.find_spec("ensurepip") is not None
    venv.create(VENV, clear=True, with_pip=with_pip)
    if not with_pip:
        run(sys.executable, "-m", "pip", "--quiet", "--python", PYTHON, "install", "pip")


def wanted_state() -> str:
    """Return a fingerprint of everything that decides what must be installed."""
    digest = hashlib.sha256((ROOT / "pyproject.toml").read_bytes())
    digest.update(f"{sys.version_info[:2]} {ROOT}".encode())
    return digest.hexdigest()


def ensure_venv(extra: str | None = None) -> None:
    """Bring the virtual environment up to date, with ``extra`` if one is named.

    A stamp per extra says what was installed last, so that a second call costs nothing.
    """
    state = wanted_state()
    stamp = VENV / f".installed-{extra or 'base'}"
    covered = [stamp] if extra else [stamp, VENV / ".installed-dev"]
    if any(path.is_file() and path.read_text() == state for path in covered):
        return
    if not PYTHON.exists() or venv_version() != sys.version_info[:2]:
        make_venv()
    what = f".[{extra}]" if extra else "."
    print(f"installing {what} into {VENV.name}", flush=True)
    pip_install("--editable", what)
    stamp.write_text(state)


def venv_version() -> tuple[int, int] | None:
    """Return the Python version of the virtual environment, or None if it is not whole."""
    show = "import pip, sys; print(*sys.version_info[:2])"
    done = subprocess.run([PYTHON, "-c", show], capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    major, minor = done.stdout.split()
    return int(major), int(minor)


def demo() -> None:
    """Simulate the workload that comes with the package."""
    ensure_venv()
    run(BIN / "simserve", "run")


def test() -> None:
    """Run the quick tests."""
    ensure_venv("dev")
    pytest("-m", "not slow")


def pytest(*options: str) -> None:
    """Run tests in a few processes; an idle one takes work from a busy one."""
    run(PYTHON, "-m", "pytest", "-q", "-n", TEST_PROCESSES, "--dist", "worksteal", *options)


def lint() -> None:
    """Run every check that reads the code without running it."""
    ensure_venv("dev")
    run(BIN / "ruff", "check", ".")
    run(BIN / "ruff", "format", "--check", ".")
    run(BIN / "mypy")
    run(BIN / "lint-imports", "--no-logo")


def ensure_torch() -> None:
    """Put PyTorch, and Triton if it brings none, into the environment for ``calibrate``."""
    for module, what in (("torch", TORCH), ("triton", TRITON)):
        there = [str(PYTHON), "-c", f"import {module}"]
        if subprocess.run(there, capture_output=True, check=False).returncode:
            print(f"installing {what} into {VENV.name}", flush=True)
            pip_install(what)


def test_all() -> None:
    """Run the linters, the quick tests with coverage and its bar, then the slow ones.

    The slow ones are long simulations: tracing every line of those would double the time.
    """
    lint()
    for extra in ("docs", "ray", "dask"):
        ensure_venv(extra)
    ensure_torch()
    pytest("-m", "not slow", "--cov", "--cov-report", "term")
    pytest("-m", "slow", "--durations", "10")


def site() -> None:
    """Build from scratch all that people look at: notebooks, pictures, pages, the site."""
    ensure_venv("docs")
    for module in ("notebooks", "pictures", "data_tables", "readme_output", "build_site"):
        run(PYTHON, "-m", f"scripts.{module}")


def bench() -> None:
    """Print the table of benchmarks."""
    ensure_venv("dev")
    run(PYTHON, "-m", "benchmarks")


def compiled() -> None:
    """Install simserve with its loop compiled to C into an environment of its own.

    It is built from a source archive, elsewhere: an extension module beside its source would
    hide what is edited there.
    """
    ensure_venv("dev")
    venv.create(COMPILED_VENV, clear=True, with_pip=False)
    os.environ["HATCH_BUILD_HOOK_ENABLE_MYPYC"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        run(PYTHON, "-m", "hatchling", "build", "-t", "sdist", "-d", folder)
        (archive,) = Path(folder).iterdir()
        print(f"compiling into {COMPILED_VENV.name}", flush=True)
        run(PYTHON, "-m", "pip", "--python", COMPILED_PYTHON, "install", "--quiet", archive)


def bench_compiled() -> None:
    """Print the table of benchmarks for the compiled loop."""
    compiled()
    with tempfile.TemporaryDirectory() as folder:  # where no checkout's simserve is in front
        (Path(folder) / "benchmarks").symlink_to(ROOT / "benchmarks")
        run(COMPILED_PYTHON, "-m", "benchmarks", cwd=Path(folder))


def clean() -> None:
    """Remove what the tasks made: the environment, caches and builds."""
    made = [".venv", ".venv-compiled", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"]
    made += [".import_linter_cache", "build", "dist", "htmlcov", "site"]
    for name in made:
        shutil.rmtree(ROOT / name, ignore_errors=True)
    for path in ROOT.glob(".coverage*"):
        path.unlink()


TASKS: dict[str, Callable[[], None]] = {
    "demo": demo,
    "test": test,
    "test-all": test_all,
    "lint": lint,
    "site": site,
    "bench": bench,
    "compiled": compiled,
    "bench-compiled": bench_compiled,
    "clean": clean,
}


def main(arguments: list[str]) -> None:
    """Run the one task that is named."""
    if len(arguments) != 1 or arguments[0] not in TASKS:
        sys.exit(f"usage: python scripts/dev.py {'|'.join(TASKS)}")
    os.environ["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    os.environ.pop("PYTHONPATH", None)
    TASKS[arguments[0]]()


if __name__ == "__main__":
    main(sys.argv[1:])
