"""Routed experts and latent attention from tables."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.errors import InputError
from simserve.inputs.model_catalogue import load_model
from simserve.latency.tables.answers import Part
from simserve.latency.tables.table_model import TableModel
from simserve.records.step import PrefillChunk, StepShape
from tests.latency.tables.profiles import H100, Row, gemm_rows, profile_of

MIXTRAL, DEEPSEEK = load_model("mixtral-8x7b"), load_model("deepseek-v3")
TOKENS = (1, 16, 64, 256, 4096)
SHAPE = {"dtype": "bf16", "experts": 8, "topk": 2, "hidden": 4096, "inter": 14_336, "ep": 1}


def rows(tp: int = 2, routing: str = "balanced", factor: float = 1.0, **more: Any) -> list[Row]:
    """Return experts that take 400 us and 1 us a token."""
    return [
        {**SHAPE, "tp": tp, "tokens": m, "routing": routing, "us_p50": factor * (400 + m), **more}
        for m in TOKENS
    ]


def model_of(moe: list[Row], tp: int = 2, **more: Any) -> TableModel:
    tables = {"gemm": gemm_rows(MIXTRAL, tp), "moe": moe}
    return TableModel(profile_of(tables, **more), MIXTRAL, H100, tp)


def experts(latency: TableModel, tokens: int) -> Part:
    parts = latency.parts(StepShape(tokens, tokens * 100))
    assert not any(part.operator.startswith("experts_") for part in parts)
    return next(part for part in parts if part.operator == "experts")


def test_experts_are_priced_from_their_rows_in_all_layers() -> None:
    latency = model_of(rows())
    for tokens, us, source in ((64, 464, "exact"), (160, 560, "interp")):
        found = experts(latency, tokens)
        assert found.seconds == pytest.approx(32 * us * 1e-6) and found.source == source
    assert "experts" not in latency.missing


def test_without_rows_experts_are_left_to_the_roofline_and_said_so() -> None:
    tables = {"gemm": gemm_rows(MIXTRAL, 2)}
    latency = TableModel(profile_of(tables), MIXTRAL, H100, 2)
    assert {"experts_up", "experts_down"} <= set(latency.missing)


def test_the_balanced_routing_is_taken_unless_the_profile_names_another() -> None:
    both = [*rows(), *rows(routing="power-law", factor=2.0)]
    assert experts(model_of(both), 16).seconds == pytest.approx(32 * 416e-6)
    skewed = model_of(both, use={"moe": "power-law"})
    assert experts(skewed, 16).seconds == pytest.approx(2 * 32 * 416e-6)
    with pytest.raises(InputError, match=r"use\.moe: got worst, allowed: balanced, power-law"):
        model_of(both, use={"moe": "worst"})
    several = [*rows(routing="a"), *rows(routing="b")]
    with pytest.raises(InputError, match=r"one routing, or use\.moe"):
        model_of(several)


def test_experts_of_another_size_lend_their_utilisation_or_are_refused() -> None:
    lent = experts(model_of(rows(tp=1), tp=2), 64)
    assert lent.source == "transfer"
    assert lent.seconds < 32 * 464e-6
    with pytest.raises(InputError, match="within 2 octaves"):
        model_of(rows(inter=256))
    with pytest.raises(InputError, match="dtype: got bf16, allowed: fp8"):
        model_of(rows(dtype="fp8"))


def latent_rows(heads: int) -> list[Row]:
    return [
        {"phase": phase, "heads": heads, "batch": batch, "q": q, "ctx": ctx}
        | {"us_p50": 20 + batch * ctx / 1000}
        for phase, q in (("decode", 1), ("prefill", 16))
        for batch in (1, 8, 64)
        for ctx in (128, 1024, 8192)
    ]


def latent_part(heads: int) -> Part:
    tables = {"gemm": gemm_rows(DEEPSEEK, 8), "mla": latent_rows(heads)}
    latency = TableModel(profile_of(tables), DEEPSEEK, H100, 8, allow_extrapolation=True)
    parts = {part.operator: part for part in latency.parts(StepShape(8, 8 * 1024))}
    assert "prefill attention" in latency.missing and "latent attention" not in latency.missing
    return parts["attn_decode"]


def test_latent_decodes_are_priced_from_their_rows() -> None:
    found = latent_part(16)
    assert found.seconds == pytest.approx(61 * 28.192e-6) and found.source == "exact"


def test_other_heads_lend_latent_decodes_their_utilisation() -> None:
    lent = latent_part(32)
    assert lent.source == "transfer"
    assert lent.seconds <= 61 * 28.192e-6


def chunk_model(heads: int = 16) -> TableModel:
    """Return a model with chunks as a layer took them: 50 us and 20 ns a pair of tokens."""
    rows: list[Row] = [
        {"form": "layer", "phase": "prefill", "heads": heads, "batch": 1, "q": q, "ctx": q}
        | {"us_p50": 50 + 0.02 * q * (q + 1) / 2}
        for q in (16, 64, 256, 1024, 4096)
    ]
    rows += [{"form": "kernel", **row} for row in latent_rows(heads)]
    tables = {"gemm": gemm_rows(DEEPSEEK, 8), "mla": rows}
    return TableModel(profile_of(tables), DEEPSEEK, H100, 8, allow_extrapolation=True)


def chunk(model: TableModel, new: int, past: int = 0) -> Part:
    parts = model.parts(StepShape(0, 0, (PrefillChunk(new, past),)))
    return next(part for part in parts if part.operator == "attn_prefill")


def test_latent_chunks_are_priced_from_rows_of_a_layer_and_not_of_the_absorbed_kernel() -> None:
    model = chunk_model()
    assert "prefill attention" not in model.missing
    found = chunk(model, 1024)
    assert found.source == "exact"
    assert found.seconds == pytest.approx(61 * (50 + 0.02 * 1024 * 1025 / 2) * 1e-6)
    assert chunk(model, 500).source == "interp"
    assert chunk(chunk_model(heads=32), 1024).source == "transfer"


CHUNK_MODEL = chunk_model()


@given(st.integers(1, 20_000), st.integers(0, 50_000), st.integers(0, 3000))
def test_a_longer_latent_chunk_or_past_never_is_quicker(new: int, past: int, more: int) -> None:
    here = chunk(CHUNK_MODEL, new, past).seconds
    assert chunk(CHUNK_MODEL, new + more, past).seconds >= here * (1 - 1e-9)
    assert chunk(CHUNK_MODEL, new, past + more).seconds >= here * (1 - 1e-9)


def test_blocks_of_8_bits_take_the_times_of_8_bits_and_say_so() -> None:
    rows_of_both = [
        {**row, "dtype": dtype} for row in gemm_rows(DEEPSEEK, 8) for dtype in ("bf16", "fp8")
    ]
    model = TableModel(profile_of({"gemm": rows_of_both}), DEEPSEEK, H100, 8)
    parts = {part.operator: part for part in model.parts(StepShape(8, 8 * 1024))}
    assert parts["o"].source == "transfer" and parts["lm_head"].source == "exact"
