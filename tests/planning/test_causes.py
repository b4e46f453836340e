"""A slow tail whose cause was planted: the explanation names that cause, and no other, first."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from simserve.inputs.scenario import scenario_from_dict
from simserve.planning.explanation import Explanation, explain
from simserve.planning.what_if import Question
from simserve.report.plain_words import in_plain_words

Row = tuple[float, int, int]  # arrival in s, prompt tokens, output tokens


def even(rate_per_s: float, count: int, prompt: int = 500, output: int = 60) -> Iterator[Row]:
    for at in range(count):
        yield at / rate_per_s, prompt, output


def with_a_burst() -> list[Row]:
    crowd = [(20 + at / 40, 1500, 60) for at in range(80)]
    return sorted([*even(4, 200), *crowd])


def with_long_prompts() -> list[Row]:
    # Fewer than one in twenty, far enough apart that none waits for another.
    return [(t, 60_000 if at % 60 == 30 else p, out) for at, (t, p, out) in enumerate(even(4, 300))]


def long_and_short_in_turn() -> list[Row]:
    # Of two replicas in turn one gets all that is long, and cannot keep up.
    return [(t, 6000 if at % 2 else 100, 20) for at, (t, _, _) in enumerate(even(16, 300))]


def long_answers() -> list[Row]:
    return list(even(8, 200, prompt=300, output=400))


def medium_prompts() -> list[Row]:
    return list(even(1, 60, prompt=4000, output=40))


PLANTED: list[tuple[str, Callable[[], list[Row]], dict[str, Any], str, str | None]] = [
    ("too few slots", long_answers, {"max_num_seqs": 8}, "no slot limit", "slot_queue"),
    (
        "too little KV",
        long_answers,
        {"num_gpu_blocks": 400, "max_model_len": 2000},
        "infinite KV",
        "kv_queue",
    ),
    (
        "too small a budget",
        medium_prompts,
        {"max_num_batched_tokens": 64, "max_num_seqs": 64},
        "no token budget",
        "own_prefill",
    ),
    ("a burst", with_a_burst, {}, "even arrivals", "others_prefill"),
    ("long prompts", with_long_prompts, {}, "no long prompts", "own_prefill"),
    ("a router", long_and_short_in_turn, {"replicas": 2}, "least-loaded router", "others_prefill"),
]


def explained(rows: list[Row], deployment: dict[str, Any], folder: Path) -> Explanation:
    path = folder / "planted.jsonl"
    lines = [
        json.dumps({"timestamp": t, "input_length": p, "output_length": out}) for t, p, out in rows
    ]
    path.write_text("\n".join(lines) + "\n")
    scenario = scenario_from_dict(
        {
            "workload": {"trace": {"file": str(path)}},
            "deployment": {"model": "llama-3.1-8b", "gpu": "h100-sxm", **deployment},
        }
    )
    return explain(scenario, Question(metric="ttft", percentile=99))


@pytest.mark.parametrize(
    ("make", "deployment", "cause", "part"),
    [row[1:] for row in PLANTED],
    ids=[row[0].replace(" ", "-") for row in PLANTED],
)
def test_the_planted_cause_is_named_first(
    make: Callable[[], list[Row]],
    deployment: dict[str, Any],
    cause: str,
    part: str,
    tmp_path: Path,
) -> None:
    said = explained(make(), deployment, tmp_path)
    assert said.asked_band.ranked[0] == part
    assert f"its causes taken away one at a time: with {cause} it would be " in in_plain_words(said)


def test_where_the_load_is_too_much_no_cause_ends_the_overload(tmp_path: Path) -> None:
    rows = list(even(60, 1200, prompt=1500, output=250))
    said = explained(rows, {"max_num_seqs": 64}, tmp_path)
    assert not said.result.verdict.operating_point
    assert said.asked_band.ranked[0] == "slot_queue"  # it waits for a slot, which is no cause
    words = in_plain_words(said)
    assert "None of the changes tried ends that: the load is too much as it is." in words
    assert "less; overloaded in 1 run)" in words


def test_a_run_that_is_too_short_to_show_the_overload_does_not_show_its_end(tmp_path: Path) -> None:
    rows = list(even(60, 600, prompt=700, output=250))  # twice of what it carries, for 10 s
    said = explained(rows, {"max_num_seqs": 32}, tmp_path)
    (slots,) = (one for one in said.counterfactuals if one.name == "no slot limit")
    assert (slots.overloaded_in, slots.stable_in) == (0, 0)
    assert "too short to tell if overloaded still" in slots.notes
    words = in_plain_words(said)
    assert "too short to tell whether that ends with no slot limit" in words
    assert "What ends that by itself" not in words


def test_who_is_slow_tells_a_burst_from_long_prompts_and_from_a_crowded_replica(
    tmp_path: Path,
) -> None:
    burst = explained(with_a_burst(), {}, tmp_path)
    seen = {one.name: one for one in burst.traits}
    assert seen["requests/s just before them"].these > 5 * seen["requests/s just before them"].all
    assert "just before them requests came at " in in_plain_words(burst)
    long = explained(with_long_prompts(), {}, tmp_path)
    assert "their prompts are " in in_plain_words(long)
    assert "just before them requests came" not in in_plain_words(long)
    crowded = explained(long_and_short_in_turn(), {"replicas": 2}, tmp_path)
    (where,) = (one for one in crowded.traits if one.replica is not None)
    assert (where.replica, where.these, where.all) == (1, 1.0, 0.5)
    assert "100% of them were on replica 1, which has 50% of all" in in_plain_words(crowded)
