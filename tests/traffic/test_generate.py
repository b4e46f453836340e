"""From a workload to requests: independent streams, shared prefixes, traces, same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simserve.errors import InputError
from simserve.inputs.workload import WorkloadSpec, read_workload
from simserve.records.requests import RequestTable
from simserve.traffic.generate import generate
from simserve.traffic.segments import infinite_cache_hit_frac, shared_prefix_tokens
from simserve.traffic.streams import random_stream

CHAT: dict[str, Any] = {
    "arrivals": {"process": "poisson", "rate_per_s": 5.0},
    "prompt_tokens": {"median": 500, "p95": 2000},
    "output_tokens": {"median": 100, "p95": 400},
    "num_requests": 2000,
}
PREFIX = {"count": 20, "tokens": 256}


def workload(**changes: Any) -> WorkloadSpec:
    return read_workload({**CHAT, **changes})


def columns(table: RequestTable) -> dict[str, list[int]]:
    found = {
        "arrival_ps": table.arrival_ps.tolist(),
        "prompt_tokens": table.prompt_tokens.tolist(),
        "output_tokens": table.output_tokens.tolist(),
    }
    if table.segments is not None:
        found["segment"] = table.segments.segment.tolist()
    return found


def test_same_seed_gives_the_same_requests() -> None:
    one, other = (generate(workload(prefix=PREFIX), 7) for _ in range(2))
    assert columns(one) == columns(other)


def test_another_seed_gives_other_requests_in_every_column() -> None:
    one, other = (columns(generate(workload(prefix=PREFIX), seed)) for seed in (7, 8))
    assert all(one[name] != other[name] for name in one)


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"arrivals": {"process": "poisson", "rate_per_s": 9.0}}, {"arrival_ps"}),
        ({"prompt_tokens": 512}, {"prompt_tokens"}),
        ({"output_tokens": {"median": 10, "p95": 40}}, {"output_tokens"}),
        ({"prefix": {"count": 3, "tokens": 256}}, {"segment"}),
    ],
)
def test_changing_one_part_moves_no_other(change: dict[str, Any], moved: set[str]) -> None:
    base = columns(generate(workload(prefix=PREFIX), 7))
    changed = columns(generate(workload(**{"prefix": PREFIX, **change}), 7))
    assert {name for name in base if base[name] != changed[name]} == moved


def test_adding_prefixes_only_lengthens_the_prompts() -> None:
    plain, shared = generate(workload(), 7), generate(workload(prefix=PREFIX), 7)
    np.testing.assert_array_equal(shared.arrival_ps, plain.arrival_ps)
    np.testing.assert_array_equal(shared.output_tokens, plain.output_tokens)
    np.testing.assert_array_equal(shared.prompt_tokens, plain.prompt_tokens + 256)


def test_columns_are_independent_of_each_other() -> None:
    table = generate(workload(num_requests=20_000), 7)
    gaps_ps = np.diff(table.arrival_ps, prepend=0)
    ranks = [np.argsort(np.argsort(c)) for c in (gaps_ps, table.prompt_tokens, table.output_tokens)]
    correlation = np.corrcoef(ranks) - np.eye(3)
    assert np.abs(correlation).max() < 5 / 20_000**0.5  # five standard errors


def test_every_prompt_is_one_shared_prefix_and_a_tail_of_its_own() -> None:
    table = generate(workload(prefix=PREFIX), 7)
    assert table.segments is not None
    heads, tails = table.segments.segment[0::2], table.segments.segment[1::2]
    assert set(heads.tolist()) == set(range(20))
    assert tails.tolist() == [20 + i for i in range(2000)]
    assert set(table.segments.tokens[0::2].tolist()) == {256}
    np.testing.assert_array_equal(256 + table.segments.tokens[1::2], table.prompt_tokens)
    # Uniform: 19 degrees of freedom; the 99.99 % quantile of chi-square is 51.
    counts = np.bincount(heads, minlength=20)
    assert ((counts - 100.0) ** 2 / 100.0).sum() < 51


def test_first_use_of_a_prefix_is_the_only_one_that_misses_it() -> None:
    table = generate(workload(prefix=PREFIX), 7)
    assert sorted(shared_prefix_tokens(table).tolist()) == [0] * 20 + [256] * 1980
    assert infinite_cache_hit_frac(table, 256) == 1980 / (-(-table.prompt_tokens // 256)).sum()


def test_duration_gives_the_requests_that_arrive_in_it() -> None:
    long = generate(workload(), 7)
    spec = {key: value for key, value in CHAT.items() if key != "num_requests"}
    short = generate(read_workload({**spec, "duration_s": 60}), 7)
    assert 200 < len(short) < 400  # 300 expected, standard deviation 17
    for name, values in columns(short).items():
        assert values == columns(long)[name][: len(short)]


def test_trace_is_read_as_it_stands_whatever_the_seed(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"timestamp": 3, "input_length": 9, "output_length": 2}\n' * 3)
    spec = read_workload({"trace": {"file": str(path), "head": 2}})
    assert columns(generate(spec, 1)) == columns(generate(spec, 2))
    assert generate(spec, 1).prompt_tokens.tolist() == [9, 9]


@pytest.mark.parametrize(
    ("change", "which"),
    [
        ({"prefix": {"count": 10**12, "tokens": 5}}, "prefix.count"),
        ({"prefix": {"count": 5, "tokens": 10**12}}, "prefix.tokens"),
        (
            {"prefix": {"count": 5, "tokens": 2 * 10**9}, "prompt_tokens": 2 * 10**9},
            "prefix.tokens and prompt_tokens",
        ),
        ({"num_requests": 10**30}, "num_requests"),
    ],
)
def test_number_beyond_any_array_is_refused(change: dict[str, Any], which: str) -> None:
    with pytest.raises(InputError, match=f"workload: {which}: got"):
        generate(workload(**change), 7)


def test_negative_seed_is_refused() -> None:
    with pytest.raises(InputError, match="seed: got -1"):
        generate(workload(), -1)


def test_streams_of_one_seed_differ_by_name() -> None:
    one, other = (random_stream(7, name).random(4).tolist() for name in ("a", "b"))
    assert one != other
    assert one == random_stream(7, "a").random(4).tolist()
