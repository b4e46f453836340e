"""Compare with the real vLLM: set up its scheduler on a CPU, then ``simserve verify --live``.

    python3 scripts/verify_live.py FOLDER [--fuzz N] [--seed S] [CASE_OR_SCENARIO ...]

FOLDER becomes a virtual environment of Python 3.11 or newer, about 3 GB, without CUDA; if it
is one already it is used as it stands. The recipe is that of docs/verify.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

TORCH = "torch==2.13.0"
"""First, and pinned afterwards, so that nothing pulls a CUDA build."""

VLLM = "vllm==0.33.0"

IMPORTED_BY_VLLM = [
    "regex",
    "cachetools",
    "psutil",
    "sentencepiece",
    "numpy",
    "requests",
    "tqdm",
    "blake3",
    "py-cpuinfo",
    "transformers>=5.16.1,<5.21",
    "tokenizers",
    "safetensors",
    "protobuf",
    "aiohttp",
    "multidict",
    "pydantic",
    "orjson",
    "prometheus_client",
    "pillow",
    "tiktoken",
    "packaging",
    "jsonschema",
    "pyzmq",
    "msgspec",
    "pyyaml",
    "einops",
    "cloudpickle",
    "python-json-logger",
    "pybase64",
    "cbor2",
    "setproctitle",
    "ninja",
    "lark==1.2.2",
    "partial-json-parser",
    "oss-harmony>=0.0.11",
    "fastapi",
    "starlette",
    "openai",
    "anthropic",
    "mcp",
    "watchfiles",
    "ijson",
    "uvloop",
]

WITHOUT_DEPENDENCIES = [
    "xgrammar==0.2.8",
    "apache-tvm-ffi==0.1.11",
    "llguidance==1.7.6",
    "outlines_core==0.2.14",
    "lm-format-enforcer==0.11.3",
]

NEEDED_BY_SIMSERVE = ["simpy", "typer", "rich", "pandas", "pyarrow", "joblib"]


def set_up(folder: Path) -> None:
    """Make ``folder`` a virtual environment with vLLM's scheduler and this simserve."""
    venv.create(folder, with_pip=True)
    pins = folder / "pins.txt"
    pins.write_text(f"{TORCH}\n")
    for arguments in (
        [TORCH],
        ["--no-deps", VLLM],
        ["-c", str(pins), *IMPORTED_BY_VLLM],
        ["--no-deps", *WITHOUT_DEPENDENCIES],
        NEEDED_BY_SIMSERVE,
        ["--no-deps", "-e", str(ROOT)],
    ):
        _run(folder, "pip", "install", "--quiet", *arguments)


def _run(folder: Path, *command: str) -> int:
    print(f"$ {' '.join(command)}", file=sys.stderr)
    done = subprocess.run([folder / "bin" / command[0], *command[1:]], check=False)
    if command[0] == "pip" and done.returncode:
        sys.exit(done.returncode)
    return done.returncode


def main(words: Sequence[str] | None = None) -> int:
    """Set up where need be, compare, and return the exit status of ``simserve verify``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("cases", nargs="*", default=[])
    parser.add_argument("--fuzz", default="500")
    parser.add_argument("--seed", default="1")
    asked = parser.parse_intermixed_args(words)
    if not (asked.folder / "bin" / "simserve").exists():
        set_up(asked.folder)
    cases = asked.cases or sorted(map(str, (ROOT / "tests/parity/cases").glob("*.case.json")))
    options = ("--live", "--fuzz", asked.fuzz, "--seed", asked.seed)
    return _run(asked.folder, "simserve", "verify", *options, *cases)


if __name__ == "__main__":
    sys.exit(main())
