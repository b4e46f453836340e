"""Which version of the harness measured: its commit, and whether the tree had changes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from simserve import __version__

_ROOT = Path(__file__).resolve().parents[2]
# Kernels and harness decide what is measured; documents do not.
_CODE = ("calibrate", "simserve")
COMMIT_VARIABLE = "CALIBRATE_COMMIT"
"""Tells the commit where files were brought without git."""


def checkout_facts() -> dict[str, Any]:
    """Return version, commit and state of the checkout; without git what is told of the commit."""
    told = os.environ.get(COMMIT_VARIABLE, "unknown")
    facts: dict[str, Any] = {"simserve": __version__, "git_commit": told, "tree_dirty": None}
    commit = _git("rev-parse", "HEAD")
    if commit is not None:
        facts["git_commit"] = commit.strip()
        facts["tree_dirty"] = bool((_git("status", "--porcelain", "--", *_CODE) or "").strip())
    return facts


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(_ROOT), *words],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
