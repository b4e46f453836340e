"""The laws of a model that is built from tables, whatever the tables say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.inputs.model_catalogue import load_model
from simserve.latency.model import UNLIMITED_CONTEXT, LinearDecodeModel
from simserve.latency.roofline import RooflineModel
from simserve.latency.tables.limits import AttentionLimit, Heads
from simserve.latency.tables.table_model import TableModel
from simserve.records.clock import PS_PER_S
from simserve.records.step import PrefillChunk, StepShape
from tests.latency.tables.profiles import (
    H100,
    HOST,
    LLAMA_8B,
    LLAMA_70B,
    NEWS,
    PASTS,
    gemm_rows,
    noisy_model,
    profile_of,
    roofline_profile,
    tables_of,
)

chunks = st.builds(PrefillChunk, st.integers(1, 20_000), st.integers(0, 200_000))
shapes = st.builds(
    lambda seqs, per_seq, prefill: StepShape(seqs, seqs * per_seq, tuple(prefill)),
    st.integers(1, 700),
    st.integers(1, 200_000),
    st.lists(chunks, max_size=3),
)
noisy = st.builds(noisy_model, st.integers(0, 2), st.just(1), st.booleans())


def test_model_is_one_whose_decodes_lie_on_lines() -> None:
    assert isinstance(noisy_model(0), LinearDecodeModel)


@settings(max_examples=300)
@given(noisy, shapes, st.integers(1, 5000), st.integers(0, 3))
def test_more_work_never_takes_less_time(
    latency: TableModel, shape: StepShape, more: int, kind: int
) -> None:
    seqs, context_tokens, prefill, _ = shape
    chunk = prefill[0] if prefill else PrefillChunk(1, 0)
    rest = prefill[1:]
    less = StepShape(seqs, context_tokens, (chunk, *rest))
    larger = [
        StepShape(seqs, context_tokens + more, (chunk, *rest)),
        StepShape(seqs, context_tokens, (chunk._replace(new_tokens=chunk[0] + more), *rest)),
        StepShape(seqs, context_tokens, (chunk._replace(past_tokens=chunk[1] + more), *rest)),
        StepShape(seqs, context_tokens, (chunk, chunk, *rest)),
    ][kind]
    assert latency.step_s(larger) >= latency.step_s(less) * (1 - 1e-12)


@settings(max_examples=300)
@given(noisy, st.integers(1, 700), st.integers(1, 200_000), st.integers(1, 300))
def test_more_decodes_or_context_never_take_less_time_without_prefill(
    latency: TableModel, seqs: int, per_seq: int, more: int
) -> None:
    least = latency.step_s(StepShape(seqs, seqs * per_seq))
    assert latency.step_s(StepShape(seqs, seqs * per_seq + more)) >= least * (1 - 1e-12)
    both = StepShape(seqs + more, (seqs + more) * per_seq)
    assert latency.step_s(both) >= least * (1 - 1e-12)


@settings(max_examples=200)
@given(noisy, shapes)
def test_step_is_never_shorter_than_the_datasheet_allows(
    latency: TableModel, shape: StepShape
) -> None:
    limit = AttentionLimit(Heads(32, 8, 128), 2.0, H100)
    attention_s = limit.decode_s(1, shape.decode_context_tokens)
    attention_s += sum(limit.chunk_s(*chunk) for chunk in shape.prefill)
    matrices = 32 * (4096 * 6144 + 4096 * 4096 + 3 * 4096 * 14_336)
    gemm_s = max(2 * matrices * shape.tokens / 989e12, 2 * matrices / 3.35e12)
    head_s = 128_256 * 4096 * 2 / 3.35e12
    least_s = 32 * attention_s + gemm_s + head_s
    assert latency.gpu_s(shape) >= least_s * (1 - 1e-9)
    assert latency.step_s(shape) >= least_s * (1 - 1e-9)


@settings(max_examples=200)
@given(noisy, st.integers(1, 700), st.integers(1, 200_000))
def test_decode_line_equals_the_step_to_within_rounding(
    latency: TableModel, seqs: int, per_seq: int
) -> None:
    context = seqs * per_seq
    line = latency.decode_line(seqs, context)
    assert line.context_start <= context <= line.context_limit
    line_ps = line.base_ps + line.per_context_ps * context
    exact_ps = latency.step_s(StepShape(seqs, context)) * PS_PER_S
    rounding = 0.5 * (1 + context - line.context_start)
    assert line_ps == pytest.approx(exact_ps, abs=rounding + 1e-9 * exact_ps)
    assert line_ps == pytest.approx(exact_ps, rel=1e-4)


@pytest.mark.parametrize("seqs", [1, 3, 24, 100, 256, 257, 600])
@pytest.mark.parametrize("ahead", [True, False])
def test_pieces_of_a_decode_line_follow_on_each_other_without_a_gap(seqs: int, ahead: bool) -> None:
    latency, context, pieces = noisy_model(0, 1, ahead), 0, 0
    line = latency.decode_line(seqs, 0)
    while line.context_limit != UNLIMITED_CONTEXT:
        following = latency.decode_line(seqs, line.context_limit + 1)
        assert following.context_start == line.context_limit + 1
        join = following.context_start
        before, after = (one.base_ps + one.per_context_ps * join for one in (line, following))
        assert after == pytest.approx(before, abs=1 + 0.5 * (join - line.context_start))
        line, context, pieces = following, join, pieces + 1
    assert pieces >= 5
    assert context > 0


@settings(max_examples=200)
@given(noisy, shapes)
def test_parts_of_a_step_add_up_to_it(latency: TableModel, shape: StepShape) -> None:
    parts = latency.parts(shape)
    assert sum(part.seconds for part in parts) == pytest.approx(latency.step_s(shape), rel=1e-9)
    assert all(part.seconds >= 0 for part in parts)


@settings(max_examples=60)
@given(noisy, st.integers(1, 512), st.integers(2 * 131_072, 1_000_000))  # in the next batch, too
def test_twice_the_context_beyond_the_table_takes_at_most_twice_as_long(
    latency: TableModel, seqs: int, per_seq: int
) -> None:
    once, twice = (latency.step_s(StepShape(seqs, k * seqs * per_seq)) for k in (1, 2))
    assert twice <= 2 * once


def test_chunks_are_continuous_at_rows_and_at_the_edges_of_the_table() -> None:
    latency: Any = noisy_model(0)
    (table,) = latency._operators.chunks
    step = 1e-7  # the model takes real numbers, though a step has whole tokens
    for new in (*NEWS, 1000, 1 << 17, 1 << 19):
        for past in (*PASTS[1:], 3000, 1 << 21, 1 << 22):
            here = table.seconds(new, past)
            around = [
                table.seconds(new * (1 + a * step), past * (1 + b * step))
                for a in (-1, 0, 1)
                for b in (-1, 0, 1)
            ]
            assert around == pytest.approx([here] * 9, rel=1e-5)


# --- from the roofline and back ---

SMALL = ("norm", "rope_store", "act", "embed", "sample", "qk_norm")


def roofline_s(roofline: RooflineModel, table: TableModel, shape: StepShape) -> float:
    """Return the roofline's step with small kernels by their bytes, as tables price them."""
    model = table.model
    overhead_s = model.layers * H100.efficiency["kernel_launch_s"].value
    small_s = sum(part.seconds for part in table.parts(shape) if part.operator in SMALL)
    return roofline.step_s(shape) - overhead_s + small_s


@settings(max_examples=200)
@given(st.sampled_from([("llama-3.1-8b", 1), ("llama-3.1-8b", 2), ("llama-3.1-70b", 4)]), shapes)
def test_tables_made_from_the_roofline_give_the_roofline_back(
    deployment: tuple[str, int], shape: StepShape
) -> None:
    name, tp = deployment
    model = load_model(name)
    table = TableModel(roofline_profile(name, tp), model, H100, tp)
    roofline = RooflineModel(model, H100, tp)
    decodes = StepShape(shape.decode_seqs, shape.decode_context_tokens + 128 * shape.decode_seqs)
    # GEMMs bend at the ridge: between rows a line lies above them.
    expected_s = roofline_s(roofline, table, decodes)
    assert table.step_s(decodes) == pytest.approx(expected_s, rel=0.025)
    # Between rows √time of chunks with a long past bends: a line lies below, by up to 3 %.
    # Beyond the last row utilisation is held, and nothing is promised but the laws above.
    inside = tuple(PrefillChunk(new, min(past, PASTS[-1])) for new, past in shape.prefill)
    mixed = decodes._replace(prefill=inside)
    assert table.step_s(mixed) == pytest.approx(roofline_s(roofline, table, mixed), rel=0.04)


def test_rows_of_the_tables_give_the_roofline_back_exactly() -> None:
    table = TableModel(roofline_profile("llama-3.1-8b", 1), LLAMA_8B, H100, 1)
    roofline = RooflineModel(LLAMA_8B, H100, 1)
    for shape in (
        StepShape(64, 64 * 2048),
        StepShape(512, 512 * 256),
        StepShape(0, 0, (PrefillChunk(2048, 4096),)),
    ):
        assert table.step_s(shape) == pytest.approx(roofline_s(roofline, table, shape), rel=1e-9)
        by_source = {part.source for part in table.parts(shape)}
        assert by_source == {"exact", "roofline", "host"}


def test_a_table_that_is_missing_is_answered_by_the_roofline_and_says_so() -> None:
    tables = tables_of(LLAMA_70B, 4)
    roofline = RooflineModel(LLAMA_70B, H100, 4)
    shape = StepShape(64, 64 * 2048, (PrefillChunk(1024, 1024),))
    names = {
        "gemm": ("qkv", "lm_head"),
        "attn_decode": ("decode attention",),
        "attn_prefill": ("prefill attention",),
        "attn_mixed": ("attention of mixed steps (the longer part and the shorter)",),
        "comm": ("all_reduce", "all_gather"),
    }
    for name, operators in names.items():
        rest = {key: rows for key, rows in tables.items() if key != name}
        table = TableModel(profile_of(rest), LLAMA_70B, H100, 4)
        assert set(operators) <= set(table.missing)
        expected_s = roofline_s(roofline, table, shape)
        assert table.step_s(shape) == pytest.approx(expected_s, rel=0.03)
    whole = TableModel(profile_of(tables), LLAMA_70B, H100, 4)
    assert whole.missing == ("norm", "rope_store", "act", "embed", "sample", "host time")


@pytest.mark.parametrize("name", ["gemma-3-27b", "deepseek-v3", "mixtral-8x7b", "gpt-oss-20b"])
def test_every_kind_of_model_can_be_priced_from_a_table_of_matrices_alone(name: str) -> None:
    model = load_model(name)
    dense = {"gemm": gemm_rows(LLAMA_8B, 1)}
    latency = TableModel(profile_of(dense), model, H100, 1, allow_extrapolation=True)
    roofline = RooflineModel(model, H100, 1)
    for shape in (StepShape(8, 80_000), StepShape(8, 80_000, (PrefillChunk(512, 100),))):
        assert latency.step_s(shape) == pytest.approx(roofline.step_s(shape), rel=0.2)


# --- what surrounds the kernels ---


def test_a_decode_step_is_priced_at_the_padded_batch_as_a_staircase() -> None:
    latency = TableModel(profile_of(tables_of(LLAMA_8B, 1), HOST), LLAMA_8B, H100, 1)
    names = {"qkv", "o", "ffn_up", "ffn_down"}

    def matrices_s(batch: int) -> float:
        parts = latency.parts(StepShape(batch, batch * 128))
        return sum(part.seconds for part in parts if part.operator in names)

    assert matrices_s(49) == matrices_s(56) < matrices_s(57) == matrices_s(64)
    assert matrices_s(256) < matrices_s(257) < matrices_s(259)  # no graph is that large


def test_an_engine_that_schedules_ahead_hides_its_host_time_behind_the_gpu() -> None:
    profile = profile_of(tables_of(LLAMA_8B, 1), HOST)
    ahead, behind = (
        TableModel(profile, LLAMA_8B, H100, 1, async_scheduling=one) for one in (True, False)
    )
    shape = StepShape(64, 64 * 1000)
    gpu_s = ahead.gpu_s(shape)
    assert ahead.step_s(shape) == pytest.approx(gpu_s + 60e-6)
    assert behind.step_s(shape) == pytest.approx(gpu_s + 150e-6 + 64 * 4e-6 + 20e-6)
    mixed = StepShape(1, 10, (PrefillChunk(1, 0),))
    launch_s = 32 * 10 * 5e-6
    assert behind.gpu_s(mixed) > launch_s
    assert behind.step_s(mixed) == pytest.approx(behind.gpu_s(mixed) + 178e-6 + 10e-9)


def test_a_step_with_little_work_takes_as_long_as_its_launches() -> None:
    slow = HOST | {"launch_kernel": HOST["launch_kernel"] | {"value": "500us"}}
    slow |= {"launch_graph": HOST["launch_graph"] | {"value": "9ms"}}
    latency = TableModel(profile_of(tables_of(LLAMA_8B, 1), slow), LLAMA_8B, H100, 1)
    few = latency.decode_line(8, 80)
    assert few.per_context_ps == 0
    assert few.base_ps == round((150e-6 + 8 * 4e-6 + 9e-3 + 60e-6) * PS_PER_S)
    assert latency.decode_line(8, few.context_limit + 1).per_context_ps > 0
    chunk = StepShape(0, 0, (PrefillChunk(10, 0),))
    expected_s = 32 * 10 * 500e-6 + 150e-6 + 4e-6 + 10 * 10e-9 + 60e-6
    assert latency.step_s(chunk) == pytest.approx(expected_s)


def anchored(regime: str, factor: float) -> TableModel:
    plain = TableModel(roofline_profile("llama-3.1-8b", 1), LLAMA_8B, H100, 1)
    rows = []
    for n_dec, q in ((8, 0), (64, 0), (8, 256), (0, 512)):
        shape = StepShape(n_dec, n_dec * 1000, (PrefillChunk(q, 64),) if q else ())
        kind = "mixed" if n_dec and q else "decode" if n_dec else "prefill"
        if kind == regime:
            rows.append(
                {"model": "llama-3.1-8b", "tp": 1, "regime": kind, "n_dec": n_dec}
                | {"sum_ctx": n_dec * 1000, "max_ctx": 1000, "q_tokens": q, "past": 64}
                | {"us_gpu": plain.gpu_s(shape) * 1e6 * factor}
            )
    return TableModel(profile_of(tables_of(LLAMA_8B, 1) | {"step": rows}), LLAMA_8B, H100, 1)


@pytest.mark.parametrize("regime", ["decode", "prefill", "mixed"])
def test_whole_steps_scale_the_gpu_time_of_their_regime_alone(regime: str) -> None:
    plain = TableModel(roofline_profile("llama-3.1-8b", 1), LLAMA_8B, H100, 1)
    latency = anchored(regime, 0.92)
    assert latency.anchors[regime].applied == pytest.approx(0.92)
    assert latency.anchors[regime].residual_p90 < 1e-6
    assert latency.warnings == ()
    for kind, shape in (
        ("decode", StepShape(32, 32_000)),
        ("prefill", StepShape(0, 0, (PrefillChunk(300, 5),))),
        ("mixed", StepShape(32, 32_000, (PrefillChunk(300, 5),))),
    ):
        factor = 0.92 if kind == regime else 1.0
        assert latency.gpu_s(shape) == pytest.approx(plain.gpu_s(shape) * factor)
        gpu_s = latency.step_s(shape) - plain.step_s(shape) + plain.gpu_s(shape)
        assert gpu_s == pytest.approx(latency.gpu_s(shape))


def test_a_factor_beyond_fifteen_percent_is_refused_with_a_warning() -> None:
    latency = anchored("decode", 1.3)
    assert latency.anchors["decode"].factor == pytest.approx(1.3)
    assert latency.anchors["decode"].applied == 1.0
    assert "whole decode steps take 1.300 of the sum" in latency.warnings[0]
