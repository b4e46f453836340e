"""How far tables can be trusted: rows left out, and what a run rests on."""

from __future__ import annotations

import numpy as np
import pytest

from simserve.engine.simulate import simulate
from simserve.inputs.deployment import read_deployment
from simserve.latency.health import next_measurements, table_health, uses_of_run
from simserve.latency.tables.table_model import TableModel
from simserve.records.requests import RequestTable
from simserve.records.run_record import RunRecord
from tests.latency.tables.profiles import H100, LLAMA_8B, profile_of, tables_of


def small_run(latency: TableModel) -> RunRecord:
    requests = RequestTable(
        arrival_ps=np.arange(12, dtype=np.int64) * 10**11,
        prompt_tokens=np.full(12, 300, dtype=np.int64),
        output_tokens=np.full(12, 40, dtype=np.int64),
    )
    deployment = read_deployment({"model": "llama-3.1-8b", "gpu": "h100-sxm"})
    return simulate(requests, deployment, latency)


def test_tables_without_noise_answer_for_a_row_left_out() -> None:
    found = {one.table: one for one in table_health(profile_of(tables_of(LLAMA_8B, 1)), H100)}
    assert set(found) == {"gemm", "attn_decode", "attn_prefill"}
    assert found["attn_decode"].p90_pct < 1  # a line in both sizes
    assert found["gemm"].asked < found["gemm"].rows


def test_noise_between_rows_is_told_as_their_error() -> None:
    random = np.random.default_rng(0)
    noisy = tables_of(LLAMA_8B, 1, lambda: float(random.lognormal(0, 0.1)))
    found = {one.table: one for one in table_health(profile_of(noisy), H100)}
    assert 2 < found["attn_decode"].p50_pct < 25


def test_a_run_tells_which_points_it_rests_on_and_which_to_measure_next() -> None:
    latency = TableModel(profile_of(tables_of(LLAMA_8B, 1)), LLAMA_8B, H100, 1)
    record = small_run(latency)
    health = table_health(latency.profile, H100)
    uses = uses_of_run(latency, record.steps, health)
    assert sum(one.share for one in uses) == pytest.approx(1)
    assert [one.doubt_pct for one in uses] == sorted((one.doubt_pct for one in uses), reverse=True)
    most = max(uses, key=lambda one: one.share)
    assert most.operator == "ffn_up" and "tokens" in most.point
    wanted = next_measurements(uses, 3)
    assert len(wanted) == 3 and all(one.source != "exact" for one in wanted)
    assert {one.operator for one in uses} >= {"attn_prefill", "attn_decode", "lm_head", "norm"}
