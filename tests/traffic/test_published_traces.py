"""The loaders against the published figures of real traces, which are not part of the project."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from simserve.records.clock import PS_PER_S
from simserve.records.requests import RequestTable
from simserve.traffic.segments import infinite_cache_hit_frac
from simserve.traffic.trace_formats import Part, load_trace, read_trace
from simserve.traffic.trace_stats import stats_text, trace_stats
from simserve.traffic.trace_writers import write_trace

TRACES = Path(__file__).parents[2].parent / "shared" / "traces"

pytestmark = pytest.mark.skipif(
    not TRACES.is_dir(), reason=f"the traces are not in {TRACES}; they are not ours to ship"
)

# file, requests, span in s, rate per s, prompt (mean, median, most or p99), output mean
FIGURES = [
    ("azure_llm_2023_code.csv.gz", 8819, 3436, 2.57, (2047.8, 1469, 7436), 27.9),
    ("azure_llm_2023_conv.csv.gz", 19366, 3502, 5.53, (1154.7, 1020, 4142), 211.1),
    ("mooncake_conversation.jsonl.gz", 12031, 3537, 3.40, (12_035, 6_909, None), 343),
    ("mooncake_synthetic.jsonl.gz", 3993, 1022, 3.91, (15_325, 11_587, None), 149),
]


def load(name: str) -> RequestTable:
    return load_trace(TRACES / name)


@pytest.mark.parametrize(("name", "requests", "span_s", "rate", "prompt", "output"), FIGURES)
def test_published_figures_of_a_trace_are_reproduced(
    name: str,
    requests: int,
    span_s: int,
    rate: float,
    prompt: tuple[float, float, float | None],
    output: float,
) -> None:
    table = load(name)
    assert len(table) == requests
    assert table.arrival_ps[0] == 0
    assert round(table.arrival_ps[-1] / PS_PER_S) == span_s
    assert requests / (table.arrival_ps[-1] / PS_PER_S) == pytest.approx(rate, abs=0.005)
    mean, median, p99 = prompt
    assert table.prompt_tokens.mean() == pytest.approx(mean, abs=0.5)
    assert np.median(table.prompt_tokens) == median
    if p99 is not None:
        assert np.percentile(table.prompt_tokens, 99) == pytest.approx(p99, abs=1)
    assert table.output_tokens.mean() == pytest.approx(output, abs=0.5)


@pytest.mark.parametrize(
    ("name", "median", "p99"),
    [("azure_llm_2023_code.csv.gz", 13, 251), ("azure_llm_2023_conv.csv.gz", 129, 601)],
)
def test_published_output_quantiles_of_azure_are_reproduced(
    name: str, median: int, p99: int
) -> None:
    outputs = load(name).output_tokens
    assert np.median(outputs) == median
    assert np.percentile(outputs, 99) == pytest.approx(p99, abs=1)


def test_azure_conversation_gaps_are_a_little_burstier_than_poisson() -> None:
    gaps_ps = np.diff(load("azure_llm_2023_conv.csv.gz").arrival_ps)
    assert gaps_ps.std() / gaps_ps.mean() == pytest.approx(1.09, abs=0.005)


def test_azure_code_gaps_are_very_bursty() -> None:
    gaps_ps = np.diff(load("azure_llm_2023_code.csv.gz").arrival_ps)
    assert gaps_ps.std() / gaps_ps.mean() == pytest.approx(13, abs=0.5)


def test_azure_time_is_exact_to_the_seventh_digit() -> None:
    arrival_ps = load("azure_llm_2023_conv.csv.gz").arrival_ps
    # 18:15:46.6805900 to 18:15:50.9951690, the first two rows of the file
    assert arrival_ps[1] == 4_314_579_000_000


@pytest.mark.parametrize(
    ("name", "frac"),
    [("mooncake_conversation.jsonl.gz", 0.366), ("mooncake_synthetic.jsonl.gz", 0.640)],
)
def test_published_share_of_repeated_blocks_is_reproduced(name: str, frac: float) -> None:
    assert infinite_cache_hit_frac(load(name), 512) == pytest.approx(frac, abs=0.0005)


@pytest.mark.parametrize(
    ("name", "seen", "reusable"),
    [
        ("mooncake_conversation.jsonl.gz", "36.6%", "37.4%"),
        ("mooncake_synthetic.jsonl.gz", "64.0%", "65.1%"),
    ],
)
def test_both_bounds_of_a_prefix_cache_are_printed(name: str, seen: str, reusable: str) -> None:
    text = stats_text(trace_stats(read_trace(TRACES / name)))
    assert f"{seen} of prompt blocks of 512 tokens seen before" in text
    assert f"{reusable} of prompt tokens reusable" in text


@pytest.mark.parametrize(("name", "requests", "span_s", "rate", "prompt", "output"), FIGURES)
def test_statistics_of_a_trace_are_the_published_ones(
    name: str,
    requests: int,
    span_s: int,
    rate: float,
    prompt: tuple[float, float, float | None],
    output: float,
) -> None:
    stats = trace_stats(read_trace(TRACES / name))
    assert (stats.requests, round(stats.span_s or 0)) == (requests, span_s)
    assert stats.rate_per_s == pytest.approx(rate, abs=0.005)
    assert stats.prompt_tokens.mean == pytest.approx(prompt[0], abs=0.5)
    assert stats.prompt_tokens.median == prompt[1]
    assert stats.output_tokens.mean == pytest.approx(output, abs=0.5)
    cvs = {"azure_llm_2023_code.csv.gz": 13, "azure_llm_2023_conv.csv.gz": 1.09}
    if name in cvs:
        assert stats.gap_cv == pytest.approx(cvs[name], rel=0.02)


def test_longest_prompts_and_distinct_times_are_the_published_ones() -> None:
    stats = trace_stats(read_trace(TRACES / "mooncake_conversation.jsonl.gz"))
    assert (stats.prompt_tokens.max, stats.distinct_times) == (126_195, 1180)
    stats = trace_stats(read_trace(TRACES / "mooncake_synthetic.jsonl.gz"))
    assert stats.prompt_tokens.max == 191_378


def test_published_lengths_without_times_are_read() -> None:
    trace = read_trace(TRACES / "arxiv_summarization_lengths.csv.gz")
    assert (trace.format, trace.timed, len(trace.requests)) == ("lengths", False, 28_257)


def test_pool_of_clients_has_its_published_rate() -> None:
    # 16.0 requests/s over a day, but the first two hours are quick to draw.
    path = TRACES / "servegen_deepseek-r1_clients.jsonl.gz"
    two_hours = read_trace(path, part=Part(to_s=7200)).requests
    rates = gzip.decompress(
        (TRACES / "servegen_deepseek-r1_clients_total_rate.csv.gz").read_bytes()
    )
    rows = [line.split(",") for line in rates.decode().splitlines()[1:]]
    expected = sum(float(rate) * 600 for start, rate in rows if float(start) < 7200)
    assert len(rows) == 144
    assert sum(float(rate) for _, rate in rows) / 144 == pytest.approx(16.0, abs=0.05)
    # Bursty windows: a few times the Poisson deviation of about 0.4 %.
    assert len(two_hours) == pytest.approx(expected, rel=0.02)


def test_pool_names_the_clients_whose_lengths_are_missing() -> None:
    path = TRACES / "servegen_m-small_clients.jsonl.gz"
    trace = read_trace(path, rate_per_s=0.02)
    assert trace.notes[0].startswith("clients without length_pdfs left out: 1, 5, 8, 11, 38 (")
    # Two weeks, of which 13.7 days have windows with traffic.
    assert trace.requests.arrival_ps[-1] / PS_PER_S / 86_400 == pytest.approx(14, abs=0.05)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("azure_llm_2023_code.csv.gz", "azure"),
        ("azure_llm_2023_conv.csv.gz", "timed-trace"),
        ("mooncake_synthetic.jsonl.gz", "mooncake"),
        ("mooncake_synthetic.jsonl.gz", "parquet"),
    ],
)
def test_published_trace_survives_being_written(tmp_path: Path, name: str, target: str) -> None:
    table = load(name)
    write_trace(tmp_path / "out", table, target)
    back = load_trace(tmp_path / "out")
    for column in ("arrival_ps", "prompt_tokens", "output_tokens"):
        np.testing.assert_array_equal(getattr(back, column), getattr(table, column))
    assert infinite_cache_hit_frac(back, 512) == infinite_cache_hit_frac(table, 512)


def test_mooncake_times_stay_quantised_as_bursts() -> None:
    table = load("mooncake_conversation.jsonl.gz")
    assert len(np.unique(table.arrival_ps)) == 1180


def test_mooncake_segments_cover_every_prompt_exactly() -> None:
    table = load("mooncake_conversation.jsonl.gz")
    assert table.segments is not None
    covered = np.add.reduceat(table.segments.tokens, table.segments.offsets[:-1])
    np.testing.assert_array_equal(covered, table.prompt_tokens)
    assert table.segments.tokens.min() >= 1
    assert table.segments.tokens.max() == 512


def test_head_gives_the_first_requests_of_the_whole_trace() -> None:
    whole, head = (load_trace(TRACES / "azure_llm_2023_code.csv.gz", head=n) for n in (None, 50))
    np.testing.assert_array_equal(head.arrival_ps, whole.arrival_ps[:50])
    np.testing.assert_array_equal(head.output_tokens, whole.output_tokens[:50])
