"""Warm-up is left out where there is one, and a busy spell is not taken for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.results.metrics import request_latencies
from simserve.results.warmup import mser5, steady_window, warmup_entries, whole_run
from tests.results.queues import Queue
from tests.results.reference_run import Options, random_requests, run_reference


def filling(requests: int, transient: int, seed: int) -> np.ndarray:
    """Return values around 10 that begin at 0 and rise for ``transient`` entries."""
    rise = np.minimum(np.arange(requests) / transient, 1.0)
    return 10 * rise + np.random.default_rng(seed).normal(size=requests)


@pytest.mark.parametrize("transient", [100, 300, 800])
def test_a_rise_from_empty_is_left_out(transient: int) -> None:
    for seed in range(10):
        cut, settled = warmup_entries(filling(3000, transient, seed))
        assert settled
        assert 0.6 * transient <= cut <= 1.5 * transient


def test_a_series_that_rises_to_its_end_is_not_settled() -> None:
    _, settled = warmup_entries(filling(3000, 3000, 1))
    assert not settled


def test_a_steady_series_keeps_nearly_everything() -> None:
    rng = np.random.default_rng(0)
    cuts = [warmup_entries(rng.normal(10, 1, 3000))[0] for _ in range(50)]
    assert np.mean(cuts) < 150


def test_a_busy_spell_at_the_start_is_no_warm_up_unless_all_ask_at_once() -> None:
    busy = filling(3000, 1, 0)
    busy[:200] += 30
    assert warmup_entries(busy) == (0, True)
    cut, settled = warmup_entries(busy, starts_empty=False)
    assert settled and 200 <= cut <= 300


def test_leaving_out_only_rises_does_not_make_a_queue_look_quieter() -> None:
    queue = Queue("M/M/1", 0.8)
    kept_by_mser, kept_here = [], []
    for seed in range(60):
        times = queue.sojourn_times(10_000, seed)
        kept_by_mser.append(times[mser5(times)[0] :].mean())
        kept_here.append(times[warmup_entries(times)[0] :].mean())
    assert abs(np.mean(kept_here) - queue.mean) < abs(np.mean(kept_by_mser) - queue.mean)


@given(
    scale=st.floats(0.01, 1000),
    shift=st.floats(-50, 50),
    seed=st.integers(0, 1000),
)
def test_the_cut_does_not_depend_on_the_unit(scale: float, shift: float, seed: int) -> None:
    series = filling(500, 60, seed)
    assert mser5(series * scale + shift) == mser5(series)


@pytest.mark.parametrize("entries", [0, 1, 4, 5, 9, 10])
def test_a_handful_of_entries_is_looked_at_without_complaint(entries: int) -> None:
    cut, _ = mser5(np.ones(entries))
    assert cut == 0


def test_the_drain_is_what_arrived_within_a_latency_of_the_end() -> None:
    record = run_reference(random_requests(200, 1, 50.0), Options(slots=8), 1).record
    latencies = request_latencies(record)
    window = steady_window(record, latencies)
    arrival_s = record.requests.arrival_ps / 1e12
    lasting_s = np.nanpercentile(latencies.e2el_s, 99)
    assert 0 < window.drain_requests < 100
    assert (arrival_s[window.stop :] > arrival_s[-1] - lasting_s).all()
    assert (arrival_s[: window.stop] <= arrival_s[-1] - lasting_s).all()
    assert window.mask().sum() == window.stop - window.first


def test_the_whole_run_leaves_nothing_out() -> None:
    record = run_reference(random_requests(20, 1, 50.0), Options(slots=8), 1).record
    window = whole_run(record)
    assert window.mask().all() and window.drain_requests == 0
