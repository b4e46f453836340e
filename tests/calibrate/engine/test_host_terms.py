"""Host terms: fitted, never negative, and found again where they were put in."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from calibrate.engine.measured import MeasuredSteps
from calibrate.validate.host_terms import fit_host, host_file, non_negative_least_squares
from simserve.errors import SimserveError
from simserve.latency.importers.table_folder import yaml_text
from simserve.latency.tables.host_file import read_host
from simserve.policy.scheduler import Scheduled
from simserve.records.clock import PS_PER_S
from tests.calibrate.engine.small import MODEL

SIZES = st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=4, max_size=12)


@given(SIZES, st.lists(st.floats(-5, 5), min_size=12, max_size=12))
def test_no_other_coefficients_above_zero_fit_better(
    rows: list[list[float]], wanted: list[float]
) -> None:
    features, target = np.array(rows), np.array(wanted[: len(rows)])
    found = non_negative_least_squares(features, target)
    assert (found >= 0).all()
    error = np.sum((features @ found - target) ** 2)
    # The conditions of Karush, Kuhn and Tucker: no step into the allowed helps.
    slope = features.T @ (features @ found - target)
    for term in range(3):
        for step in (1e-3, -1e-3):
            other = found.copy()
            other[term] += step
            if other[term] >= 0:
                assert np.sum((features @ other - target) ** 2) >= error - 1e-6 * (1 + error)
    assert (slope >= -1e-6 * (1 + np.abs(features).max() ** 2)).all()


def test_without_bounds_in_the_way_it_is_least_squares() -> None:
    rng = np.random.default_rng(5)
    features = rng.uniform(0, 9, (50, 3))
    target = features @ [1.5, 0.25, 3.0] + rng.normal(0, 0.01, 50)
    expected, *_ = np.linalg.lstsq(features, target, rcond=None)
    assert non_negative_least_squares(features, target) == pytest.approx(expected)


def made_up(ahead: bool, seed: int = 0, noise: float = 0.0) -> Any:
    """Return a replay whose steps take exactly what the host formula says."""
    rng = np.random.default_rng(seed)
    measured, walls = MeasuredSteps(), []
    for step in range(200):
        decodes, new = int(rng.integers(1, 30)), int(rng.integers(0, 2) * rng.integers(1, 500))
        entries = [Scheduled(i, 1, 99, True) for i in range(decodes)]
        entries += [Scheduled(99, new, 0, False)] if new else []
        host = 100e-6 + 3e-6 * len(entries) + 0.2e-6 * new
        launch, gpu = (30e-6, 9e-3) if not new else (9 * MODEL.layers * 5e-6, 20e-3)
        host += noise * rng.standard_normal()
        wall = max(gpu, host + launch) + 70e-6 if ahead else host + max(gpu, launch)
        to_ps = [round(part * PS_PER_S) for part in (host / 2, host / 2, launch)]
        measured.planned(entries, 0 if new else 32, tuple(to_ps))  # type: ignore[arg-type]
        measured.ended(step, gpu, 0)
        walls.append(round(wall * PS_PER_S))
    log = SimpleNamespace(
        scheduled_ahead=ahead, duration_per_step_ps=lambda: np.array(walls, np.int64)
    )
    return SimpleNamespace(record=SimpleNamespace(steps=(log,)), steps=measured)


@pytest.mark.parametrize("ahead", [False, True])
def test_terms_are_found_again(ahead: bool) -> None:
    fit = fit_host([made_up(ahead), made_up(ahead, 1)], MODEL)
    assert fit.host_step == pytest.approx(100e-6, rel=1e-3)
    assert fit.host_per_seq == pytest.approx(3e-6, rel=1e-3)
    assert fit.host_per_prefill_token == pytest.approx(0.2e-6, rel=1e-3)
    assert fit.launch_graph == pytest.approx(30e-6)
    assert fit.launch_kernel == pytest.approx(5e-6)
    assert fit.kernels_per_layer == 9
    assert fit.bubble == pytest.approx(70e-6 if ahead else 0.0, abs=1e-7)
    assert fit.residual_p90 < 1e-8


def test_noise_is_told_as_what_is_left_over() -> None:
    fit = fit_host([made_up(False, noise=10e-6)], MODEL)
    assert fit.residual_p50 == pytest.approx(0.674 * 10e-6, rel=0.2)  # of a normal distribution
    assert fit.host_step == pytest.approx(100e-6, abs=5e-6)


def test_steps_that_computed_nothing_are_no_steps_to_fit_to() -> None:
    replay = made_up(False)
    replay.steps._columns["t_gpu"] = [0.0] * 200
    with pytest.raises(SimserveError, match="no step to fit to"):
        fit_host([replay], MODEL)


@pytest.mark.parametrize("ahead", [False, True])
def test_the_file_says_what_was_fitted(ahead: bool, tmp_path: Path) -> None:
    fit = fit_host([made_up(ahead)], MODEL)
    path = tmp_path / "host.yaml"
    path.write_text(yaml_text(host_file(fit, (1, 2, 4), "a test", "2026-11-20")))
    read = read_host(path)
    for name, value in fit.terms().items():
        assert getattr(read, name).value == pytest.approx(value, rel=1e-12)
        assert getattr(read, name).kind == "fitted"
    assert read.decode_graph_sizes == (1, 2, 4)
    assert (read.bubble.value > 0) == ahead
