"""Every workload on the page is one, and can be drawn."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from simserve.inputs.workload import read_workload
from simserve.inputs.workload_arrivals import ArrivalProcess
from simserve.inputs.yaml_reader import parse_yaml
from simserve.traffic.generate import generate

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "workloads.md").read_text("utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=[block.split("\n")[0] for block in BLOCKS])
def test_a_workload_of_the_page_is_read_and_drawn(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "production.csv").write_text("t,in,out\n0,10,5\n2,20,6\n3,30,7\n")
    table = generate(read_workload(parse_yaml(block, "page")), seed=0)
    assert len(table) in (3, 1000, 2000, 3000)


def test_the_page_names_every_process() -> None:
    for process in get_args(ArrivalProcess):
        assert f"`{process}`" in PAGE
