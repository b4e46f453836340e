"""Shared texts, conversations and classes: what prompts have in common, and what stays apart."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from simserve.inputs.workload import WorkloadSpec, read_workload
from simserve.records.clock import PS_PER_S
from simserve.records.requests import IntArray, RequestTable
from simserve.traffic.generate import generate
from simserve.traffic.segments import shared_prefix_tokens

BASE: dict[str, Any] = {
    "arrivals": {"process": "poisson", "rate_per_s": 5.0},
    "prompt_tokens": {"median": 50, "p95": 200},
    "output_tokens": {"median": 20, "p95": 100},
    "num_requests": 1500,
}
SYSTEM = {"name": "system", "count": 3, "tokens": 100}
CHUNKS = {"name": "chunks", "count": 200, "tokens": {"median": 60, "p95": 90}, "per_request": 4}
SESSIONS = {"mean_turns": 4, "think_time_s": 20, "think_time_p95_s": 60}


def workload(**changes: Any) -> WorkloadSpec:
    return read_workload({**BASE, **changes})


def lists(table: RequestTable) -> list[list[tuple[int, int]]]:
    """Return every prompt as (segment, tokens) entries."""
    assert table.segments is not None
    pairs = list(zip(table.segments.segment.tolist(), table.segments.tokens.tolist(), strict=True))
    return [pairs[a:b] for a, b in pairwise(table.segments.offsets.tolist())]


def columns(table: RequestTable) -> dict[str, Any]:
    names = ("arrival_ps", "prompt_tokens", "output_tokens", "priority", "output_segment")
    found = {name: getattr(table, name) for name in names}
    return {name: None if one is None else one.tolist() for name, one in found.items()}


@pytest.mark.parametrize("parts", [{}, {"sessions": SESSIONS}])
def test_segments_cover_every_prompt_exactly(parts: dict[str, Any]) -> None:
    table = generate(workload(segments=[SYSTEM, CHUNKS], **parts), 7)
    assert [sum(t for _, t in one) for one in lists(table)] == table.prompt_tokens.tolist()
    assert table.prompt_tokens.min() > 100


def test_a_text_has_one_length_and_groups_keep_their_order() -> None:
    table = generate(workload(segments=[SYSTEM, CHUNKS]), 7)
    length: dict[int, int] = {}
    for prompt in lists(table):
        texts, own = prompt[:-1], prompt[-1]
        assert [segment < 3 for segment, _ in texts] == [True, False, False, False, False]
        assert len({segment for segment, _ in texts}) == 5  # four different chunks
        assert own[0] >= 203
        for segment, tokens in texts:
            assert length.setdefault(segment, tokens) == tokens


def test_zipf_popularity_is_that_of_the_law() -> None:
    group = {"name": "docs", "count": 50, "tokens": 10, "zipf": 1.0}
    table = generate(workload(segments=[group], num_requests=20_000), 7)
    counts = np.bincount([prompt[0][0] for prompt in lists(table)], minlength=50)
    expected = 1 / np.arange(1, 51) / (1 / np.arange(1, 51)).sum() * 20_000
    # Chi-square with 49 degrees of freedom: its 99.99 % quantile is 94.
    assert ((counts - expected) ** 2 / expected).sum() < 94


@pytest.mark.parametrize("count", [30, 2000])  # by random keys, and by drawing again
def test_several_texts_differ_and_the_first_follows_the_popularity(count: int) -> None:
    group = {"name": "docs", "count": count, "tokens": 1, "zipf": 1.5, "per_request": 3}
    table = generate(workload(segments=[group], num_requests=4000), 7)
    drawn = np.array([[segment for segment, _ in one[:3]] for one in lists(table)])
    assert (np.diff(np.sort(drawn, axis=1), axis=1) > 0).all()
    top = 1 / (np.arange(1, count + 1) ** -1.5).sum()
    # A share of 4000 draws: five standard errors.
    assert (drawn[:, 0] == 0).mean() == pytest.approx(top, abs=5 * (top / 4000) ** 0.5)


def test_share_of_requests_without_a_group_is_as_asked() -> None:
    table = generate(workload(segments=[{**SYSTEM, "share_frac": 0.3}]), 7)
    have = np.mean([len(prompt) == 2 for prompt in lists(table)])
    assert have == pytest.approx(0.3, abs=5 * (0.21 / 1500) ** 0.5)


def test_adding_a_group_leaves_the_others_draws_alone() -> None:
    one = generate(workload(segments=[CHUNKS]), 7)
    both = generate(workload(segments=[SYSTEM, CHUNKS]), 7)
    chunks = [[(s - 3, t) for s, t in prompt[1:5]] for prompt in lists(both)]
    assert chunks == [prompt[:4] for prompt in lists(one)]
    assert both.output_tokens.tolist() == one.output_tokens.tolist()
    assert both.arrival_ps.tolist() == one.arrival_ps.tolist()


def sessions_of(table: RequestTable) -> dict[int, list[int]]:
    """Return the requests of every session: they begin with the same first words."""
    heads: dict[int, list[int]] = {}
    for request, prompt in enumerate(lists(table)):
        heads.setdefault(prompt[0][0], []).append(request)
    return heads


def test_later_prompt_is_the_earlier_one_its_answer_and_something_new() -> None:
    table = generate(workload(sessions=SESSIONS), 7)
    assert table.output_segment is not None
    prompts = lists(table)
    for requests in sessions_of(table).values():
        for before, after in pairwise(requests):
            answer = (int(table.output_segment[before]), int(table.output_tokens[before]))
            assert prompts[after][:-1] == [*prompts[before], answer]


def test_endless_cache_finds_all_that_was_said_before() -> None:
    table = generate(workload(sessions=SESSIONS), 7)
    shared = shared_prefix_tokens(table)
    new = np.array([prompt[-1][1] for prompt in lists(table)])
    later = np.array([len(prompt) > 1 for prompt in lists(table)])
    np.testing.assert_array_equal(shared, np.where(later, table.prompt_tokens - new, 0))


def test_turns_follow_the_arrival_before_by_a_think_time() -> None:
    table = generate(workload(sessions={"turns": 3, "think_time_s": 20}, num_requests=900), 7)
    for requests in sessions_of(table).values():
        gaps = np.diff(table.arrival_ps[requests])
        assert gaps.tolist() == [20 * PS_PER_S] * len(gaps)
        assert len(requests) <= 3


def test_think_times_have_the_asked_median() -> None:
    slow = {"process": "poisson", "rate_per_s": 0.1}
    spec = workload(arrivals=slow, sessions=SESSIONS, num_requests=None, duration_s=20_000)
    table = generate(spec, 7)
    gaps = np.concatenate(
        [np.diff(table.arrival_ps[requests]) for requests in sessions_of(table).values()]
    )
    # 6000 lognormal gaps: the standard error of the median is 1.1 %.
    assert np.median(gaps) / PS_PER_S == pytest.approx(20, rel=0.05)


def test_requests_of_sessions_are_in_order_and_as_many_as_asked() -> None:
    table = generate(workload(sessions=SESSIONS), 7)
    assert len(table) == 1500
    assert np.diff(table.arrival_ps).min() >= 0
    longer = generate(workload(sessions=SESSIONS, num_requests=3000), 7)
    for name in ("arrival_ps", "prompt_tokens", "output_tokens"):
        np.testing.assert_array_equal(getattr(table, name), getattr(longer, name)[:1500])


def test_sessions_within_a_duration_end_with_it() -> None:
    spec = workload(sessions=SESSIONS, num_requests=None, duration_s=100)
    table = generate(spec, 7)
    long = generate(workload(sessions=SESSIONS), 7)
    assert table.arrival_ps[-1] <= 100 * PS_PER_S
    assert table.prompt_tokens.tolist() == long.prompt_tokens[: len(table)].tolist()


def test_mean_number_of_turns_is_as_asked() -> None:
    starts = {"process": "all-at-once"}
    spec = workload(sessions=SESSIONS, arrivals=starts, num_requests=4000)
    table = generate(spec, 7)
    # All 4000 sessions start first, so these requests are their first turns.
    assert len(sessions_of(table)) == 4000
    spec = workload(sessions=SESSIONS, num_requests=None, duration_s=2000)
    counts = [len(requests) for requests in sessions_of(generate(spec, 7)).values()]
    # Geometric with mean 4: standard deviation 3.5, about 10,000 sessions, a few cut short.
    assert np.mean(counts) == pytest.approx(4, rel=0.06)


def test_sessions_end_before_the_context_is_too_long() -> None:
    spec = workload(sessions={**SESSIONS, "max_context_tokens": 400})
    table = generate(spec, 7)
    later = np.array([len(prompt) > 1 for prompt in lists(table)])
    assert (table.prompt_tokens + table.output_tokens)[later].max() <= 400
    assert later.any()


def test_classes_have_their_shares_lengths_and_priorities() -> None:
    classes = [
        {"name": "chat", "weight": 3, "priority": 0},
        {"name": "batch", "weight": 1, "priority": 5, "prompt_tokens": 4000},
    ]
    table = generate(workload(classes=classes, num_requests=8000), 7)
    assert table.priority is not None
    batch = table.priority == 5
    assert batch.mean() == pytest.approx(0.25, abs=5 * (0.1875 / 8000) ** 0.5)
    assert set(table.prompt_tokens[batch].tolist()) == {4000}
    plain = generate(workload(num_requests=8000), 7)
    np.testing.assert_array_equal(table.prompt_tokens[~batch], plain.prompt_tokens[~batch])
    np.testing.assert_array_equal(table.output_tokens, plain.output_tokens)


def test_turns_of_a_session_are_of_one_class() -> None:
    classes = [{"name": f"c{k}", "weight": 1, "priority": k} for k in range(3)]
    table = generate(workload(classes=classes, sessions=SESSIONS), 7)
    assert table.priority is not None
    priority: IntArray = table.priority
    sessions = sessions_of(table).values()
    assert all(len(set(priority[requests].tolist())) == 1 for requests in sessions)
    assert set(priority.tolist()) == {0, 1, 2}


def test_histogram_lengths_have_the_shares_of_their_buckets() -> None:
    histogram = {"above": 9, "upto": [10, 100, 1000], "weights": [1, 0, 3]}
    table = generate(workload(prompt_tokens={"histogram": histogram}, num_requests=40_000), 7)
    lengths = table.prompt_tokens
    assert (lengths == 10).mean() == pytest.approx(0.25, abs=5 * (0.1875 / 40_000) ** 0.5)
    long = lengths[lengths != 10]
    assert (long.min(), long.max()) == (101, 1000)
    # Uniform over 900 lengths: mean 550.5, standard deviation 260.
    assert long.mean() == pytest.approx(550.5, abs=5 * 260 / 30_000**0.5)


def test_same_seed_gives_the_same_conversations_and_another_others() -> None:
    spec = workload(sessions=SESSIONS, segments=[SYSTEM, CHUNKS])
    one, same, other = (columns(generate(spec, seed)) for seed in (7, 7, 8))
    assert one == same
    assert one != other
