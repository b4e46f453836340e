"""The installed vLLM's scheduler still does what was recorded, where it is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from simserve.parity.case_file import load_case, load_expected
from simserve.parity.live_vllm import live_records

CASES = sorted((Path(__file__).parent / "cases").glob("*.case.json"))


@pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vllm is not installed (docs/verify.md)"
)
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
def test_vllm_repeats_its_own_records(path: Path) -> None:
    assert live_records(load_case(path)) == load_expected(path)[1:]
