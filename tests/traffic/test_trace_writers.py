"""Traces written and read back, counted, and drawn anew: what goes in comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simserve.errors import InputError
from simserve.inputs.workload import read_workload
from simserve.records.requests import RequestTable, SegmentTable
from simserve.traffic.generate import generate
from simserve.traffic.segments import block_ids, infinite_cache_hit_frac, reusable_tokens
from simserve.traffic.trace_formats import Part, TraceFile, read_trace
from simserve.traffic.trace_stats import gap_cv, stats_text, trace_stats
from simserve.traffic.trace_synthesis import draw_like, fit_arrivals
from simserve.traffic.trace_writers import TARGETS, losses, target_of, write_trace

BASE: dict[str, Any] = {
    "arrivals": {"process": "gamma", "rate_per_s": 5.0, "burstiness": 0.3},
    "prompt_tokens": {"median": 50, "p95": 200},
    "output_tokens": {"median": 20, "p95": 100},
    "num_requests": 400,
}
SESSIONS = {"mean_turns": 3, "think_time_s": 9}
PLAIN = generate(read_workload(BASE), 3)
TALKS = generate(
    read_workload(
        {**BASE, "sessions": SESSIONS, "segments": [{"name": "s", "count": 2, "tokens": 90}],
         "classes": [{"name": "a", "weight": 1, "priority": 3}, {"name": "b", "weight": 1}]}
    ),
    3,
)  # fmt: skip


def relative(table: RequestTable) -> list[int]:
    return [int(ps) for ps in table.arrival_ps - table.arrival_ps[0]]


def same(one: RequestTable, other: RequestTable) -> None:
    assert relative(one) == relative(other)
    for name in ("prompt_tokens", "output_tokens", "priority", "output_segment"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (one.segments is None) == (other.segments is None)
    if one.segments is not None and other.segments is not None:
        for name in ("offsets", "segment", "tokens"):
            np.testing.assert_array_equal(
                getattr(one.segments, name), getattr(other.segments, name)
            )


def round_trip(tmp_path: Path, table: RequestTable, target: str, **options: Any) -> TraceFile:
    path = tmp_path / f"trace.{target}"
    write_trace(path, table, target, **options)
    return read_trace(path)


@pytest.mark.parametrize("target", ["csv", "parquet"])
@pytest.mark.parametrize("table", [PLAIN, TALKS], ids=["plain", "talks"])
def test_tables_keep_everything(tmp_path: Path, table: RequestTable, target: str) -> None:
    assert losses(table, target) == []
    same(round_trip(tmp_path, table, target).requests, table)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("target", ["timed-trace", "mooncake", "azure", "csv"])
def test_times_and_lengths_survive_every_form(tmp_path: Path, target: str, packed: bool) -> None:
    trace = round_trip(tmp_path, PLAIN, target, packed=packed)
    assert trace.format == {"csv": "table"}.get(target, target)
    assert trace.requests.prompt_tokens.tolist() == PLAIN.prompt_tokens.tolist()
    assert trace.requests.output_tokens.tolist() == PLAIN.output_tokens.tolist()
    # Azure's times have seven decimals of a second; the others are exact.
    tolerance_ps = 100_000 if target == "azure" else 0
    np.testing.assert_allclose(relative(trace.requests), relative(PLAIN), rtol=0, atol=tolerance_ps)


@pytest.mark.parametrize(("target", "block_tokens"), [("timed-trace", 16), ("mooncake", 512)])
def test_blocks_of_a_trace_keep_their_ids(tmp_path: Path, target: str, block_tokens: int) -> None:
    counts = np.array([3, 2, 4])
    ids = np.array([0, 1, 7, 0, 1, 0, 1, 8, 9])
    offsets = np.concatenate(([0], np.cumsum(counts)))
    tokens = np.full(9, block_tokens)
    tokens[offsets[1:] - 1] = 5
    prompts = np.add.reduceat(tokens, offsets[:-1])
    table = RequestTable(
        arrival_ps=np.array([0, 1_000_000_000, 2_500_000_000]),
        prompt_tokens=prompts,
        output_tokens=np.array([1, 2, 3]),
        segments=SegmentTable(offsets=offsets, segment=ids, tokens=tokens),
    )
    same(round_trip(tmp_path, table, target).requests, table)


def test_blocks_of_16_keep_what_an_engine_could_reuse_of_the_prompts(tmp_path: Path) -> None:
    prompts_only = RequestTable(
        arrival_ps=TALKS.arrival_ps,
        prompt_tokens=TALKS.prompt_tokens,
        output_tokens=TALKS.output_tokens,
        segments=TALKS.segments,
    )
    back = round_trip(tmp_path, TALKS, "timed-trace").requests
    np.testing.assert_array_equal(reusable_tokens(back, 16), reusable_tokens(prompts_only, 16))
    assert "that prompts repeat generated tokens" in losses(TALKS, "timed-trace")


entries = st.tuples(st.integers(0, 2), st.integers(1, 6))


@settings(max_examples=200)
@given(
    st.lists(st.lists(entries, min_size=1, max_size=4), min_size=1, max_size=6),
    st.integers(1, 5),
)
def test_block_ids_agree_exactly_as_far_as_the_tokens_do(
    prompts: list[list[tuple[int, int]]], block_tokens: int
) -> None:
    tokens = [[(s, k) for s, n in prompt for k in range(n)] for prompt in prompts]
    flat = [entry for prompt in prompts for entry in prompt]
    table = RequestTable(
        arrival_ps=np.zeros(len(prompts), dtype=np.int64),
        prompt_tokens=np.array([len(one) for one in tokens]),
        output_tokens=np.ones(len(prompts), dtype=np.int64),
        segments=SegmentTable(
            offsets=np.cumsum([0, *map(len, prompts)]),
            segment=np.array([s for s, _ in flat]),
            tokens=np.array([n for _, n in flat]),
        ),
    )
    counts, ids = block_ids(table, block_tokens)
    if table.segments is not None and np.array_equal(ids, table.segments.segment):
        return  # blocks already: ids are those of the file, not of what stands before
    by_prefix: dict[tuple[tuple[int, int], ...], int] = {}
    at = 0
    for one, count in zip(tokens, counts.tolist(), strict=True):
        for block in range(count):
            prefix = tuple(one[: (block + 1) * block_tokens])
            assert by_prefix.setdefault(prefix, int(ids[at])) == ids[at]
            at += 1
    assert len(set(by_prefix.values())) == len(by_prefix)


def test_same_requests_give_the_same_bytes(tmp_path: Path) -> None:
    for target in TARGETS:
        paths = [tmp_path / f"{k}.{target}" for k in range(2)]
        for path in paths:
            write_trace(path, TALKS, target, packed=True)
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_unknown_form_suggests_the_nearest() -> None:
    assert target_of("timed_trace", "--to") == "timed-trace"
    with pytest.raises(InputError, match="did you mean parquet"):
        target_of("parket", "--to")


# --- counting ---


def test_statistics_are_those_of_the_columns() -> None:
    stats = trace_stats(TraceFile(requests=TALKS, format="table"))
    gaps = np.diff(TALKS.arrival_ps)
    assert stats.requests == 400
    assert stats.gap_cv == pytest.approx(gaps.std() / gaps.mean())
    assert stats.prompt_tokens.p99 == pytest.approx(np.percentile(TALKS.prompt_tokens, 99))
    assert stats.prefix is not None
    assert stats.prefix.seen_blocks_frac == infinite_cache_hit_frac(TALKS, 16)
    share = reusable_tokens(TALKS, 16).sum() / TALKS.prompt_tokens.sum()
    assert stats.prefix.reusable_tokens_frac == share
    assert max(map(len, stats_text(stats).splitlines())) <= 80


def test_statistics_of_a_single_request_and_of_lengths_have_no_rate() -> None:
    one = RequestTable(
        arrival_ps=np.zeros(1, dtype=np.int64),
        prompt_tokens=np.array([5]),
        output_tokens=np.array([6]),
    )
    stats = trace_stats(TraceFile(requests=one, format="azure"))
    assert (stats.rate_per_s, stats.gap_cv, stats.prefix) == (None, None, None)
    assert "all at once" in stats_text(stats)
    assert "lengths only" in stats_text(
        trace_stats(TraceFile(requests=one, format="lengths", timed=False))
    )


# --- drawing anew ---


def test_drawn_requests_have_the_rate_and_burstiness_of_the_trace() -> None:
    drawn = draw_like(PLAIN, 50_000, 1, "x")
    cv = gap_cv(PLAIN) or 0
    mean_s = np.diff(PLAIN.arrival_ps).mean()
    assert np.diff(drawn.arrival_ps).mean() == pytest.approx(mean_s, rel=5 * cv / 50_000**0.5)
    # The standard error of a CV of 1.9 from 50,000 gamma gaps is about 1 %.
    assert gap_cv(drawn) == pytest.approx(cv, rel=0.05)
    assert fit_arrivals(PLAIN, "x").burstiness == pytest.approx(cv**-2)


def test_lengths_are_drawn_together_from_the_rows() -> None:
    drawn = draw_like(PLAIN, 5000, 1, "x")
    rows = set(zip(PLAIN.prompt_tokens.tolist(), PLAIN.output_tokens.tolist(), strict=True))
    assert set(zip(drawn.prompt_tokens.tolist(), drawn.output_tokens.tolist(), strict=True)) <= rows
    sd = PLAIN.prompt_tokens.std() / 5000**0.5
    assert drawn.prompt_tokens.mean() == pytest.approx(PLAIN.prompt_tokens.mean(), abs=5 * sd)


def test_longer_draw_begins_with_the_shorter_and_seeds_differ() -> None:
    short, long, other = (draw_like(PLAIN, n, s, "x") for n, s in ((50, 1), (500, 1), (50, 2)))
    for name in ("arrival_ps", "prompt_tokens", "output_tokens"):
        np.testing.assert_array_equal(getattr(short, name), getattr(long, name)[:50])
        assert (getattr(short, name) != getattr(other, name)).any()


def test_trace_without_gaps_cannot_be_drawn_from(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("prompt_tokens,output_tokens\n5,6\n7,8\n")
    lengths = read_trace(path, part=Part(head=2)).requests
    with pytest.raises(InputError, match="requests without gaps in time"):
        draw_like(lengths, 10, 1, "x")


@settings(max_examples=60,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    gaps_ps=st.lists(st.integers(0, 10**15), min_size=1, max_size=6),
    target=st.sampled_from(["csv", "parquet", "timed-trace", "mooncake"]),
)
def test_times_below_two_hours_are_exact_to_the_picosecond(
    tmp_path: Path, gaps_ps: list[int], target: str
) -> None:
    times = np.cumsum([0, *gaps_ps])
    table = RequestTable(
        arrival_ps=times,
        prompt_tokens=np.full(len(times), 600),
        output_tokens=np.full(len(times), 2),
    )
    path = tmp_path / "t"
    write_trace(path, table, target)
    back = read_trace(path, None if target in ("csv", "parquet") else target)
    assert back.requests.arrival_ps.tolist() == times.tolist()
