"""The fenced blocks of the documentation, and the folder that the blocks of a page run in.

A console block holds commands, each after ``$ ``, and perhaps what they print; an sh block holds
commands alone. A block whose first line is a comment with a file name (``# small.yaml``) is that
file for the blocks below it.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md"),
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")),
)
CODE = ("console", "sh", "python", "yaml")
COMMANDS = ("console", "sh")
WORDS = ("", "text")
"""What a program prints or writes, and diagrams: nothing to run."""

_FENCE = re.compile(
    r"^(?P<marks>```+)(?P<language>\w*)\n(?P<body>.*?)^(?P=marks)$", re.MULTILINE | re.DOTALL
)
_FILLED = re.compile(r"<!-- (?P<name>output:[\w-]+) -->.*?<!-- /(?P=name) -->", re.DOTALL)
_FILE = re.compile(r"# ([\w./-]+\.\w+)\n")
_PROMPT = "$ "


class Block(NamedTuple):
    """A fenced block; ``filled`` says that scripts/readme_output.py runs it and writes it."""

    page: str
    line: int
    language: str
    body: str
    filled: bool

    @property
    def file(self) -> str | None:
        """The name of the file that the block is, if it is one."""
        found = _FILE.match(self.body)
        return found[1] if found else None

    def commands(self) -> list[tuple[str, str]]:
        """Return the commands of the block, each with what it is said to print."""
        if self.language not in COMMANDS:
            return []
        lines = self.body.replace("\\\n", " ").splitlines()
        if self.language == "sh":
            return [(line, "") for line in lines if line and not line.startswith("#")]
        found: list[tuple[str, list[str]]] = []
        for line in lines:
            if line.startswith(_PROMPT):
                found.append((line.removeprefix(_PROMPT), []))
            elif found:
                found[-1][1].append(line)
        return [(command, "\n".join(lines).strip("\n")) for command, lines in found]


def blocks_of(page: str) -> list[Block]:
    """Return the blocks of a page in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    filled = [found.span() for found in _FILLED.finditer(text)]
    return [
        Block(
            page=page,
            line=text.count("\n", 0, found.start()) + 1,
            language=found["language"],
            body=found["body"],
            filled=any(low <= found.start() < high for low, high in filled),
        )
        for found in _FENCE.finditer(text)
    ]


def outside_fences(page: str) -> str:
    """Return the page without its fenced blocks."""
    return _FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))


# -- what the reader of a page is taken to have


def _chat(folder: Path) -> None:
    text = (ROOT / "workloads" / "chat.yaml").read_text(encoding="utf-8")
    (folder / "chat.yaml").write_text(text.replace("num_requests: 3000", "num_requests: 100"))


def _config(folder: Path, name: str = "config.json") -> None:
    shape = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2048}
    shape |= {"num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8}
    shape |= {"intermediate_size": 8192, "vocab_size": 128256, "max_position_embeddings": 8192}
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(shape | {"torch_dtype": "bfloat16"}))


def _trace(folder: Path, name: str = "production.csv") -> None:
    """Write ten hours, one request a minute."""
    with (folder / name).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arrival_s", "prompt_tokens", "output_tokens", "t", "in", "out"])
        for minute in range(600):
            row = [60 * minute, 200 + minute, 50]
            writer.writerow(row + row)


def _checked_files(folder: Path) -> None:
    import gzip

    _chat(folder)
    _config(folder)
    _trace(folder, "trace.csv")
    with gzip.open(folder / "trace.csv.gz", "wb") as file:
        file.write((folder / "trace.csv").read_bytes())
    (folder / "launch.sh").write_text("vllm serve Qwen/Qwen3-8B --max-num-seqs 64\n")


def _recordings(folder: Path) -> None:
    """Write what a Prometheus endpoint, and a collector of spans, would have said."""
    from tests.traffic.test_otel import vllm
    from tests.traffic.test_prometheus_import import page

    (folder / "now.prom").write_text(page(), encoding="utf-8")
    spans = [json.dumps(vllm(float(at), at + 1)) for at in range(50)]
    (folder / "spans.jsonl").write_text("\n".join(spans) + "\n", encoding="utf-8")


def _cases(folder: Path) -> None:
    cases = ROOT / "tests" / "parity" / "cases"
    shutil.copytree(cases, folder / "tests" / "parity" / "cases")
    for path in cases.glob("watermark-ignored.*"):
        shutil.copy(path, folder)


def _traffic(folder: Path) -> None:
    _trace(folder)
    _recordings(folder)


SUPPLIES: dict[str, Callable[[Path], None]] = {
    "docs/checking.md": _checked_files,
    "docs/models.md": lambda folder: _config(folder, "path/to/my-model/config.json"),
    "docs/verify.md": _cases,
    "docs/workloads.md": _traffic,
}
"""Files that a page speaks of and that the reader brings, by page."""
