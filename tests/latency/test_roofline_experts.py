"""Experts and latent attention in the roofline: their own overheads, and servers held out."""

from __future__ import annotations

import csv
import gzip
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simserve.inputs.hardware_profile import GpuSpec, list_gpus, load_gpu
from simserve.inputs.model_catalogue import list_models, load_model
from simserve.inputs.model_spec import ModelSpec
from simserve.inputs.quantization import FORMATS
from simserve.latency.roofline import RooflineModel
from simserve.latency.roofline_trust import remark_on
from simserve.records.step import PrefillChunk, StepShape

H200 = load_gpu("h200-sxm")
OWN_KEYS = ("expert_launch_s", "latent_launch_s")
MEASURED = Path(__file__).resolve().parents[3] / "shared/groundtruth/inferencex/aggregated.csv.gz"
SERVED = {
    "MiniMaxAI/MiniMax-M2.5": "minimax-m2.5",
    "moonshotai/Kimi-K2.5": "kimi-k2",
    "openai/gpt-oss-120b": "gpt-oss-120b",
}
GPUS = {"h200_sxm": "h200-sxm", "b200_sxm": "b200-sxm"}
# Prompts and outputs are drawn from 0.8 to 1 of the length that a row states.
MEAN_OF_LENGTH = 0.9


def with_efficiency(gpu: GpuSpec, **values: float) -> GpuSpec:
    changed = {name: replace(gpu.efficiency[name], value=value) for name, value in values.items()}
    return replace(gpu, efficiency={**gpu.efficiency, **changed})


def as_if_dense(gpu: GpuSpec) -> GpuSpec:
    dense = gpu.efficiency["gemm_efficiency"].value
    return with_efficiency(gpu, expert_gemm_efficiency=dense, **dict.fromkeys(OWN_KEYS, 0.0))


@pytest.mark.parametrize("name", list_models())
def test_a_step_pays_for_every_layer_of_experts_and_of_latent_attention(name: str) -> None:
    model, decode = load_model(name), StepShape(1, 100)
    launches = {key: H200.efficiency[key].value for key in OWN_KEYS}
    free = with_efficiency(H200, **dict.fromkeys(OWN_KEYS, 0.0))
    more_s = RooflineModel(model, H200, 1).step_s(decode) - RooflineModel(model, free, 1).step_s(
        decode
    )
    layers = (model.experts.layers if model.experts else 0, model.layers if model.mla else 0)
    expected_s = sum(n * launches[key] for n, key in zip(layers, OWN_KEYS, strict=True))
    assert more_s == pytest.approx(expected_s, abs=1e-12)


def test_prefill_of_experts_runs_at_the_pace_of_grouped_gemms_and_of_dense_models_does_not() -> (
    None
):
    prompt = StepShape(0, 0, (PrefillChunk(8192, 0),))
    for name, slower in (("mixtral-8x7b", True), ("llama-3.1-8b", False)):
        model = load_model(name)
        times = [RooflineModel(model, gpu, 1).step_s(prompt) for gpu in (H200, as_if_dense(H200))]
        assert (times[0] > 1.5 * times[1]) == slower


@pytest.mark.parametrize("name", list_gpus())
def test_grouped_gemms_are_no_better_than_dense_ones(name: str) -> None:
    share = load_gpu(name).efficiency
    assert share["expert_gemm_efficiency"].value < share["gemm_efficiency"].value


@pytest.mark.parametrize("name", list_models())
def test_the_roofline_of_experts_and_latents_is_remarked_and_of_dense_models_is_not(
    name: str,
) -> None:
    model = load_model(name)
    said = remark_on("roofline", model.described())
    assert (said is not None) == (model.experts is not None or model.mla is not None)
    assert remark_on("a-profile", model.described()) is None


def _rows() -> list[dict[str, str]]:
    """Return what vLLM took without expert or data parallelism, up to 8 requests at once."""
    with gzip.open(MEASURED, "rt", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] in SERVED]
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        alone = all(row[f"{one}_size"] == "1.0" for one in ("pp", "attention_dp", "moe_ep"))
        weights = ("fp4",) if "gpt-oss" in row["model"] else ("fp8", "int4")
        inferencex = row["source_kind"].startswith("inferencex") and row["engine"] == "vllm"
        few = bool(row["concurrency"]) and float(row["concurrency"]) <= 8 and row["gpu"] in GPUS
        whole = float(row["tp_size"] or 0) == float(row["gpus"])
        if alone and whole and inferencex and few and row["precision"] in weights:
            names = ("gpu", "model", "tp_size", "isl", "osl", "concurrency", "ttft_ms", "tpot_ms")
            found[tuple(row[name] for name in names)] = row
    return list(found.values())


def _served(row: dict[str, str]) -> ModelSpec:
    model = load_model(SERVED[row["model"]])
    if row["precision"] == "int4":
        return replace(model, weights=FORMATS["gptq"])
    if model.weights is None:
        return replace(model, weights=FORMATS["fp8-block"])
    return model


def _tpot_ms(latency: RooflineModel, row: dict[str, str]) -> float:
    """Return a decode step at the mean context, and each one's share of the others' prompts."""
    seqs = int(float(row["concurrency"]))
    prompt, output = (MEAN_OF_LENGTH * float(row[name]) for name in ("isl", "osl"))
    context = int(seqs * (prompt + output / 2))
    decode_s = latency.step_s(StepShape(seqs, context))
    mixed_s = latency.step_s(StepShape(seqs, context, (PrefillChunk(int(prompt), 0),)))
    return 1e3 * (decode_s + (seqs - 1) / output * (mixed_s - decode_s))


@pytest.mark.skipif(not MEASURED.is_file(), reason="the measurements are not beside the checkout")
def test_held_out_servers_are_priced_as_the_remark_and_the_readme_say() -> None:
    rows = _rows()
    before: list[float] = []
    after: list[float] = []
    models: dict[tuple[Any, ...], list[RooflineModel]] = {}
    for row in rows:
        key = row["model"], row["precision"], row["gpu"], row["tp_size"]
        if key not in models:
            gpu, tp = load_gpu(GPUS[row["gpu"]]), int(float(row["tp_size"]))
            models[key] = [RooflineModel(_served(row), g, tp) for g in (as_if_dense(gpu), gpu)]
        for errors, latency in zip((before, after), models[key], strict=True):
            errors.append(100 * (_tpot_ms(latency, row) / float(row["tpot_ms"]) - 1))
    said = remark_on("roofline", load_model("kimi-k2").described())
    assert said is not None
    stated = re.search(
        r"beside (\d+) vLLM measurements of (\w+) .* is (\d+) % too short at the median, "
        r"from (\d+) % too short to (\d+) % too long",
        said,
    )
    assert stated is not None
    number, models_said, median, shortest, longest = stated.groups()
    assert len(rows) == int(number)
    assert len({row["model"] for row in rows}) == {"three": 3}[models_said]
    assert -np.median(after) == pytest.approx(int(median), abs=0.5)
    assert -min(after) == pytest.approx(int(shortest), abs=0.5)
    assert max(after) == pytest.approx(int(longest), abs=0.5)
    # Priced as dense layers, the same servers came out at about half of what they take.
    assert np.median(np.abs(before)) > 2 * np.median(np.abs(after))
