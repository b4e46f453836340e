"""Every scenario that ships is read, and its requests are generated."""

from __future__ import annotations

import numpy as np
import pytest

from simserve.inputs.data_files import data_dir
from simserve.inputs.scenario import load_scenario
from simserve.traffic.generate import generate

FILES = sorted(data_dir("workloads").glob("*.yaml"))
USES = {"agents", "batch-summarisation", "chat", "code-completion", "diurnal-day", "flash-crowd"}


def test_one_file_ships_for_every_use() -> None:
    assert {path.stem for path in FILES} >= USES | {"on-off-bursts", "rag"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_workload_generates_requests_that_its_deployment_takes(path: object) -> None:
    scenario = load_scenario(str(path))
    requests = generate(scenario.workload, scenario.seed)
    assert len(requests) >= 500
    longest = int((requests.prompt_tokens + requests.output_tokens).max())
    assert longest <= scenario.deployment.engine.max_model_len
    if scenario.workload.num_requests is not None:
        assert len(requests) == scenario.workload.num_requests
    rate = scenario.workload.arrivals and scenario.workload.arrivals.rate_per_s
    if rate is not None and scenario.workload.sessions is None:
        # Poisson and steadier by some percent; a few bursts of on-off cover a shorter time.
        assert len(requests) / (requests.arrival_ps[-1] / 1e12) == pytest.approx(rate, rel=0.5)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_workload_says_where_its_numbers_come_from(path: object) -> None:
    comments = [line for line in str(path.read_text()).splitlines() if line.startswith("#")]  # type: ignore[attr-defined]
    text = " ".join(comments).lower()
    assert "assumed" in text
    assert comments[0].removeprefix("# ").strip()


def test_median_lengths_of_code_completion_are_those_of_its_source() -> None:
    requests = generate(load_scenario("code-completion").workload, 0)
    # Lognormal, sigma about 1: the median of 3000 is known to 2.3 %.
    assert np.median(requests.prompt_tokens) == pytest.approx(1469, rel=0.12)
    assert np.median(requests.output_tokens) == pytest.approx(13, abs=1.5)
