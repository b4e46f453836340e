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
from simserve.inputs.workload import read_workload
from simserve.latency.tables.profile import Profile, read_profile
from simserve.latency.tables.table_model import TableModel
from simserve.planning.measured_bench import read_bench
from simserve.planning.measured_means import (
    E2E,
    ITL,
    QUEUE,
    STEP_TOKENS,
    TTFT,
    MeasuredBench,
    simulated_means,
)
from simserve.planning.measured_page import read_page
from simserve.planning.profile_fit import fit_profile, with_factors
from simserve.records.requests import IntArray
from simserve.results.metrics import request_latencies
from simserve.traffic.generate import generate
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
    with pytest.raises(InputError, match="1 loads that cannot tell gpu and gap apart"):
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


# -- pages of /metrics


def page_of(
    profile: Profile,
    folder: Path,
    rate_per_s: float,
    requests: int = 4000,
) -> Path:
    """Write the page that a server with this profile would show after a Poisson load."""
    entry = {
        "arrivals": {"process": "poisson", "rate_per_s": rate_per_s},
        "num_requests": requests,
        "prompt_tokens": {"histogram": {"upto": [300, 500], "weights": [1, 1]}},
        "output_tokens": {"histogram": {"upto": [50, 100], "weights": [1, 1]}},
    }
    table = generate(read_workload(entry), 7)
    record = simulate(table, DEPLOYMENT, TableModel(profile, LLAMA_8B, H100, 1))
    means = simulated_means(record, is_sample=True)
    lines = [
        *histogram("vllm:request_prompt_tokens", table.prompt_tokens, (300, 500)),
        *histogram("vllm:request_generation_tokens", table.output_tokens, (50, 100)),
    ]
    names = {
        "vllm:time_to_first_token_seconds": means[TTFT] + CLIENT_S,
        "vllm:inter_token_latency_seconds": means[ITL],
        "vllm:e2e_request_latency_seconds": means[E2E] + CLIENT_S,
        "vllm:request_queue_time_seconds": means[QUEUE],
        "vllm:iteration_tokens_total": means[STEP_TOKENS],
    }
    for name, mean in names.items():
        lines += [f"{name}_sum{LABEL} {mean * requests}", f"{name}_count{LABEL} {requests}"]
    path = folder / f"{rate_per_s:g}.prom"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


LABEL = '{model_name="m"}'


def histogram(name: str, values: IntArray, edges: tuple[int, ...]) -> list[str]:
    counts = [(f"{edge}.0", int((values <= edge).sum())) for edge in edges]
    lines = [
        f'{name}_bucket{{model_name="m",le="{edge}"}} {count}'
        for edge, count in (*counts, ("+Inf", len(values)))
    ]
    return [*lines, f"{name}_sum{LABEL} {values.sum()}", f"{name}_count{LABEL} {len(values)}"]


def load_of(profile: Profile, folder: Path, rate_per_s: float) -> MeasuredBench:
    page = page_of(profile, folder, rate_per_s)
    return read_page(page, 4000 / rate_per_s, None, None)


def test_factors_are_found_again_from_pages_of_metrics(base: Path, tmp_path: Path) -> None:
    truth = with_factors(read_profile(base), 1.12, 0.0)
    loads = [load_of(truth, tmp_path, 0.5), load_of(truth, tmp_path, 20.0)]
    found = fit_profile(read_profile(base), DEPLOYMENT, loads, ("gpu", "client"))
    assert found.gpu_factor == pytest.approx(1.12, abs=0.01)
    assert found.client_s == pytest.approx(CLIENT_S, abs=1e-3)
    assert {one.metric for one in found.residuals} == {TTFT, ITL, E2E, QUEUE, STEP_TOKENS}
    for one in found.residuals:
        assert abs(one.error_pct) < 5 or one.metric == QUEUE


@pytest.mark.parametrize("rates", [(5.0,), (0.5, 40.0)])
def test_pages_of_loads_that_are_alike_cannot_tell_the_gap_from_the_gpu(
    base: Path, tmp_path: Path, rates: tuple[float, ...]
) -> None:
    loads = [load_of(read_profile(base), tmp_path, rate) for rate in rates]
    with pytest.raises(InputError, match="cannot tell gpu and gap apart"):
        fit_profile(read_profile(base), DEPLOYMENT, loads, ("gpu", "gap"))


def test_a_load_that_came_in_bursts_is_refused_not_fitted(base: Path, tmp_path: Path) -> None:
    page = page_of(read_profile(base), tmp_path, 10.0)
    load = read_page(page, 40 * 4000 / 10.0, None, None)  # a page of a busy hour in two days
    with pytest.raises(InputError, match=r"tokens a step, .* simulated .* one steady load"):
        fit_profile(read_profile(base), DEPLOYMENT, [load], ("gpu",))


def test_only_what_grew_since_a_page_before_counts(base: Path, tmp_path: Path) -> None:
    early, late = tmp_path / "early", tmp_path / "late"
    for folder in (early, late):
        folder.mkdir()
    before = page_of(with_factors(read_profile(base), 3.0, 0.0), early, 4.0, 2000)
    after = page_of(read_profile(base), late, 4.0, 4000)
    olds, news = (page.read_text().splitlines() for page in (before, after))
    summed = [
        f"{new.rsplit(' ', 1)[0]} {float(old.rsplit(' ', 1)[1]) + float(new.rsplit(' ', 1)[1])}"
        for old, new in zip(olds, news, strict=True)
    ]
    both = tmp_path / "both.prom"
    both.write_text("\n".join(summed))
    alone, grown = read_page(after, 1000, None, None), read_page(both, 1000, before, None)
    assert grown.means == pytest.approx(alone.means)
    np.testing.assert_array_equal(grown.requests.prompt_tokens, alone.requests.prompt_tokens)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("vllm:time_to_first_token_seconds", "time_to_first_token_seconds: got nothing"),
        ("vllm:inter_token_latency_seconds", "inter_token_latency_seconds: got nothing"),
        ("vllm:request_prompt_tokens", "request_prompt_tokens: got nothing"),
    ],
)
def test_a_page_without_what_is_fitted_is_refused(
    base: Path, tmp_path: Path, lost: str, said: str
) -> None:
    path = page_of(read_profile(base), tmp_path, 5.0, 400)
    kept = [line for line in path.read_text().splitlines() if not line.startswith(lost)]
    path.write_text("\n".join(kept))
    with pytest.raises(InputError, match=said):
        read_page(path, 80.0, None, None)


def test_a_page_of_a_few_requests_is_refused(base: Path, tmp_path: Path) -> None:
    path = page_of(read_profile(base), tmp_path, 5.0, 50)
    with pytest.raises(InputError, match="requests: got 50, allowed: at least 100"):
        read_page(path, 10.0, None, None)


def test_the_command_fits_a_page_and_asks_for_its_seconds(base: Path, tmp_path: Path) -> None:
    page = page_of(with_factors(read_profile(base), 1.2, 0.0), tmp_path, 5.0)
    words = ["profile", "fit", "--measured", str(page), "--out", str(tmp_path / "mine")]
    words += ["--model", "llama-3.1-8b", "--gpu", "h100-sxm", "--latency", str(base)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2 and "--over: got 0, allowed: the seconds" in done.stderr
    done = CliRunner().invoke(app, [*words, "--over", "800"])
    assert done.exit_code == 0, done.output
    assert "GPU time × 1.2" in done.stdout and "tokens a step at 5 requests/s" in done.stdout
    quality = read_profile(tmp_path / "mine").facts["quality"]
    assert quality["client_ms"] == pytest.approx(1e3 * CLIENT_S, abs=1.5)
