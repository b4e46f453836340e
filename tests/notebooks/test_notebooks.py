"""Notebooks: they run, they say what they answer, and what is committed is what they printed."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST_BYTES = 300_000
MOST_LINES = 60
WORDS_IN_TEN_MINUTES = 2_000


def cells_of(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text(encoding="utf-8"))["cells"])


def text_of(cell: dict[str, Any]) -> str:
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def prose_of(path: Path) -> list[str]:
    return [text_of(cell) for cell in cells_of(path) if cell["cell_type"] == "markdown"]


def code_of(path: Path) -> list[str]:
    return [text_of(cell) for cell in cells_of(path) if cell["cell_type"] == "code"]


def test_there_are_seven_notebooks_in_order() -> None:
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{one:02}" for one in range(1, 8)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_asks_a_question_and_concludes(path: Path) -> None:
    first, *_, last = prose_of(path)
    assert first.startswith("# ") and "\n**The question.**" in first
    assert last.startswith("## What to conclude\n")
    assert "**What the picture rests on.**" in last


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_begins_with_simserve_and_reads_in_ten_minutes(path: Path) -> None:
    code = code_of(path)
    assert re.search(r"simserve\.(run|load_scenario)\(", code[0] + code[1])
    assert max(len(cell.splitlines()) for cell in code) <= MOST_LINES
    assert sum(len(text.split()) for text in prose_of(path)) <= WORDS_IN_TEN_MINUTES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_are_small_and_whole(path: Path) -> None:
    assert path.stat().st_size < MOST_BYTES
    cells = [cell for cell in cells_of(path) if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert all(output["output_type"] != "error" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert "stderr" not in {output.get("name") for output in outputs}
    text = path.read_text(encoding="utf-8")
    assert str(ROOT) not in text and "/tmp/" not in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_in_a_notebook_tells_of_the_run_that_wrote_it(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["metadata"]["language_info"] == {"name": "python"}
    for cell in notebook["cells"]:
        assert cell["metadata"] == {}
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_axis_of_a_notebook_is_labelled(path: Path) -> None:
    for cell in code_of(path):
        if "plt.subplots" in cell:
            ast.parse(cell)
            assert "xlabel=" in cell and ("ylabel=" in cell or "yticklabels=" in cell)


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the helper module, as a notebook that is not run quickly sees it."""
    monkeypatch.delenv("SIMSERVE_QUICK", raising=False)
    spec = importlib.util.spec_from_file_location("look", FOLDER / "look.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_settings_are_small_only_when_asked(
    look: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert look.quick("full", "small") == "full"
    monkeypatch.setattr(look, "QUICK", True)
    assert look.quick("full", "small") == "small"


def test_measured_decode_steps_are_those_of_the_model_and_the_regime(
    look: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {"kind": "assumed", "source": "made up for a test", "date": "2026-11-20"}
    head = {"schema": 1, **source, "device": {"gpu": "h100-sxm"}}
    (tmp_path / "profile.yaml").write_text(json.dumps(head))
    rows = ["model,tp,regime,n_dec,sum_ctx,us_gpu", "a,1,decode,4,4000,7000"]
    rows += ["a,1,prefill,0,0,9000", "b,1,decode,8,800,6500"]
    (tmp_path / "step.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.setattr(look, "list_profiles", lambda _: ("mine",))
    monkeypatch.setattr(look, "find_profile", lambda *_: tmp_path)
    assert look.measured_decode_steps("h100-sxm", "a") == [(4, 1000, 7.0, "mine")]
    assert look.measured_decode_steps("h100-sxm", "c") == []


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("nbmake") is None or importlib.util.find_spec("ipykernel") is None,
    reason="nbmake and ipykernel are not installed (extra: docs)",
)
def test_notebooks_run_on_small_settings() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--nbmake", "-p", "no:cacheprovider", FOLDER],
        cwd=ROOT,
        env=os.environ | {"SIMSERVE_QUICK": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert f"{len(NOTEBOOKS)} passed" in done.stdout


def test_the_pictures_of_the_readme_are_those_of_the_notebooks() -> None:
    from scripts.pictures import pictures

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path, content in pictures().items():
        assert path.read_bytes() == content, "run python -m scripts.pictures"
        assert f"({path.relative_to(ROOT).as_posix()})" in readme
        assert len(content) < 100_000
