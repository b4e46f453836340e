"""A kernel that crashes or hangs is a failed row, and every other one is still checked."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from calibrate import check_apart as apart
from calibrate.check import CheckRow, run_checks

BAD = "tests.calibrate.kernels.bad_kernels:open_checker"


@pytest.fixture(scope="module")
def rows() -> list[CheckRow]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apart, "_CASE_S", {"cpu": 8.0})
        told: list[CheckRow] = []
        found = apart.check_apart("cpu", 5, tell=told.append, bench=BAD)
        assert told == found
        return found


def test_a_crash_is_a_failed_case_that_says_where_and_the_next_case_goes_on(
    rows: list[CheckRow],
) -> None:
    own = [row for row in rows if row.kernel == "attention/CrashesOnPrefill"]
    (failed,) = (row for row in own if not row.passed)
    assert failed.case == "case 2"
    assert failed.note.startswith("crashed: signal 6; ")
    assert "bad_kernels.py" in failed.note
    assert len(own) > 8


def test_a_kernel_that_hangs_is_given_up_at_once(rows: list[CheckRow]) -> None:
    """Each case of it would take the time in which a family of others is checked."""
    own = [row for row in rows if row.kernel == "attention/Hangs"]
    assert [row.note.split(":")[0] for row in own] == ["hung", "given up"]
    assert not any(row.passed for row in own)


def test_who_interrupts_a_check_is_told_what_was_not_checked() -> None:
    told: list[CheckRow] = []
    left: list[str] = []

    def interrupt(row: CheckRow) -> None:
        told.append(row)
        if row.kernel == "attention/TorchAttention":
            raise KeyboardInterrupt

    first, second = "attention/CrashesOnPrefill", "attention/TorchAttention"
    with pytest.raises(KeyboardInterrupt):
        apart.check_apart("cpu", 5, [first, second], interrupt, BAD, left.extend)
    assert {row.kernel for row in told} == {first, second}
    assert left == [second]


def test_a_kernel_after_those_has_the_errors_that_it_has_in_one_process(
    rows: list[CheckRow],
) -> None:
    own = [row for row in rows if row.kernel == "attention/TorchAttention"]
    alone = run_checks(torch.device("cpu"), 5, ["attention/torch"])
    assert [(row.case, row.error) for row in own] == [(row.case, row.error) for row in alone]


def test_names_that_are_nobodys_are_told_first() -> None:
    (row,) = apart.check_apart("cpu", 0, ["no-such-kernel"])
    assert (row.passed, row.note) == (False, "no such kernel here")
