"""Run the checks of the Triton kernels in Triton's interpreter; print the rows as JSON."""

# ruff: noqa: E402 - the interpreter comes first
from __future__ import annotations

import dataclasses
import json
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import_module("interpreter")  # before any kernel

import torch

from calibrate.check import run_checks

torch.set_num_threads(1)
rows = run_checks(torch.device("cpu"), seed=int(sys.argv[1]), names=["triton"])
sys.stdout.write(json.dumps([dataclasses.asdict(row) for row in rows]))
