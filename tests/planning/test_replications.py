"""Replications: named seeds, common random numbers, and no dependence on processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import simserve
from simserve.errors import InputError
from simserve.planning.precision import MOST_REPLICATIONS, run_until_precise
from simserve.planning.replications import (
    check_random,
    is_random,
    replicate,
    replication_of,
    replication_seed,
)
from simserve.planning.run_scenario import run
from simserve.report.intervals import precision_words
from simserve.traffic.generate import generate


def test_seeds_are_named_streams_and_the_first_is_the_scenarios() -> None:
    seeds = [replication_seed(7, number) for number in range(200)]
    assert seeds[0] == 7
    assert len(set(seeds)) == 200
    assert seeds == [replication_seed(7, number) for number in range(200)]
    assert not set(seeds[1:]) & {replication_seed(8, number) for number in range(1, 200)}


def test_the_same_replication_of_two_settings_meets_the_same_requests(small: Path) -> None:
    tables = [
        generate(replication_of(scenario, 3).workload, replication_of(scenario, 3).seed)
        for scenario in (
            simserve.load_scenario(small),
            simserve.load_scenario(small, settings=["max_num_seqs=4"]),
        )
    ]
    assert np.array_equal(tables[0].arrival_ps, tables[1].arrival_ps)
    assert np.array_equal(tables[0].output_tokens, tables[1].output_tokens)


def test_common_random_numbers_make_a_comparison_sharper(small: Path) -> None:
    few, many = (
        simserve.load_scenario(small, settings=[f"max_num_seqs={seqs}"]) for seqs in (8, 64)
    )

    def mean(runs: list[int], scenario: simserve.Scenario) -> np.ndarray:
        return np.array(
            [sample.latencies["e2el"].values.mean() for sample in replicate(scenario, runs)]
        )

    paired = mean(list(range(12)), few) - mean(list(range(12)), many)
    apart = mean(list(range(12)), few) - mean(list(range(12, 24)), many)
    assert paired.std() < 0.5 * apart.std()


def test_replications_do_not_depend_on_the_number_of_processes(small: Path) -> None:
    scenario = simserve.load_scenario(small)
    one, two = (replicate(scenario, range(4), workers=workers) for workers in (1, 2))
    for first, second in zip(one, two, strict=True):
        assert first.seed == second.seed and first.window == second.window
        for metric, series in first.latencies.items():
            assert np.array_equal(series.amounts, second.latencies[metric].amounts)


def test_the_first_replication_is_the_run_itself(small: Path) -> None:
    scenario = simserve.load_scenario(small)
    (first,) = replicate(scenario, [0])
    itself = run(scenario).sample
    assert np.array_equal(first.latencies["ttft"].amounts, itself.latencies["ttft"].amounts)


def test_a_workload_without_chance_is_not_replicated(small: Path) -> None:
    settings = [
        "workload.arrivals={process: constant, rate_per_s: 5}",
        "workload.prompt_tokens=100",
        "workload.output_tokens=10",
    ]
    scenario = simserve.load_scenario(small, settings=settings)
    with pytest.raises(InputError, match="the same whatever the seed"):
        check_random(scenario, "--replications")
    check_random(simserve.load_scenario(small), "--replications")


def test_a_precision_that_is_reached_is_that_of_every_p99(small: Path) -> None:
    scenario = simserve.load_scenario(small, settings=["workload.num_requests=1500"])
    found = run_until_precise(scenario, 0.2)
    assert found.reached and found.worst_frac is not None
    for metric in ("ttft", "tpot", "e2el"):
        interval = found.state.interval(metric, "p99")
        assert interval is not None and interval.relative_half_width is not None
        assert interval.relative_half_width <= found.worst_frac <= 0.2
    assert "every p99 is known to within 20 %" in precision_words(found)


def test_a_precision_out_of_reach_ends_at_the_limit_and_says_so(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simserve.planning.precision.MOST_REPLICATIONS", 8)
    assert MOST_REPLICATIONS == 100
    scenario = simserve.load_scenario(small, settings=["workload.num_requests=300"])
    found = run_until_precise(scenario, 0.001)
    assert not found.reached and len(found.state.runs) == 8
    assert "not reached after 8 replications" in precision_words(found)


def test_an_overloaded_deployment_is_not_replicated_for_ever(small: Path) -> None:
    settings = [
        "max_num_seqs=1",
        "workload.arrivals.rate_per_s=200",
        "workload.num_requests=300",
    ]
    found = run_until_precise(simserve.load_scenario(small, settings=settings), 0.05)
    assert not found.reached and len(found.state.runs) == 5
    assert "do not make a steady state" in precision_words(found)


@pytest.mark.parametrize(
    "drawn",
    [
        "workload.cancellations={frac: 0.5, mean_after_s: 1}",
        "workload.prefix={count: 5, tokens: 32}",
        "workload.classes=[{name: a, weight: 1, priority: 1}, {name: b, weight: 1}]",
    ],
)
def test_whatever_is_drawn_at_random_is_chance(small: Path, drawn: str) -> None:
    plain = [
        "workload.arrivals={process: constant, rate_per_s: 5}",
        "workload.prompt_tokens=64",
        "workload.output_tokens=8",
    ]
    assert not is_random(simserve.load_scenario(small, settings=plain))
    assert is_random(simserve.load_scenario(small, settings=[*plain, drawn]))
