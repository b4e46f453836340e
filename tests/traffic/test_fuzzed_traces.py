"""Damaged traces of every format load or are refused in one line, whatever is wrong."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.traffic import test_more_trace_formats as samples
from tests.traffic import test_trace_formats as first_samples
from tests.traffic.trace_fuzz import case, head_of

TRACES = Path(__file__).parents[2].parent / "shared" / "traces"
PUBLISHED = [
    "azure_llm_2023_code.csv.gz",
    "mooncake_conversation.jsonl.gz",
    "arxiv_summarization_lengths.csv.gz",
    "servegen_deepseek-r1_clients.jsonl.gz",
]
SMALL = {
    "azure": first_samples.AZURE,
    "mooncake": first_samples.jsonl(first_samples.ROW),
    "burstgpt": samples.BURSTGPT,
    "bailian": samples.jsonl(samples.CHAT, samples.CHAT),
    "servegen": samples.jsonl(samples.POOL),
    "lengths": '[{"prompt_len": 5, "output_len": 6}]',
    "table": "arrival_s,prompt_tokens,output_tokens,segments\n1,5,5,0:4 1:1\n2,4,5,0:4\n",
}


@pytest.mark.parametrize("name", SMALL)
def test_damaged_sample_is_read_or_refused_in_one_line(tmp_path: Path, name: str) -> None:
    loaded = [
        case(SMALL[name].encode(), tmp_path / "trace", random.Random(f"{name} {seed}"))
        for seed in range(150)
    ]
    assert not all(loaded)


@pytest.mark.parametrize("name", PUBLISHED)
def test_damaged_published_trace_is_read_or_refused_in_one_line(tmp_path: Path, name: str) -> None:
    path = TRACES / name
    if not path.exists():
        pytest.skip(f"{path} is not there; the traces are not ours to ship")
    content = head_of(path, 2 if name.startswith("servegen") else 20)
    loaded = [
        case(content, tmp_path / "trace", random.Random(f"{name} {seed}")) for seed in range(60)
    ]
    assert not all(loaded)


def test_damaged_parquet_is_read_or_refused_in_one_line(tmp_path: Path) -> None:
    content = samples.table_file(tmp_path, "parquet").read_bytes()
    loaded = [
        case(content, tmp_path / "trace", random.Random(f"parquet {seed}")) for seed in range(150)
    ]
    assert not all(loaded)
