"""One scenario from files to result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

import simserve
from simserve.planning.run_scenario import run
from simserve.records.run_record import FINISHED


def test_path_mapping_and_scenario_give_the_same_run(small: Path) -> None:
    mapping = yaml.safe_load(small.read_text())
    runs = [run(small), run(str(small)), run(mapping), run(simserve.load_scenario(small))]
    finishes = [one.record.outcomes.finish_ps for one in runs]
    assert all(np.array_equal(finishes[0], other) for other in finishes[1:])


def test_every_request_is_accounted_for_and_the_laws_hold(small: Path) -> None:
    result = run(small, check=True)
    assert len(result.record.requests) == 40
    assert (result.record.outcomes.status == FINISHED).all()


def test_checking_changes_no_time(small: Path) -> None:
    plain, checked = run(small), run(small, check=True)
    assert np.array_equal(plain.record.outcomes.finish_ps, checked.record.outcomes.finish_ps)
    assert plain.bench_dict() == checked.bench_dict()


def test_progress_ends_with_all_requests(small: Path) -> None:
    news: list[tuple[int, int]] = []
    run(small, on_progress=lambda done, everything: news.append((done, everything)))
    assert news[-1] == (40, 40)
    assert news == sorted(news)


def test_seed_decides_the_requests(small: Path) -> None:
    first, second = (run(simserve.load_scenario(small, seed=seed)) for seed in (1, 2))
    assert not np.array_equal(first.record.requests.arrival_ps, second.record.requests.arrival_ps)


def test_prefix_cache_never_beats_an_endless_one(small: Path) -> None:
    settings = ["workload.prefix={count: 3, tokens: 150}"]
    result = run(simserve.load_scenario(small, settings=settings))
    hits, bound = result.prefix_use.token_hit_frac, result.prefix_bound_frac
    assert hits is not None and bound is not None
    assert 0 < hits <= bound < 1


def test_model_that_does_not_fit_is_an_error_of_its_own(small: Path) -> None:
    with pytest.raises(simserve.DoesNotFitError):
        run(simserve.load_scenario(small, model="llama-3.1-70b"))
