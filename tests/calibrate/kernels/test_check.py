"""The check passes what is right, and fails what is wrong, silent, late or broken."""

from __future__ import annotations

import math
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from calibrate import check
from calibrate.check import CheckRow, check_table, run_checks
from calibrate.kernels import registry
from calibrate.kernels.pointwise import TorchOps
from calibrate.kernels.registry import Entry
from calibrate.kernels.torch_cpu import TorchAttention
from calibrate.kernels.trials import attention_trials
from calibrate.kernels.trials_small import pointwise_trials

CPU = torch.device("cpu")


class OneTokenShort(TorchAttention):
    """Misses the last token of every context."""

    def run(self, planned: Any, *tensors: torch.Tensor) -> None:
        lengths = planned.batch.context_lens
        lengths -= 1
        super().run(planned, *tensors)
        lengths += 1


class IgnoresItsTable(TorchAttention):
    """Reads the blocks in the order in which they lie."""

    def run(self, planned: Any, *tensors: torch.Tensor) -> None:
        table = planned.batch.block_table
        held = table.clone()
        table.copy_(torch.arange(table.numel()).view(table.shape))
        super().run(planned, *tensors)
        table.copy_(held)


class WritesNothing(TorchAttention):
    """Leaves the poison where it is."""

    def run(self, planned: Any, *tensors: torch.Tensor) -> None:
        del planned, tensors


class Raises(TorchAttention):
    """Breaks."""

    def run(self, planned: Any, *tensors: torch.Tensor) -> None:
        del planned, tensors
        raise RuntimeError("no kernel image\nis available")


class AlwaysTheSameNoise(TorchOps):
    """Samples without drawing."""

    def sample(
        self, logits: torch.Tensor, temperature: float, noise: torch.Tensor, out: torch.Tensor
    ) -> None:
        torch.argmax(logits / temperature, dim=-1, out=out)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = (OneTokenShort, IgnoresItsTable, WritesNothing, Raises)
    monkeypatch.setattr(
        check,
        "FAMILIES",
        {
            "attention": ({made.__name__: Local(made) for made in kernels}, attention_trials),
            "ops": ({"same-noise": Local(AlwaysTheSameNoise)}, pointwise_trials),
        },
    )


class Local(Entry[Any]):
    """An entry that makes a class of this file."""

    def __init__(self, made: type) -> None:
        super().__init__("", "", registry.ANY)
        object.__setattr__(self, "module", made)

    def __call__(self) -> Any:
        made: Any = self.module
        return made()


@pytest.fixture(scope="module")
def rows() -> list[CheckRow]:
    return run_checks(CPU, seed=5)


def test_every_kernel_here_passes(rows: list[CheckRow]) -> None:
    assert [row for row in rows if not row.passed] == []
    checked = {row.kernel for row in rows}
    assert {"attention/torch", "mla/torch", "ops/torch", "moe/grouped-mm"} <= checked
    assert {f"gemm/{name}" for name in registry.available(registry.GEMM, CPU)} <= checked


def test_fresh_inputs_are_drawn_from_the_seed(rows: list[CheckRow]) -> None:
    names = ["attention/torch"]
    before = [row for row in rows if row.kernel == "attention/torch"]
    assert run_checks(CPU, seed=5, names=names) == before
    assert run_checks(CPU, seed=6, names=names) != before


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("name", ["OneTokenShort", "IgnoresItsTable", "WritesNothing"])
def test_a_wrong_kernel_fails(name: str) -> None:
    failed = [row for row in run_checks(CPU, seed=5, names=[name]) if not row.passed]
    assert len(failed) > 5
    assert all(row.error is not None and not row.error <= row.limit for row in failed)


@pytest.mark.usefixtures("broken")
def test_an_output_that_nobody_wrote_is_not_a_number() -> None:
    rows = run_checks(CPU, seed=5, names=["WritesNothing"])
    assert all(row.error is not None and math.isnan(row.error) for row in rows)


@pytest.mark.usefixtures("broken")
def test_a_kernel_that_raises_is_rows_that_failed_and_stops_no_other() -> None:
    rows = run_checks(CPU, seed=5)
    raised = [row for row in rows if row.kernel == "attention/Raises"]
    assert len(raised) > 5
    assert not any(row.passed for row in raised)
    assert raised[0].note == "RuntimeError: no kernel image"
    assert rows[-1].kernel == "ops/same-noise"


@pytest.mark.usefixtures("broken")
def test_sampling_that_draws_no_noise_fails() -> None:
    failed = [row for row in run_checks(CPU, seed=5, names=["ops"]) if not row.passed]
    assert [row.case.split()[0] for row in failed] == ["sample"]


def test_a_name_that_is_nobodys_and_a_kernel_that_is_missing_fail() -> None:
    rows = run_checks(CPU, seed=5, names=["no-such-kernel", "attention/triton"])
    assert [row.passed for row in rows] == [False, False]
    assert {row.note.split(":")[0] for row in rows} == {"no such kernel here", "missing"}


def test_the_table_fits_80_columns_and_counts(rows: list[CheckRow]) -> None:
    long = CheckRow("attention/" + "x" * 40, "y" * 60, 0.5, 1e-2, True, False, "z " * 120)
    text = check_table([*rows, long])
    assert max(map(len, text.splitlines())) <= 80
    ran = sum(row.error is not None for row in rows)
    assert text.endswith(f"{ran} of {ran + 1} checks passed, 1 failed")
    assert "refuses: M must be above 16" in text
