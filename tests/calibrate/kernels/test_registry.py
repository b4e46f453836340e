"""The registry: kernels by name, and why one is missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from calibrate.kernels import registry
from calibrate.kernels.interface import Gemm
from calibrate.kernels.registry import Entry, available, survey

CPU = torch.device("cpu")
TABLES: dict[str, dict[str, Entry[Any]]] = {
    "ATTENTION": registry.ATTENTION,
    "MLA": registry.MLA,
    "GEMM": registry.GEMM,
    "MOE": registry.MOE,
    "OPS": registry.OPS,
}


@pytest.mark.parametrize("table", TABLES)
def test_every_entry_names_a_class_that_exists(table: str) -> None:
    for entry in TABLES[table].values():
        spec = importlib.util.find_spec(f"calibrate.kernels.{entry.module}")
        assert spec is not None
        assert spec.origin is not None
        assert f"class {entry.attribute}" in Path(spec.origin).read_text(encoding="utf-8")


def test_what_is_available_is_what_the_survey_finds_not_missing() -> None:
    found = list(survey(registry.ATTENTION, CPU))
    present = {one.name for one in found if one.missing is None}
    assert set(available(registry.ATTENTION, CPU)) == present
    assert "torch" in present
    assert {one.name for one in found} == {"torch", "triton"}  # the others are for GPUs


def test_a_module_that_is_not_there_is_a_missing_kernel_with_a_reason() -> None:
    absent: Entry[Gemm] = Entry("no_such_module", "Anything", registry.ANY)
    (listed,) = survey({"absent": absent}, CPU)
    assert listed.kernel is None
    assert "no_such_module" in str(listed.missing)


def test_a_kernel_that_is_left_out_is_not_even_loaded() -> None:
    table: dict[str, Entry[Any]] = {"gone": Entry("no_such_module", "Nothing", registry.CPU)}
    (listed,) = survey(table, CPU, ["gone"])
    assert (listed.kernel, listed.missing) == (None, "left out")
    (listed,) = survey(table, CPU)
    assert "no_such_module" in str(listed.missing)
