"""Timing diagrams: nobody shares a slot, and everybody is in one."""

from __future__ import annotations

from itertools import pairwise

import pytest

from simserve.errors import InputError
from simserve.inputs.scenario import load_scenario
from simserve.planning.run_scenario import run
from simserve.report.charts.slots import rows_by_request, rows_by_slot, utilisation_frac
from simserve.report.gantt import MOST_REQUESTS, gantt_page, lives_of
from simserve.results.phases import QUEUE, Phase
from simserve.results.result import Result
from tests.report.pages import read
from tests.results.reference_run import Options
from tests.results.scenarios import result as made_up

SLOTS = 4
WHOLE = ["async_scheduling=false", "max_model_len=4096", "max_num_batched_tokens=4096"]


def _run(scheduler: str) -> Result:
    settings = [f"scheduler={scheduler}", f"max_num_seqs={SLOTS}", "workload.num_requests=40"]
    return run(load_scenario(settings=[*settings, *WHOLE, "rate_per_s=50"]))


@pytest.fixture(scope="module")
def runs() -> dict[str, Result]:
    return {name: _run(name) for name in ("static", "continuous", "chunked-prefill")}


def test_no_two_requests_share_a_slot_and_each_has_one(runs: dict[str, Result]) -> None:
    for result in runs.values():
        lives = lives_of(result, 0)
        rows = rows_by_slot(lives)
        assert len(rows) <= SLOTS
        shown = []
        for row in rows:
            for (_, one), (_, other) in pairwise(row.phases):
                assert one.end_ps <= other.start_ps
            shown += [(name, phase) for name, phase in row.phases]
        everything = [(n, p) for n, phases in lives.items() for p in phases if p.name != QUEUE]
        assert sorted(shown) == sorted(everything)


def test_static_batching_leaves_more_of_its_slots_empty(runs: dict[str, Result]) -> None:
    used = {
        name: utilisation_frac(rows_by_slot(lives_of(result, 0)), SLOTS)
        for name, result in runs.items()
    }
    assert all(value is not None and 0 < value <= 1 for value in used.values())
    assert used["static"] < used["continuous"]  # type: ignore[operator]


def test_utilisation_is_the_share_of_computed_time() -> None:
    lives = {
        "a": [Phase("queue", 0, 5), Phase("prefill", 5, 10), Phase("decode", 10, 20)],
        "b": [Phase("prefill", 5, 10), Phase("preempted", 10, 15), Phase("decode", 15, 20)],
    }
    assert utilisation_frac(rows_by_slot(lives)) == pytest.approx(25 / 30)
    assert utilisation_frac(rows_by_slot(lives), 4) == pytest.approx(25 / 60)
    assert utilisation_frac([]) is None
    assert [row.name for row in rows_by_request(lives)] == ["a", "b"]


def test_every_bar_says_what_it_is(runs: dict[str, Result]) -> None:
    result = runs["continuous"]
    page = read(gantt_page(result).markup())
    assert page.problems == []
    assert not page.of("script")
    lives = lives_of(result, 0)
    bars = sum(len(phases) + sum(p.name != QUEUE for p in phases) for phases in lives.values())
    assert len(page.texts["title"]) == bars + 1  # and the title of the page
    first, phases = next(iter(lives.items()))
    lasting_ms = (phases[-1].end_ps - phases[-1].start_ps) / 1e9
    assert any(
        text.startswith(f"{first}: {phases[-1].name} {lasting_ms:,.1f} ms")
        for text in page.texts["title"]
    )


def test_a_large_run_is_refused_with_its_size() -> None:
    large = made_up(None, Options(slots=8), requests=MOST_REQUESTS + 1, gap_ms=100)
    with pytest.raises(InputError, match=r"--gantt: got 201 requests, allowed: .*--timeline"):
        gantt_page(large)
