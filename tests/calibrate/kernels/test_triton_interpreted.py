"""The Triton kernels equal float64 when Triton's interpreter runs them on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """The interpreter must be chosen before Triton is imported: another process does it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, HERE / "run_interpreted.py", "11"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    read: list[dict[str, Any]] = json.loads(done.stdout)
    return read


def test_every_triton_check_passes_with_rounding_errors_alone(rows: list[dict[str, Any]]) -> None:
    assert [row for row in rows if not row["passed"]] == []
    assert all(row["error"] <= row["limit"] / 2 for row in rows)


def test_attention_is_checked_with_decodes_prefills_and_mixes(rows: list[dict[str, Any]]) -> None:
    cases = [row["case"] for row in rows if row["kernel"] == "attention/triton"]
    for kind in ("decode", "prefill", "mixed"):
        assert any(case.startswith(kind) for case in cases)
    assert any(case.endswith("kv8") for case in cases)


def test_every_small_kernel_is_checked(rows: list[dict[str, Any]]) -> None:
    ops = {row["case"].split()[0] for row in rows if row["kernel"] == "ops/triton"}
    assert {"norm", "plain", "act", "quantise", "qk_norm", "rope_store"} <= ops
