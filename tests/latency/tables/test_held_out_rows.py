"""How far interpolation is off, on published kernel times with every other row left out."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simserve.inputs.hardware_profile import load_gpu
from simserve.latency.tables.table_model import TableModel
from tests.latency.tables.profiles import LLAMA_8B, heads, profile_of

FOLDER = (
    Path(__file__).parents[4]
    / "shared/groundtruth/llmservingsim_vllm/rtx4090_llama-3.1-8b_tp1/profile/tp1"
)
SMS, KV_HEADS = 128, 8
SPLIT_BELOW = 0.8 * 2 * SMS / KV_HEADS

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="needs LLMServingSim's RTX 4090 tables beside the repository"
)

Row = dict[str, Any]
Keep = Callable[[Row], bool]


def rows(name: str) -> list[Row]:
    with gzip.open(FOLDER / name, "rt", encoding="utf-8") as file:
        return [
            {key: float(cell) if key != "layer" else cell for key, cell in row.items()}
            for row in csv.DictReader(file)
        ]


def decode_row(row: Row) -> Row:
    regime = "split" if row["n_decode"] < SPLIT_BELOW else "unsplit"
    keys = {"batch": row["n_decode"], "ctx": row["kv_decode"], "regime": regime}
    return {**heads(LLAMA_8B, 1), **keys, "us_p50": row["time_us"]}


def prefill_row(row: Row) -> Row:
    keys = {"q": row["prefill_chunk"], "past": row["kv_prefill"]}
    return {**heads(LLAMA_8B, 1), **keys, "us_p50": row["time_us"]}


def errors(decode: Keep, prefill: Keep) -> tuple[list[float], list[float]]:
    """Return the relative errors of decodes and of chunks on the rows that were not kept."""
    attention = rows("attention.csv.gz")
    decodes = [row for row in attention if not row["prefill_chunk"]]
    chunks = [row for row in attention if not row["n_decode"]]
    profile = profile_of(
        {
            "attn_decode": [decode_row(row) for row in decodes if decode(row)],
            "attn_prefill": [prefill_row(row) for row in chunks if prefill(row)],
        },
        device={"gpu": "rtx-4090", "sms": SMS},
        kind="imported",
        source="LLMServingSim, vLLM 0.19.0",
    )
    latency: Any = TableModel(profile, LLAMA_8B, load_gpu("rtx-4090"), 1)
    (table,), (surface,) = latency._operators.decodes, latency._operators.chunks
    of_decodes, of_chunks = [], []
    for row in decodes:
        batch = int(row["n_decode"])
        if not decode(row):
            seconds = table.decode_lines(batch, batch).seconds(batch * row["kv_decode"])
            of_decodes.append(seconds / 32e-6 / row["time_us"] - 1)
    for row in chunks:
        if not prefill(row):
            seconds = surface.seconds(int(row["prefill_chunk"]), int(row["kv_prefill"]))
            of_chunks.append(seconds / 32e-6 / row["time_us"] - 1)
    return of_decodes, of_chunks


def test_contexts_between_rows_four_times_apart_are_priced_within_a_few_percent() -> None:
    skipped = (32, 128, 512, 2048, 8192)
    decodes, chunks = errors(
        lambda row: row["kv_decode"] not in skipped, lambda row: row["kv_prefill"] not in skipped
    )
    for found in (decodes, chunks):
        assert len(found) >= 40
        assert np.median(np.abs(found)) < 0.03
        assert np.percentile(np.abs(found), 90) < 0.16  # at the knee where KV leaves the cache
        assert abs(np.median(found)) < 0.02


def test_chunks_between_rows_four_times_apart_are_priced_within_a_tenth() -> None:
    _, chunks = errors(lambda row: True, lambda row: row["prefill_chunk"] not in (32, 128, 512))
    assert np.median(np.abs(chunks)) < 0.1
    assert abs(np.mean(chunks)) < 0.05
