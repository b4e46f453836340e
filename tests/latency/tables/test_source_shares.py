"""Which kind of answer a run's time came from."""

from __future__ import annotations

import numpy as np
import pytest

from simserve.engine.simulate import simulate
from simserve.inputs.deployment import read_deployment
from simserve.inputs.workload import WorkloadSpec
from simserve.latency.tables.source_shares import shares_of_run, source_shares
from simserve.latency.tables.table_model import TableModel
from simserve.records.step import PrefillChunk, StepShape
from simserve.traffic.generate import generate
from tests.latency.tables.profiles import H100, LLAMA_8B, gemm_rows, noisy_model, profile_of


def test_shares_of_one_step_are_those_of_its_parts() -> None:
    latency = noisy_model(0)
    shape = StepShape(64, 64 * 1024, (PrefillChunk(300, 50),))
    shares = source_shares(latency, np.array([[64, 64 * 1024, 1, 300, 350]]), np.array([7]))
    step_s = latency.step_s(shape)
    for source, share in shares.items():
        of_source = [part.seconds for part in latency.parts(shape) if part.source == source]
        assert share == pytest.approx(sum(of_source) / step_s)
    assert sum(shares.values()) == pytest.approx(1)


def test_a_sample_of_a_long_log_is_close_to_all_of_it() -> None:
    latency = noisy_model(0)
    random = np.random.Generator(np.random.PCG64(5))
    rows = 3000
    shapes = np.stack(
        [
            random.integers(1, 300, rows),
            random.integers(300, 900_000, rows),
            random.integers(0, 2, rows),
            random.integers(1, 2000, rows),
            random.integers(2000, 90_000, rows),
        ],
        axis=1,
    )
    weights = random.integers(1, 10**10, rows)
    whole = source_shares(latency, shapes, weights, most_rows=rows)
    sample = source_shares(latency, shapes, weights, most_rows=500)
    assert sample == source_shares(latency, shapes, weights, most_rows=500)
    for source, share in whole.items():
        # A row's share of a source varies by less than 0.5: 4 standard errors of 500 rows.
        assert sample[source] == pytest.approx(share, abs=4 * 0.5 / 500**0.5)


def test_nothing_that_ran_has_no_shares() -> None:
    empty = np.empty((0, 5), dtype=np.int64)
    assert source_shares(noisy_model(0), empty, np.empty(0, dtype=np.int64)) == {}
    assert shares_of_run(noisy_model(0), []) == {}


def test_shares_of_a_run_are_read_off_its_log() -> None:
    deployment = read_deployment({"model": "llama-3.1-8b", "gpu": "h100-sxm"})
    workload = WorkloadSpec.model_validate(
        {
            "arrivals": {"process": "poisson", "rate_per_s": 8.0},
            "prompt_tokens": {"fixed": 700},
            "output_tokens": {"fixed": 60},
            "num_requests": 40,
        }
    )
    latency = TableModel(profile_of({"gemm": gemm_rows(LLAMA_8B, 1)}), LLAMA_8B, H100, 1)
    record = simulate(generate(workload, 0), deployment, latency, check=True)
    shares = shares_of_run(latency, record.steps)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["exact"] + shares["interp"] > 0.5  # the matrices
    assert 0 < shares["roofline"] < 0.5  # everything else
    assert shares["transfer"] == 0
