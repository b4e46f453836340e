"""The page on schedulers of one's own does what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "own-scheduler.md"


def test_the_page_s_scheduler_passes_its_check_and_runs(tmp_path: Path) -> None:
    module, check = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    (command,) = re.findall(r"^\$ simserve (run .*)$", PAGE.read_text("utf-8"), re.MULTILINE)
    (tmp_path / "my_policy.py").write_text(module)
    (tmp_path / "check.py").write_text(check)
    subprocess.run([sys.executable, "check.py"], cwd=tmp_path, check=True)
    few = "--set workload.num_requests=40"
    done = subprocess.run(
        [sys.executable, "-m", "simserve", *command.split(), *few.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "my_policy:ShortestFirst" in done.stdout
