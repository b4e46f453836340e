"""Tables as another measurement might have found them: only as far off as they record."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simserve.inputs.scenario import Scenario, load_scenario
from simserve.latency import perturbed as perturbed_module
from simserve.latency.load import load_latency_model
from simserve.latency.model import LinearDecodeModel
from simserve.latency.perturbed import (
    deployment_scatter,
    perturbed,
    perturbed_model,
    recorded_scatter,
)
from simserve.latency.tables.profile import read_profile
from simserve.planning.calibration import calibration_band
from simserve.planning.replications import replicate
from simserve.records.step import PrefillChunk, StepShape
from tests.latency.tables.profiles import LLAMA_8B, decode_rows, gemm_rows, write_profile

SPREAD = 1.1  # from the 10th to the 90th percentile


def spread(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    half = math.sqrt(SPREAD)
    return [
        {
            **row,
            "us_p10": float(str(row["us_p50"])) / half,
            "us_p90": float(str(row["us_p50"])) * half,
        }
        for row in rows
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tables = {
        "gemm": spread([dict(row) for row in gemm_rows(LLAMA_8B, 1)]),
        "attn_decode": [dict(row) for row in decode_rows(LLAMA_8B, 1)],
    }
    return write_profile(tmp_path / "made-up", tables)


def scenario(folder: Path) -> Scenario:
    settings = [
        "workload.output_tokens={median: 20, p95: 60, max: 200}",
        "workload.num_requests=300",
    ]
    return load_scenario(latency=str(folder), settings=settings)


def test_scatter_is_that_of_the_rows_that_record_it(folder: Path) -> None:
    found = recorded_scatter(read_profile(folder))
    assert found is not None and set(found.log_sd) == {"gemm"}
    # A normal distribution spans 2.563 standard deviations between these percentiles.
    assert found.log_sd["gemm"] == pytest.approx(math.log(SPREAD) / 2.563, rel=1e-3)


def test_points_measured_twice_come_before_repeats(folder: Path) -> None:
    again = "table,name,us_first,us_again,error_pct\ngemm,a,100,110,10\nattn_decode,b,50,50,0\n"
    (folder / "repeatability.csv").write_text(again)
    found = recorded_scatter(read_profile(folder))
    assert found is not None and "twice" in found.source
    assert found.log_sd == pytest.approx({"gemm": math.log(1.1) / math.sqrt(2), "attn_decode": 0.0})


def test_a_table_moves_as_one_and_by_as_much_as_it_scatters(folder: Path) -> None:
    profile = read_profile(folder)
    scatter = recorded_scatter(profile)
    assert scatter is not None
    logs = []
    for seed in range(300):
        drawn = perturbed(profile, scatter, np.random.default_rng(seed))
        factors = {
            round(after.seconds / before.seconds, 9)
            for before, after in zip(
                profile.tables["gemm"].rows, drawn.tables["gemm"].rows, strict=True
            )
        }
        assert len(factors) == 1
        assert drawn.tables["attn_decode"] == profile.tables["attn_decode"]
        logs.append(math.log(factors.pop()))
    assert np.std(logs) == pytest.approx(scatter.log_sd["gemm"], rel=0.15)
    assert abs(np.mean(logs)) < 4 * scatter.log_sd["gemm"] / math.sqrt(300)


def test_a_perturbed_model_keeps_the_engines_fast_path(folder: Path) -> None:
    deployment = scenario(folder).deployment
    plain = load_latency_model(deployment)
    first, same, other = (
        perturbed_model(deployment, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert isinstance(first, LinearDecodeModel)
    shapes = [StepShape(8, 4000), StepShape(0, 0, (PrefillChunk(512, 0),))]
    for shape in shapes:
        assert first.step_s(shape) == same.step_s(shape)
        assert first.step_s(shape) != other.step_s(shape)
        assert first.step_s(shape) == pytest.approx(plain.step_s(shape), rel=0.15)
        assert first.step_s(shape) != plain.step_s(shape)


def test_a_perturbed_model_may_extrapolate_as_far_as_the_plain_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(perturbed_module, "TableModel", lambda *_, **given: made.append(given))
    deployment = scenario(folder).deployment
    for allowed in (False, True):
        one = dataclasses.replace(deployment, allow_extrapolation=allowed)
        perturbed_model(one, np.random.default_rng(0))
    assert [one["allow_extrapolation"] for one in made] == [False, True]


def test_the_roofline_records_no_scatter() -> None:
    roofline = load_scenario()
    assert deployment_scatter(roofline.deployment) is None
    with pytest.raises(ValueError, match="records no scatter"):
        perturbed_model(roofline.deployment, np.random.default_rng(0))


def test_the_band_grows_with_the_scatter(folder: Path) -> None:
    one = scenario(folder)
    runs = replicate(one, range(2))
    narrow = calibration_band(one, runs, draws=6).half_widths_s["tpot"]["mean"]
    again = "table,name,us_first,us_again,error_pct\ngemm,a,100,130,30\n"
    (folder / "repeatability.csv").write_text(again)
    wide = calibration_band(one, runs, draws=6).half_widths_s["tpot"]["mean"]
    assert 0 < narrow < wide


def test_a_deployment_without_scatter_has_a_reason_and_no_band() -> None:
    quick = dataclasses.replace(load_scenario(settings=["workload.num_requests=50"]))
    band = calibration_band(quick, replicate(quick, [0]))
    assert band.half_widths_s == {} and band.reason is not None and "roofline" in band.reason
