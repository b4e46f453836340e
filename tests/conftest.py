"""A scenario that is simulated in milliseconds."""

from __future__ import annotations

from pathlib import Path

import pytest

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
