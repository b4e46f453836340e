"""KV blocks: against the counts that real engines reported, and for layers with windows."""

from __future__ import annotations

import csv
import gzip
import json
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.errors import InputError
from simserve.inputs.deployment import read_deployment
from simserve.inputs.engine_defaults import load_engine
from simserve.inputs.hardware_profile import load_gpu
from simserve.inputs.kv_capacity import ALL_COUNTED, SET_ASIDE, KvCapacity, kv_capacity
from simserve.inputs.memory_terms import KvRequest
from simserve.inputs.model_catalogue import load_model

SHARED = Path(__file__).resolve().parents[3] / "shared" / "groundtruth"
BAR = 0.05


class Run(NamedTuple):
    """A run whose engine reported its blocks. ``fitted``: a constant is fitted to this one."""

    label: str
    version: str
    model: str
    gpu: str
    tp: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    blocks: int
    fitted: bool = False


def _experiment(row: dict[str, str]) -> Run:
    return Run(
        row["experiment"],
        "0.15",
        row["model"],
        "h100-sxm",
        int(row["tp"]),
        int(row["max_num_seqs"]),
        int(row["max_num_batched_tokens"]),
        int(row["max_model_len"]),
        int(row["gpu_kv_blocks16"]),
        fitted="llama-2-7b" in row["experiment"],
    )


def recorded_runs() -> list[Run]:
    """Return the runs on record with a block count, read where they are kept."""
    experiments = SHARED / "blis_vllm_h100" / "experiments.csv"
    with experiments.open(encoding="utf-8", newline="") as file:
        runs = [_experiment(row) for row in csv.DictReader(file) if row["gpu_kv_blocks16"]]
    steps = SHARED / "blis_vllm_h100" / "steps_llama-2-70b_tp4_codegen.csv.gz"
    with gzip.open(steps, "rt", encoding="utf-8", newline="") as file:
        step = next(csv.DictReader(file))
    blocks = int(step["kv_blocks_total"])
    runs.append(
        Run(
            step["run"], "0.15", step["model"], "h100-sxm", int(step["tp"]), 128, 2048, 4096, blocks
        )
    )
    path = SHARED / "llmservingsim_vllm" / "rtx4090_llama-3.1-8b_tp1" / "engine.json"
    engine = json.loads(path.read_text(encoding="utf-8"))
    given_to = engine["engine_kwargs"]
    runs.append(
        Run(
            path.parent.name,
            "0.19",
            given_to["model"],
            "rtx-4090",
            given_to["tensor_parallel_size"],
            given_to["max_num_seqs"],
            given_to["max_num_batched_tokens"],
            given_to["max_model_len"],
            engine["kv_cache"]["num_gpu_blocks"],
            fitted=True,
        )
    )
    return runs


def described(run: Run, error: float) -> str:
    note = "fitted to it" if run.fitted else "held out"
    return f"{run.label:48} {run.blocks:6} recorded, predicted {error:+.2%}, {note}"


def predicted_blocks(run: Run, version: str | None = None) -> int:
    """Return the blocks for ``run``, with the memory of its own version or of another."""
    engine = load_engine().with_memory_of(version or run.version)
    request = KvRequest(
        tp=run.tp,
        block_size=16,
        gpu_memory_utilization=0.9,  # the default of both versions
        max_num_seqs=run.max_num_seqs,
        max_num_batched_tokens=run.max_num_batched_tokens,
        max_model_len=run.max_model_len,
    )
    capacity = kv_capacity(load_model(run.model), load_gpu(run.gpu), engine, request, "test")
    return capacity.num_blocks


def test_block_counts_are_within_the_bar_of_what_engines_reported(
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not SHARED.is_dir():
        pytest.skip("no ../shared/groundtruth beside the checkout")
    runs = recorded_runs()
    errors = {run.label: predicted_blocks(run) / run.blocks - 1 for run in runs}
    with capsys.disabled():
        sys.stdout.write("\n" + "".join(f"{described(run, errors[run.label])}\n" for run in runs))
    assert len([run for run in runs if not run.fitted]) >= 3
    assert max(map(abs, errors.values())) < BAR


def test_the_page_states_the_recorded_and_the_predicted_counts() -> None:
    if not SHARED.is_dir():
        pytest.skip("no ../shared/groundtruth beside the checkout")
    page = Path(__file__).resolve().parents[2] / "docs" / "kv-capacity.md"
    text = page.read_text(encoding="utf-8")
    for run in recorded_runs():
        predicted = predicted_blocks(run)
        error = 100 * (predicted / run.blocks - 1)
        row = f"| {run.blocks:,} | {predicted:,} | {error:+.2f} % |"
        assert row in text, run.label


def test_one_more_token_of_the_batch_costs_two_hidden_states() -> None:
    # Recorded for Qwen2.5-7B on an H100: 1024 tokens fewer in a batch are 16 blocks more.
    fewer, more = (
        predicted_blocks(Run("", "0.15", "qwen2.5-7b", "h100", 1, 128, tokens, 4096, 0))
        for tokens in (2048, 1024)
    )
    assert more - fewer == 16


def capacity(**keys: object) -> KvCapacity:
    return read_deployment({"model": "gpt-oss-20b", "gpu": "h100"} | keys).kv


def terms(kv: KvCapacity) -> dict[str, int]:
    return {term.name: term.bytes for term in kv.terms}


def test_small_windows_are_set_aside_for_every_sequence() -> None:
    kv = capacity(max_num_seqs=256, max_num_batched_tokens=2048)
    # 12 full layers and 12 of 128 tokens; a layer and token weigh 2 × 8 × 64 × 2 = 2048 bytes.
    assert kv.approximation == SET_ASIDE
    assert kv.block_bytes == 16 * 12 * 2048
    assert terms(kv)["kv_windows"] == (256 * (128 + 16) + 2048) * 12 * 2048


def test_large_windows_of_many_sequences_are_counted_as_full() -> None:
    keys = {"model": "gemma-3-27b", "max_model_len": 8192}
    many, few = capacity(**keys, max_num_seqs=1024), capacity(**keys, max_num_seqs=16)
    assert (many.approximation, few.approximation) == (ALL_COUNTED, SET_ASIDE)
    assert many.block_bytes == 16 * 507_904
    assert "kv_windows" not in terms(many)
    assert few.usable_tokens > many.usable_tokens


def test_the_resolved_configuration_says_what_is_approximated() -> None:
    resolved = read_deployment({"model": "gemma-3-27b", "gpu": "h100", "max_model_len": 8192})
    assert ALL_COUNTED in resolved.sources["num_blocks"]
    with pytest.raises(InputError, match="a smaller max_num_seqs lets windows be set aside"):
        capacity(model="gemma-3-27b")


@given(
    model=st.sampled_from(["gpt-oss-20b", "gemma-3-12b", "gemma-2-27b", "mistral-7b-v0.1"]),
    seqs=st.integers(1, 1024),
    lengths=st.lists(st.integers(1, 8192), min_size=1, max_size=50),
)
def test_no_mix_of_sequences_that_is_admitted_exceeds_the_memory(
    model: str, seqs: int, lengths: list[int]
) -> None:
    kv = capacity(model=model, gpu="h200", max_num_seqs=seqs, max_model_len=8192)
    admitted, blocks, held = 0, 0, 0
    spec = load_model(model)
    for length in lengths * 40:
        rounded = -(-length // 16) * 16
        if admitted == seqs or blocks + rounded // 16 > kv.usable_blocks:
            break
        admitted, blocks = admitted + 1, blocks + rounded // 16
        held += spec.kv_bytes(rounded)
    there = terms(kv)
    assert held <= there["kv_blocks"] + there.get("kv_windows", 0)


def test_blocks_of_another_unit_are_refused() -> None:
    with pytest.raises(InputError, match="num_gpu_blocks: got 1000, allowed: nothing with"):
        capacity(num_gpu_blocks=1000)
    one_kind = capacity(model="mistral-7b", num_gpu_blocks=1000, max_model_len=4096)
    assert one_kind.num_blocks == 1000
    assert capacity(kv_cache_memory_bytes="20GB").approximation == SET_ASIDE


def test_memory_terms_of_every_kind_of_model_sum_to_the_memory() -> None:
    for model, tp in (("gpt-oss-120b", 2), ("deepseek-v3.2", 8), ("mixtral-8x7b", 2)):
        resolved = read_deployment({"model": model, "gpu": "b200", "tp": tp, "max_model_len": 4096})
        assert sum(term.bytes for term in resolved.kv.terms) == resolved.gpu.memory_bytes


def test_every_model_is_held_by_some_number_of_large_gpus() -> None:
    for name in ("bloom-176b", "kimi-k2", "llama-3.1-405b", "deepseek-v3"):
        model = load_model(name)
        sizes = [tp for tp in model.tp_sizes() if tp >= 7]
        resolved = read_deployment(
            {"model": name, "gpu": "b300", "tp": sizes[0], "max_model_len": 2048}
        )
        assert resolved.kv.usable_tokens >= 2048
