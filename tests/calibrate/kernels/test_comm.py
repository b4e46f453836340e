"""All-reduce: between two CPU processes, and refused where ranks cannot meet."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from calibrate.kernels.comm import AllReduce, on_all_ranks


def sums_over_ranks(rank: int, reduce: AllReduce) -> None:
    tensor = torch.full((5,), float(rank + 1))
    reduce.run(tensor)
    if not torch.equal(tensor, torch.full((5,), 3.0)):
        raise ValueError(f"rank {rank} got {tensor.tolist()}")


def test_two_processes_get_the_sum(tmp_path: Path) -> None:
    on_all_ranks(AllReduce("gloo"), 2, tmp_path / "meet", sums_over_ranks)


def test_ranks_that_cannot_meet_are_refused_with_the_reason(tmp_path: Path) -> None:
    assert "at least two ranks, got 1" in str(AllReduce("gloo").missing(1))
    reason = AllReduce("nccl").missing(1024)
    assert reason
    with pytest.raises(RuntimeError, match=r"NCCL|1024 ranks need as many GPUs"):
        on_all_ranks(AllReduce("nccl"), 1024, tmp_path / "meet", sums_over_ranks)
