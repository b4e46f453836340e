"""Promises as shares: Wilson's interval, and what a looser limit can never do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import simserve
from simserve.planning.run_scenario import run
from simserve.results.attainment import attainments, wilson
from simserve.results.run_sample import RunSample
from tests.results.reference_run import Options
from tests.results.scenarios import result


def samples(small: Path, slo: str, runs: int = 1, requests: int = 600) -> list[RunSample]:
    found = []
    for seed in range(runs):
        settings = [f"workload.num_requests={requests}"]
        one = simserve.load_scenario(small, settings=settings, slo=slo, seed=seed)
        found.append(run(one).sample)
    return found


@pytest.mark.parametrize(
    ("share", "size", "low", "high"),
    [(0.5, 100, 0.4038, 0.5962), (0.0, 10, 0.0, 0.2775), (1.0, 10, 0.7225, 1.0)],
)
def test_wilsons_interval_is_that_of_the_textbook(
    share: float, size: float, low: float, high: float
) -> None:
    assert wilson(share, size) == pytest.approx((low, high), abs=1e-4)


@given(share=st.floats(0, 1), size=st.floats(1, 1e6))
def test_wilsons_interval_holds_the_share_and_narrows(share: float, size: float) -> None:
    low, high = wilson(share, size)
    assert 0 <= low <= share + 1e-12 and share - 1e-12 <= high <= 1
    narrower = wilson(share, size * 4)
    assert narrower[1] - narrower[0] <= high - low


def test_wilsons_interval_holds_the_truth_of_independent_trials() -> None:
    rng = np.random.default_rng(1)
    shares = rng.binomial(400, 0.95, 2000) / 400
    held = [low <= 0.95 <= high for low, high in (wilson(share, 400) for share in shares)]
    assert 0.93 <= np.mean(held) <= 0.97


def test_a_looser_limit_is_kept_by_no_fewer(small: Path) -> None:
    shares = []
    for limit in (20, 25, 30, 60):
        (found,) = attainments(samples(small, f"ttft_p95:{limit}"))
        shares.append(found.share)
        assert found.low <= found.share <= found.high
    assert shares == sorted(shares) and shares[0] < shares[-1]


def test_a_percentile_objective_is_met_exactly_if_the_percentile_is(small: Path) -> None:
    (sample,) = samples(small, "ttft_p90:1000")
    values = np.sort(sample.latencies["ttft"].values)
    place = int(np.ceil(0.9 * len(values))) - 1
    for limit, met in ((values[place] * 1000, True), (values[place - 1] * 1000, False)):
        (found,) = attainments(samples(small, f"ttft_p90:{float(limit)!r}"))
        assert found.met is met


def test_nobody_late_is_no_proof_that_nobody_ever_is(small: Path) -> None:
    (found,) = attainments(samples(small, "ttft_p99.99:100000", requests=200))
    assert found.share == 1.0 and found.met
    assert found.low < 0.9999 and not found.surely_met


def test_a_limit_far_away_is_surely_met_with_a_few_runs(small: Path) -> None:
    (found,) = attainments(samples(small, "ttft_p99:100000", runs=4, requests=200))
    assert found.surely_met and found.strain_high is not None and found.strain_high < 0.01


def test_a_limit_far_below_is_surely_missed(small: Path) -> None:
    (found,) = attainments(samples(small, "ttft_p50:0.001", runs=4, requests=200))
    assert found.surely_missed and found.share == 0.0


def test_objectives_per_request_hold_together(small: Path) -> None:
    (both,) = attainments(samples(small, "ttft:26 e2el:200"))
    single = [attainments(samples(small, one))[0] for one in ("ttft:26", "e2el:200")]
    assert both.share <= min(one.share for one in single)
    assert both.required == 0.99


def test_who_is_turned_away_is_not_served_well() -> None:
    refused = result("ttft:1e9", Options(longest=100), requests=60, gap_ms=200, replicas=1)
    finished = refused.metrics.completed / refused.metrics.num_prompts
    assert finished < 1
    (found,) = attainments([refused.sample])
    assert found.share < 1


def test_gaps_are_judged_by_gaps(small: Path) -> None:
    (sample,) = samples(small, "itl_p90:8")
    (found,) = attainments([sample])
    gaps = sample.latencies["itl"]
    within = gaps.weights[gaps.values <= 0.008].sum() / gaps.weights.sum()
    assert found.share == pytest.approx(float(within))


def test_a_class_is_judged_by_its_own_objectives(small: Path) -> None:
    classes = (
        "workload.classes=[{name: chat, weight: 1, slo: 'ttft_p90:1e6'}, {name: batch, weight: 1}]"
    )
    one = simserve.load_scenario(small, settings=[classes], slo="e2el_p50:1e6")
    found = {each.name: each for each in attainments([run(one).sample])}
    assert set(found) == {"chat ttft_p90:1e+06", "e2el_p50:1e+06"}
    weights = [float(each.strain.weights.sum()) for each in run(one).sample.promises]
    assert sum(weights) <= 40 and all(weight > 0 for weight in weights)


def test_no_slo_makes_no_promise(small: Path) -> None:
    one = dataclasses.replace(simserve.load_scenario(small), slo=None)
    assert attainments([run(one).sample]) == ()
