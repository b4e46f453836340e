"""A saved /metrics page becomes a workload with the rate, lengths and hit rate of the service."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simserve.errors import InputError
from simserve.inputs.workload import read_workload
from simserve.inputs.yaml_reader import parse_yaml
from simserve.records.requests import IntArray, RequestTable
from simserve.traffic.generate import generate
from simserve.traffic.prometheus_import import read_service_load, workload_text
from simserve.traffic.segments import shared_prefix_tokens

# The 1-2-5 buckets of vLLM's request_prompt_tokens (vllm/v1/metrics/loggers.py).
EDGES = [m * 10**e for e in range(5) for m in (1, 2, 5)]
RNG = np.random.default_rng(1)
PROMPTS = np.rint(RNG.lognormal(6.5, 0.8, 4000)).astype(np.int64)
OUTPUTS = np.rint(RNG.lognormal(4.5, 0.9, 4000)).astype(np.int64) + 1


def histogram(name: str, values: IntArray, labels: str, edges: list[int] | None = None) -> str:
    lines = [f"# HELP {name} Some words.", f"# TYPE {name} histogram"]
    lines += [
        f'{name}_bucket{{{labels},le="{edge}.0"}} {float((values <= edge).sum())}'
        for edge in edges or EDGES
    ]
    lines.append(f'{name}_bucket{{{labels},le="+Inf"}} {float(len(values))}')
    lines += [f"{name}_count{{{labels}}} {float(len(values))}"]
    lines += [f"{name}_sum{{{labels}}} {float(values.sum())}"]
    return "\n".join(lines) + "\n"


def page(
    requests: int = 4000, model: str = "m", engine: int = 0, hits: float = 0.3, **names: str
) -> str:
    labels = f'engine="{engine}",model_name="{model}"'
    tokens = float(PROMPTS[:requests].sum())
    cache = names.get("cache", "vllm:prefix_cache")
    return (
        histogram("vllm:request_prompt_tokens", PROMPTS[:requests], labels)
        + histogram("vllm:request_generation_tokens", OUTPUTS[:requests], labels)
        + f"{cache}_queries_total{{{labels}}} {tokens}\n"
        + f"{cache}_hits_total{{{labels}}} {tokens * hits} 1700000000000\n"
        + 'process_start_time_seconds 1.7e+09\npython_gc_objects{a="x\\"y"} NaN\n'
    )


def written(tmp_path: Path, text: str, name: str = "now.prom") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def requests_of(path: Path, **options: Any) -> RequestTable:
    load = read_service_load(path, **{"seconds": 1000.0, **options})
    entry = parse_yaml(workload_text(load, "now.prom"), "now.yaml")["workload"]
    return generate(read_workload({**entry, "num_requests": 20_000}), 1)


def shares(values: IntArray) -> list[float]:
    return [float((values <= edge).mean()) for edge in EDGES]


def test_workload_has_the_rate_and_the_lengths_of_the_service(tmp_path: Path) -> None:
    path = written(tmp_path, page(hits=0.0))
    assert read_service_load(path, seconds=1000).rate_per_s == 4.0
    table = requests_of(path)
    # 20,000 draws: a share is known to 0.35 %; five standard errors.
    assert shares(table.prompt_tokens) == pytest.approx(shares(PROMPTS), abs=0.018)
    assert shares(table.output_tokens) == pytest.approx(shares(OUTPUTS), abs=0.018)


def test_hit_rate_becomes_a_shared_prefix(tmp_path: Path) -> None:
    table = requests_of(written(tmp_path, page(hits=0.3)))
    hits = shared_prefix_tokens(table).sum() / table.prompt_tokens.sum()
    # Prompts shorter than the prefix get longer, and lengths are uniform within a bucket.
    assert hits == pytest.approx(0.3, abs=0.04)
    assert table.prompt_tokens.mean() == pytest.approx(PROMPTS.mean(), rel=0.2)


def test_mean_that_will_be_drawn_is_written_beside_the_counted_one(tmp_path: Path) -> None:
    path = written(tmp_path, page(hits=0.3))
    text = workload_text(read_service_load(path, seconds=1000), "now.prom")
    counted, drawn = re.findall(r"# mean: ([0-9,.]+) tokens counted, ([0-9,.]+) drawn", text)[0]
    assert float(counted.replace(",", "")) == pytest.approx(PROMPTS.mean(), abs=0.1)
    mean = requests_of(path).prompt_tokens.mean()
    # Standard deviation about 900 tokens over 20,000 draws: five standard errors.
    assert float(drawn.replace(",", "")) == pytest.approx(mean, abs=32)


def test_engines_add_up_and_models_are_kept_apart(tmp_path: Path) -> None:
    twice = written(tmp_path, page(engine=0) + page(engine=1))
    assert read_service_load(twice, seconds=1000).rate_per_s == 8.0
    several = written(tmp_path, page(model="a") + page(1000, model="b"))
    with pytest.raises(InputError, match="got 2 models, allowed: --served-model, one of a, b"):
        read_service_load(several, seconds=1000)
    assert read_service_load(several, seconds=1000, model="b").rate_per_s == 1.0
    with pytest.raises(InputError, match="--served-model: got c, allowed: a, b"):
        read_service_load(several, seconds=1000, model="c")


def test_growth_since_an_earlier_page_is_what_counts(tmp_path: Path) -> None:
    before, now = written(tmp_path, page(1000), "before"), written(tmp_path, page(4000))
    assert read_service_load(now, seconds=1000, since=before).rate_per_s == 3.0
    with pytest.raises(InputError, match="none fewer than before"):
        read_service_load(before, seconds=1000, since=now)


def test_older_names_of_the_prefix_cache_are_known(tmp_path: Path) -> None:
    path = written(tmp_path, page(cache="vllm:gpu_prefix_cache"))
    assert read_service_load(path, seconds=1000).hit_frac == pytest.approx(0.3)


def test_endless_bucket_ends_where_the_mean_says(tmp_path: Path) -> None:
    labels = 'model_name="m"'
    long = np.array([100] * 50 + [5000] * 50)
    text = histogram("vllm:request_prompt_tokens", long, labels, [50, 150])
    path = written(tmp_path, text + histogram("vllm:request_generation_tokens", long, labels))
    table = requests_of(path)
    assert table.prompt_tokens.mean() == pytest.approx(long.mean(), rel=0.05)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no metric"),
        ("process_start_time_seconds 1\n", "vllm:request_prompt_tokens: got nothing"),
        ("vllm:x{a=b} 1\n", "row 1: got vllm:x{a=b} 1"),
        ("vllm:x one\n", "row 1: got vllm:x one"),
        ('vllm:request_prompt_tokens_bucket{le="x"} 1\n', "rising buckets"),
        (
            'vllm:request_prompt_tokens_bucket{le="1"} 5\n'
            'vllm:request_prompt_tokens_bucket{le="2"} 1\nvllm:request_prompt_tokens_sum 5\n',
            "rising buckets",
        ),
        ('vllm:request_prompt_tokens_bucket{le="1"} 5\n', "no sum"),
    ],
)
def test_page_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, text: str, expected: str
) -> None:
    with pytest.raises(InputError) as caught:
        read_service_load(written(tmp_path, text), seconds=10)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_time_covered_must_be_a_time(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(InputError, match="--over"):
        read_service_load(written(tmp_path, page()), seconds=seconds)


@settings(max_examples=100,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(st.integers(0, 2**32))
def test_damaged_page_is_used_or_refused_in_one_line(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    lines = page(50).splitlines()
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(lines))
        broken = ["", "1e999", "NaN", "-5", "+Inf", "{}", "le=", '"']
        words = lines[place].split(" ")
        words[rng.randrange(len(words))] = rng.choice(broken)
        lines[place] = " ".join(words)
    path = written(tmp_path, "\n".join(lines))
    try:
        table = requests_of(path)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert len(table) == 20_000
