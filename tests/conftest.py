"""What many tests share: a scenario simulated in milliseconds, and how to draw at random."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# Where CI is set, the same examples every time: a change is judged by what it changed.
# Elsewhere every run explores, and prints how to repeat what it found.
# No example has a deadline: no test depends on the clock of a busy machine.
settings.register_profile("timeless", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("timeless")

# A shell starts what it puts in the background deaf to Ctrl-C, and processes inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SMALL = """\
name: small
workload:
  arrivals: {process: poisson, rate_per_s: 20}
  prompt_tokens: {median: 200, p95: 600, max: 2000}
  output_tokens: {median: 20, p95: 60, max: 200}
  num_requests: 40
deployment:
  model: llama-3.1-8b
  gpu: h100-sxm
seed: 3
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path
