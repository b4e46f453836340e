"""Models, GPUs and engine defaults: shapes add up, and every number has a source."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from simserve.errors import InputError
from simserve.inputs.data_files import CATALOGUE, data_dir
from simserve.inputs.engine_defaults import load_engine, read_engine
from simserve.inputs.hardware_profile import EFFICIENCY_KEYS, list_gpus, load_gpu, read_gpu
from simserve.inputs.model_catalogue import list_models, load_model, read_model
from simserve.inputs.sourced import KINDS
from simserve.inputs.yaml_reader import read_yaml

MIB = 2**20


def model_file(name: str) -> dict[str, Any]:
    return read_yaml(CATALOGUE / "models" / f"{name}.yaml")


def gpu_file(name: str) -> dict[str, Any]:
    return read_yaml(data_dir("hardware_profiles") / name / "device.yaml")


# The counts that are commonly published for these checkpoints.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.1-70b", 70_553_706_496),
        ("qwen3-8b", 8_190_735_360),
        ("qwen3-32b", 32_762_123_264),
    ],
)
def test_parameters_follow_from_the_shape(name: str, parameters: int) -> None:
    assert load_model(name).parameters == parameters


@pytest.mark.parametrize(
    ("name", "kv_bytes"),
    [
        ("llama-3.1-8b", 131_072),
        ("llama-3.1-70b", 327_680),
        ("qwen3-8b", 147_456),
        ("qwen3-32b", 262_144),
    ],
)
def test_kv_bytes_per_token_are_two_tensors_of_kv_heads_per_layer(name: str, kv_bytes: int) -> None:
    assert load_model(name).kv_bytes_per_token() == kv_bytes


@pytest.mark.parametrize("name", list_models())
def test_one_gpu_holds_all_weights_and_more_gpus_share_them(name: str) -> None:
    model = load_model(name)
    if model.weights is None and model.vocab_size % 64 == 0:
        assert model.weight_bytes(1) == 2 * model.parameters
    for tp in model.tp_sizes():
        if tp > 8:
            break
        assert model.weight_bytes(1) <= tp * model.weight_bytes(tp)
        # Norms, router, position embeddings and latent projections stand on every GPU, KV heads
        # are replicated where there are fewer than GPUs.
        assert tp * model.weight_bytes(tp) < model.weight_bytes(1) * 1.1
        if model.mla is not None:
            assert model.kv_bytes_per_token(tp) == model.kv_bytes_per_token(1)
        elif all(group.kv_heads % tp == 0 for group in model.attention_groups):
            assert tp * model.kv_bytes_per_token(tp) == model.kv_bytes_per_token(1)


def test_kv_heads_are_replicated_when_there_are_fewer_than_gpus() -> None:
    model = load_model("llama-3.1-70b")
    assert model.kv_bytes_per_token(8) == model.kv_bytes_per_token(16) == 327_680 // 8
    assert 16 * model.weight_bytes(16) > 8 * model.weight_bytes(8)


def test_tied_embeddings_are_counted_once() -> None:
    model = load_model("llama-3.1-8b")
    tied = replace(model, tied_embeddings=True)
    assert model.parameters - tied.parameters == model.vocab_size * model.hidden_size


@pytest.mark.parametrize(
    "spelling",
    ["llama-3.1-8b", "LLAMA_3.1_8B", "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct"],
)
def test_a_model_is_found_by_any_of_its_names(spelling: str) -> None:
    assert load_model(spelling).name == "llama-3.1-8b"


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("h100", "h100-sxm"),
        ("a100-80gb", "a100-80gb-sxm"),
        ("h200", "h200-sxm"),
        ("RTX_4090", "rtx-4090"),
    ],
)
def test_a_gpu_is_found_by_its_short_name(alias: str, name: str) -> None:
    assert load_gpu(alias).name == name


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"did you mean llama-3\.1-8b\?"):
        load_model("lama-3.1-8b")
    with pytest.raises(InputError, match=r"did you mean h100-sxm\?"):
        load_gpu("h100-sx")
    with pytest.raises(InputError, match="vllm"):
        load_engine("vlm")


@pytest.mark.parametrize("typed", ["H100 80GB", "h100_80gb", " h100 "])
def test_a_gpu_may_be_named_with_spaces(typed: str) -> None:
    assert load_gpu(typed).name == "h100-sxm"


@pytest.mark.parametrize("typed", ["NVIDIA H100 80GB HBM3", "h100-80gb-nvlink", "h100-96gb"])
def test_the_memory_of_another_family_is_no_likeness(typed: str) -> None:
    with pytest.raises(InputError) as caught:
        load_gpu(typed)
    assert "h100-sxm" in str(caught.value)
    assert "a100" not in str(caught.value)


@pytest.mark.parametrize("name", list_gpus())
def test_every_number_of_a_gpu_has_kind_source_and_date(name: str) -> None:
    gpu = load_gpu(name)
    assert gpu.name == name
    assert set(gpu.efficiency) == set(EFFICIENCY_KEYS)
    for key, number in gpu.sources.items():
        assert number.kind in KINDS, key
        assert number.source, key
        assert number.date, key
        assert number.value > 0, key
    assert (gpu.link_bytes_per_s > 0) == (gpu.link_domain > 1) == ("link_domain" in gpu.sources)


def test_datasheet_figures_are_dense_one_way_and_driver_visible() -> None:
    h100 = load_gpu("h100-sxm")
    assert h100.memory_bytes == 81_559 * MIB
    assert h100.flops_per_s["bf16"] == 989e12
    assert h100.flops_per_s["fp8"] == 1979e12
    assert h100.hbm_bytes_per_s == 3.35e12
    assert h100.link_bytes_per_s == 450e9


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("key", ["kind", "source", "date"])
def test_a_model_without_provenance_is_refused(name: str, key: str) -> None:
    entry = model_file(name)
    del entry[key]
    with pytest.raises(InputError, match=key):
        read_model(entry, "model.yaml")


@pytest.mark.parametrize("name", list_gpus())
@pytest.mark.parametrize("key", ["kind", "source", "date", "value"])
def test_a_gpu_number_without_provenance_is_refused(name: str, key: str) -> None:
    whole = gpu_file(name)
    rate = ["flops", next(iter(whole["flops"]))]
    for path in (["memory"], ["hbm_bandwidth"], rate, ["efficiency", "host_step"]):
        entry = copy.deepcopy(whole)
        number = entry
        for step in path:
            number = number[step]
        del number[key]
        with pytest.raises(InputError, match=rf"{'.'.join(path)}\.{key}: got nothing"):
            read_gpu(entry, "device.yaml")


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (["memory", "value"], "-80GB", "a size above 0"),
        (["memory", "value"], "80 parsecs", "a size above 0"),
        (["memory", "kind"], "guessed", "assumed"),
        (["memory", "date"], "yesterday", "a date such as"),
        (["efficiency", "gemm_efficiency", "value"], 1.2, "at most 1"),
        (["efficiency", "host_step", "value"], "-1us", "at least 0"),
        (["efficiency", "host_stp"], 1, "did you mean host_step"),
        (["flops", "fp42"], 1, "fp8"),
        (["flops"], [], "a mapping"),
        (["memory"], "80GB", "a mapping with value, kind, source and date"),
    ],
)
def test_a_wrong_number_of_a_gpu_is_refused(path: list[str], value: object, expected: str) -> None:
    entry = gpu_file("h100-sxm")
    inner = entry
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(InputError, match=expected):
        read_gpu(entry, "device.yaml")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layers", 0),
        ("layers", "many"),
        ("kv_heads", 5),
        ("tied_embeddings", "no"),
        ("name", 5),
        ("kv_bytes_per_value", -1),
        ("color", "red"),
    ],
)
def test_a_wrong_number_of_a_model_is_refused(key: str, value: object) -> None:
    with pytest.raises(InputError, match=key):
        read_model(model_file("qwen3-8b") | {key: value}, "model.yaml")


@pytest.mark.parametrize(
    ("gpu", "tokens", "seqs"),
    [("h200", 8192, 1024), ("h100", 8192, 1024), ("a100", 2048, 256), ("rtx-4090", 2048, 256)],
)
def test_vllm_defaults_depend_on_the_memory_class(gpu: str, tokens: int, seqs: int) -> None:
    row = load_engine("vllm").row_for(load_gpu(gpu))
    assert (row.max_num_batched_tokens, row.max_num_seqs) == (tokens, seqs)


def test_engine_defaults_without_provenance_are_refused() -> None:
    entry = read_yaml(CATALOGUE / "engines" / "vllm-0.33.yaml")
    for key in ("kind", "source", "date", "memory"):
        with pytest.raises(InputError, match=key):
            read_engine({one: entry[one] for one in entry if one != key}, "engine.yaml")


def test_every_shipped_file_is_read() -> None:
    assert len(list_models()) >= 4
    assert {"a100-80gb-sxm", "h100-sxm", "h200-sxm", "rtx-4090"} <= set(list_gpus())
    for name in list_models():
        assert load_model(name).name == name
