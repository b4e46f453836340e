"""A model that reads every context: its lines, its steps, and the engine that asks it."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.errors import InputError
from simserve.latency.model import UnevenDecodeModel
from simserve.latency.tables.table_model import TableModel
from simserve.latency.tables.uneven import SPAN_STEPS
from simserve.records.clock import PS_PER_S
from simserve.records.step import PrefillChunk, StepShape
from tests.latency.tables.profiles import H100, LLAMA_8B, profile_of, sourced, tables_of

FIRST_UNSPLIT = 27  # 0.8 · 2 · 132 SMs / 8 KV heads
WAVES = {name: {**sourced(None), "value": [132, 64.0, 60.0, 500.0]} for name in ("decode", "mixed")}
contexts = st.lists(st.integers(1, 6000), min_size=1, max_size=80)


@functools.cache
def uneven_model() -> TableModel:
    tables = tables_of(LLAMA_8B, 1)
    for row in tables["attn_decode"]:
        row["regime"] = "split" if row["batch"] < FIRST_UNSPLIT else "unsplit"  # type: ignore[index]
    return TableModel(profile_of(tables, waves=WAVES), LLAMA_8B, H100, 1)


def test_a_profile_with_waves_makes_a_model_that_reads_contexts() -> None:
    latency = uneven_model()
    assert isinstance(latency, UnevenDecodeModel) and latency.reads_contexts
    plain = TableModel(profile_of(tables_of(LLAMA_8B, 1)), LLAMA_8B, H100, 1)
    assert not plain.reads_contexts


@settings(max_examples=100)
@given(contexts)
def test_the_line_meets_the_step_now_and_at_the_end_of_its_span(sizes: list[int]) -> None:
    latency, now = uneven_model(), np.array(sizes)
    line = latency.uneven_decode_line(len(sizes), now)
    assert line.context_start <= now.sum() <= line.context_limit
    ends = [now]
    if len(sizes) >= FIRST_UNSPLIT:  # elsewhere it is the line of the sum
        assert line.context_limit == now.sum() + SPAN_STEPS * len(sizes)
        ends.append(now + SPAN_STEPS)
    times = []
    for each in ends:
        total = int(each.sum())
        line_s = (line.base_ps + line.per_context_ps * total) / PS_PER_S
        times.append(latency.step_s(StepShape(len(sizes), total, (), each)))
        if len(times) == 1 or times[1] >= times[0]:  # a line never falls
            assert line_s == pytest.approx(times[-1], rel=1e-3)


@settings(max_examples=100)
@given(contexts, st.integers(1, 3000))
def test_split_decodes_cost_what_their_sum_does(sizes: list[int], new: int) -> None:
    latency, now = uneven_model(), np.array(sizes[: FIRST_UNSPLIT - 1])
    shape = StepShape(len(now), int(now.sum()))
    alone_s = latency.step_s(shape._replace(decode_contexts=now))
    assert alone_s == pytest.approx(latency.step_s(shape))
    mixed = shape._replace(prefill=(PrefillChunk(new, 0),))
    with_contexts = latency.step_s(mixed._replace(decode_contexts=now))
    assert with_contexts >= 0.7 * latency.step_s(mixed)


def test_uneven_decodes_take_longer_alone_and_beside_a_chunk() -> None:
    latency = uneven_model()
    each = np.array([6000] * 4 + [200] * 60)
    for prefill in ((), (PrefillChunk(64, 0),)):
        even = StepShape(64, int(each.sum()), prefill)
        assert latency.step_s(even._replace(decode_contexts=each)) > 1.01 * latency.step_s(even)


@pytest.mark.parametrize(
    ("waves", "said"),
    [
        ({"split": {**sourced([1, 1, 1, 1])}}, "decode"),
        ({"decode": {**sourced([1, 1, 1])}}, "four numbers"),
        ({"decode": {"value": [1, 1, 1, 1]}}, "kind"),
    ],
)
def test_waves_that_cannot_be_used_are_refused(waves: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        profile_of(tables_of(LLAMA_8B, 1), waves=waves)
