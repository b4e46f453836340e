"""Factors of a profile from benchmarks: found again where they can be, refused where not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from simserve.cli import app
from simserve.engine.simulate import simulate
from simserve.errors import InputError
from simserve.inputs.deployment import read_deployment
from simserve.latency.tables.profile import Profile, read_profile
from simserve.latency.tables.table_model import TableModel
from simserve.planning.measured_bench import MeasuredBench, read_bench
from simserve.planning.profile_fit import fit_profile, with_factors
from simserve.results.metrics import request_latencies
from tests.latency.tables.profiles import H100, HOST, LLAMA_8B, tables_of, write_profile

DEPLOYMENT = read_deployment({"model": "llama-3.1-8b", "gpu": "h100-sxm"})
CLIENT_S = 0.008


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_profile(tmp_path_factory.mktemp("base"), tables_of(LLAMA_8B, 1), HOST)


def bench_file(folder: Path, users: int, **more: Any) -> Path:
    path = folder / f"c{users}.json"
    entry = {
        "request_rate": "inf",
        "max_concurrency": users,
        "completed": 4 * users,
        "failed": 0,
        "total_input_tokens": 4 * users * 400,
        "total_output_tokens": 4 * users * 60,
        "mean_ttft_ms": 1.0,
        "mean_tpot_ms": 1.0,
    }
    path.write_text(json.dumps(entry | more), encoding="utf-8")
    return path


def measured(profile: Profile, folder: Path, users: int) -> Path:
    """Write a benchmark as a server with this profile would have measured it."""
    load = read_bench(bench_file(folder, users))
    model = TableModel(profile, LLAMA_8B, H100, 1)
    got = request_latencies(simulate(load.requests, DEPLOYMENT, model))
    ttft_s, tpot_s = float(np.mean(got.ttft_s)) + CLIENT_S, float(np.mean(got.tpot_s))
    return bench_file(folder, users, mean_ttft_ms=1e3 * ttft_s, mean_tpot_ms=1e3 * tpot_s)


def benches(base: Path, folder: Path, *users: int) -> list[MeasuredBench]:
    truth = with_factors(read_profile(base), 1.12, 5e-4)
    return [read_bench(measured(truth, folder, one)) for one in users]


def test_factors_are_found_again_from_benchmarks_at_different_loads(
    base: Path, tmp_path: Path
) -> None:
    runs = benches(base, tmp_path, 1, 200)
    found = fit_profile(read_profile(base), DEPLOYMENT, runs, ("gpu", "gap", "client"))
    assert found.gpu_factor == pytest.approx(1.12, abs=0.01)
    assert found.gap_s == pytest.approx(5e-4, abs=6e-5)
    assert found.client_s == pytest.approx(CLIENT_S, abs=1e-3)
    assert all(abs(one.error_pct) < 2 for one in found.residuals)


def test_one_benchmark_cannot_tell_the_gap_from_the_gpu(base: Path, tmp_path: Path) -> None:
    runs = benches(base, tmp_path, 4)
    with pytest.raises(InputError, match="1 benchmarks that cannot tell gpu and gap apart"):
        fit_profile(read_profile(base), DEPLOYMENT, runs, ("gpu", "gap"))
    alike = benches(base, tmp_path, 4, 5)
    with pytest.raises(InputError, match="loads that differ more"):
        fit_profile(read_profile(base), DEPLOYMENT, alike, ("gpu", "gap"))
    found = fit_profile(read_profile(base), DEPLOYMENT, runs, ("gpu",))
    assert found.gpu_factor > 1.1 and found.gap_s == 0 == found.client_s


def test_the_command_writes_a_profile_that_prices_steps_with_the_factor(
    base: Path, tmp_path: Path
) -> None:
    truth = with_factors(read_profile(base), 1.2, 0.0)
    files = [str(measured(truth, tmp_path, users)) for users in (2, 40)]
    out = tmp_path / "mine"
    words = ["profile", "fit", "--measured", files[0], "--measured", files[1], "--out", str(out)]
    words += ["--model", "llama-3.1-8b", "--gpu", "h100-sxm", "--latency", str(base)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "GPU time × 1.200" in done.stdout and "TPOT at 40 in flight" in done.stdout
    fitted = read_profile(out)
    assert fitted.gpu_time_factor == pytest.approx(1.2, abs=0.005)
    assert set(fitted.tables) == set(read_profile(base).tables)
    assert fitted.facts["quality"]["client_ms"] == pytest.approx(1e3 * CLIENT_S, abs=1)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"failed": 3}, "failed: got 3"),
        ({"mean_tpot_ms": None}, "mean_tpot_ms: got nothing, allowed: a number above 0"),
        ({"request_rate": 5.0}, "max_concurrency: got 8"),
        ({"request_rate": 0}, "max_concurrency: got 8"),
        ({"input_lens": [0] * 32}, "input_lens: got 0"),
    ],
)
def test_a_benchmark_that_does_not_tell_its_load_is_refused(
    tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        read_bench(bench_file(tmp_path, 8, **more))


def test_requests_start_when_they_did_if_the_file_tells(tmp_path: Path) -> None:
    starts = [100.0, 102.5, 101.0, 103.0]
    load = read_bench(bench_file(tmp_path, 1, start_times=starts, output_lens=[1, 2, 3, 4]))
    assert (load.requests.arrival_ps / 1e12).tolist() == [0, 1, 2.5, 3]
    assert load.requests.output_tokens.tolist() == [1, 2, 3, 4] and load.requests.users is None
    poisson = read_bench(bench_file(tmp_path, 1, request_rate=2.0, max_concurrency=None))
    assert poisson.how == "2 requests/s" and len(poisson.requests) == 4


def test_a_roofline_has_nothing_to_fit(tmp_path: Path) -> None:
    words = ["profile", "fit", "--measured", str(bench_file(tmp_path, 2)), "--out", "x"]
    done = CliRunner().invoke(app, [*words, "--model", "llama-3.1-8b", "--gpu", "h100-sxm"])
    assert done.exit_code == 2 and "nothing to fit in a roofline" in done.stderr
