"""What a deployment finds in a profile: its own rows, its neighbours', or a clear refusal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from simserve.errors import InputError
from simserve.inputs.deployment import Deployment, read_deployment
from simserve.inputs.hardware_profile import load_gpu
from simserve.inputs.quantization import FORMATS
from simserve.latency.load import load_latency_model
from simserve.latency.tables.table_model import TableModel
from simserve.records.step import PrefillChunk, StepShape
from tests.latency.tables.profiles import (
    H100,
    LLAMA_8B,
    LLAMA_70B,
    comm_rows,
    decode_rows,
    gemm_rows,
    prefill_rows,
    profile_of,
    roofline_profile,
    tables_of,
    write_profile,
)


def model_of(tables: Any, tp: int = 1, **more: Any) -> TableModel:
    return TableModel(profile_of(tables, **more), LLAMA_8B, H100, tp)


# --- by name and path ---


@pytest.fixture
def deployment() -> Deployment:
    return read_deployment({"model": "llama-3.1-8b", "gpu": "h100-sxm"})


def test_a_profile_is_loaded_by_its_path(tmp_path: Path, deployment: Deployment) -> None:
    folder = write_profile(tmp_path / "mine", tables_of(LLAMA_8B, 1))
    for path in (folder, folder / "profile.yaml"):
        latency = load_latency_model(replace(deployment, latency=str(path)))
        assert isinstance(latency, TableModel)
        assert latency.profile.name == "mine"


def test_a_path_without_a_profile_is_told(tmp_path: Path, deployment: Deployment) -> None:
    for path in (str(tmp_path), "/" + 5000 * "x"):
        with pytest.raises(InputError, match=r"latency: got .*: a folder with profile.yaml"):
            load_latency_model(replace(deployment, latency=path))


def test_a_profile_is_loaded_by_its_name(
    tmp_path: Path, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_profile(tmp_path / "h100-sxm" / "made-up-1", tables_of(LLAMA_8B, 1))
    monkeypatch.setattr("simserve.latency.tables.profile.data_dir", lambda name: tmp_path)
    assert isinstance(load_latency_model(replace(deployment, latency="made_up-1")), TableModel)
    with pytest.raises(InputError, match=r"latency: got made-up-2.*did you mean made-up-1"):
        load_latency_model(replace(deployment, latency="made-up-2"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"device": {"gpu": "a100-80gb-sxm"}}, "device.gpu: got a100-80gb-sxm, allowed: h100-sxm"),
        ({"model": "llama-3.1-70b"}, "model: got llama-3.1-70b, allowed: llama-3.1-8b"),
        ({"tp": 2}, "tp: got 2, allowed: 1"),
    ],
)
def test_a_profile_of_something_else_is_refused(more: dict[str, Any], message: str) -> None:
    profile = profile_of({"gemm": gemm_rows(LLAMA_8B, 1)}, **more)
    with pytest.raises(InputError, match=message):
        TableModel(profile, LLAMA_8B, H100, 1)


def test_a_profile_of_this_very_deployment_is_taken() -> None:
    tables = {"gemm": gemm_rows(LLAMA_8B, 1)}
    profile = profile_of(tables, model="meta-llama/Llama-3.1-8B", tp=1)
    assert "qkv" not in TableModel(profile, LLAMA_8B, H100, 1).missing


def test_a_dtype_that_the_table_has_not_is_refused_unless_allowed() -> None:
    fp8 = replace(LLAMA_8B, weights=FORMATS["fp8"])
    profile = roofline_profile("llama-3.1-8b", 1)
    with pytest.raises(InputError, match=r"gemm.csv: dtype: got fp8, allowed: bf16"):
        TableModel(profile, fp8, H100, 1)
    allowed = TableModel(profile, fp8, H100, 1, allow_extrapolation=True)
    assert "qkv" in allowed.missing
    small_kv = replace(LLAMA_8B, kv_bytes_per_value=1.0)
    with pytest.raises(InputError, match=r"attn_decode.csv: kv_dtype: got fp8, allowed: bf16"):
        TableModel(profile, small_kv, H100, 1)


def test_collectives_among_another_number_of_gpus_are_refused() -> None:
    tables = {"gemm": gemm_rows(LLAMA_8B, 2), "comm": comm_rows(4)}
    with pytest.raises(InputError, match=r"all_reduce, gpus: got 2, allowed: 4"):
        model_of(tables, tp=2)


# --- neighbours ---


def test_an_unmeasured_shape_takes_the_utilisation_of_its_neighbours() -> None:
    rows = [row for row in gemm_rows(LLAMA_8B, 1) if row["k"] != 14_336]
    whole = model_of({"gemm": gemm_rows(LLAMA_8B, 1)})
    lent = model_of({"gemm": rows})
    for tokens in (1, 8, 100, 1024):
        shape = StepShape(0, 0, (PrefillChunk(tokens, 0),))
        down = next(part for part in lent.parts(shape) if part.operator == "ffn_down")
        exact = next(part for part in whole.parts(shape) if part.operator == "ffn_down")
        assert down.source == "transfer"
        assert down.seconds == pytest.approx(exact.seconds, rel=0.06)


def test_a_shape_beyond_two_octaves_is_refused_unless_allowed() -> None:
    rows = [row for row in gemm_rows(LLAMA_8B, 1) if row["n"] != 128_256]
    profile = profile_of({"gemm": rows})
    with pytest.raises(InputError, match=r"n × k: got 128256 × 4096, .*28672 × 4096, is 2.2 away"):
        TableModel(profile, LLAMA_8B, H100, 1)
    assert TableModel(profile, LLAMA_8B, H100, 1, allow_extrapolation=True).missing


def test_unmeasured_heads_take_the_utilisation_of_the_nearest() -> None:
    tables = tables_of(LLAMA_8B, 1)
    tables["gemm"] = gemm_rows(LLAMA_8B, 2)
    lent = TableModel(profile_of(tables), LLAMA_8B, H100, 2)
    whole = TableModel(roofline_profile("llama-3.1-8b", 2), LLAMA_8B, H100, 2)
    chunks = (PrefillChunk(1000, 1000),)
    for name, shape in (
        ("attn_decode", StepShape(64, 64 * 3000)),
        ("attn_prefill", StepShape(0, 0, chunks)),
        ("attn_mixed", StepShape(64, 64 * 3000, chunks)),
    ):
        parts = {part.operator: part for part in lent.parts(shape)}
        exact = {part.operator: part for part in whole.parts(shape)}
        assert parts[name].source == "transfer"
        assert parts[name].seconds == pytest.approx(exact[name].seconds, rel=1e-6)


def test_heads_of_another_size_are_refused() -> None:
    other = [dict(row, d=64) for row in decode_rows(LLAMA_8B, 1)]
    with pytest.raises(InputError, match=r"attn_decode.csv: d: got 128, allowed: 64"):
        model_of({"attn_decode": other})


# --- kinds of rows ---


def decode_s(latency: TableModel, batch: int, context: int = 1024) -> float:
    parts = latency.parts(StepShape(batch, batch * context))
    return sum(part.seconds for part in parts if part.operator == "attn_decode")


def test_regimes_change_at_the_padded_batch_and_are_never_mixed() -> None:
    slow = decode_rows(LLAMA_8B, 1, floor_s=1e-3, regime="unsplit")
    rows = [row for row in decode_rows(LLAMA_8B, 1, regime="split") if row["batch"] <= 16]
    rows += [row for row in slow if row["batch"] >= 16]
    latency = model_of({"attn_decode": rows}, device={"gpu": "h100-sxm", "sms": 132})
    plain = model_of({"attn_decode": decode_rows(LLAMA_8B, 1)})
    # 0.8 · 2 · 132 = 211.2 blocks of 8 KV heads: split up to 26 sequences.
    for batch in (1, 16, 20, 26):
        assert decode_s(latency, batch) == pytest.approx(decode_s(plain, batch), rel=1e-9)
    for batch in (27, 30, 64):
        assert decode_s(latency, batch) == pytest.approx(32e-3 + decode_s(plain, batch), rel=1e-9)


def test_a_regime_without_rows_is_left_to_the_roofline() -> None:
    rows = decode_rows(LLAMA_8B, 1, regime="split", floor_s=1e-3)
    latency = model_of({"attn_decode": rows})
    sources = {
        batch: [part.source for part in latency.parts(StepShape(batch, batch * 1024))
                if part.operator == "attn_decode"]
        for batch in (16, 32)
    }  # fmt: skip
    assert sources == {16: ["exact"], 32: ["roofline"]}


def test_regimes_need_the_number_of_multiprocessors() -> None:
    rows = decode_rows(LLAMA_8B, 1, regime="split")
    with pytest.raises(InputError, match=r"device.sms: got nothing"):
        model_of({"attn_decode": rows}, device={"gpu": "h100-sxm"})


def test_unaligned_rows_are_priced_from_their_own_curve() -> None:
    aligned = [dict(row, aligned=1) for row in gemm_rows(LLAMA_8B, 1) if row["m"] % 16 == 0]
    rough = [
        dict(row, aligned=0, us_p50=1.5 * float(row["us_p50"]))
        for row in gemm_rows(LLAMA_8B, 1, sizes=(17, 129, 1025))
    ]
    latency, smooth = model_of({"gemm": aligned + rough}), model_of({"gemm": aligned})

    def head_s(model: TableModel, rows: int) -> float:
        return model._operators.by_seqs[0][1](rows).seconds

    for rows in (16, 32, 144, 1024):
        assert head_s(latency, rows) == head_s(smooth, rows)
    for rows in (17, 60, 129, 1000, 5001):
        assert head_s(latency, rows) == pytest.approx(1.5 * head_s(smooth, rows), rel=0.07)


def test_two_backends_for_one_point_need_a_choice() -> None:
    rows = [dict(row, backend="a") for row in gemm_rows(LLAMA_8B, 1)]
    slow = [dict(row, backend="b", us_p50=2 * float(row["us_p50"])) for row in rows]
    with pytest.raises(InputError, match="backend: got a and b for one point"):
        model_of({"gemm": rows + slow})
    a, b = (model_of({"gemm": rows + slow}, use={"gemm": one}) for one in "ab")
    shape = StepShape(0, 0, (PrefillChunk(512, 0),))
    assert a.gpu_s(shape) < b.gpu_s(shape)
    with pytest.raises(InputError, match=r"use.gemm: got c, allowed: a, b"):
        model_of({"gemm": rows + slow}, use={"gemm": "c"})


def test_the_quickest_collective_inside_a_graph_is_taken() -> None:
    graph = comm_rows(2)
    eager = [dict(row, graph=0, us_p50=100 * float(row["us_p50"])) for row in graph]
    nccl = [dict(row, impl="nccl", graph=0, us_p50=3 * float(row["us_p50"])) for row in graph]
    tables = {"gemm": gemm_rows(LLAMA_8B, 2)}
    both = model_of(tables | {"comm": graph + eager + nccl}, tp=2)
    alone = model_of(tables | {"comm": graph}, tp=2)
    shape = StepShape(64, 64_000)
    assert both.gpu_s(shape) == pytest.approx(alone.gpu_s(shape), rel=1e-12)


def test_elementwise_kernels_replace_the_roofline_s_overhead() -> None:
    widths = {"norm": 4096, "rope_store": 6144, "act": 14_336, "embed": 4096, "sample": 128_256}
    rows = [
        {"op": op, "tokens": tokens, "width": width, "dtype": "bf16", "us_p50": 5 + tokens / 10}
        for op, width in widths.items()
        for tokens in (1, 16, 256, 4096)
    ]
    latency = model_of({"pointwise": rows})
    seconds = {part.operator: part.seconds for part in latency.parts(StepShape(16, 1600))}
    assert seconds["norm"] == pytest.approx(65 * 6.6e-6)
    assert seconds["act"] == pytest.approx(32 * 6.6e-6)
    assert seconds["sample"] == pytest.approx(6.6e-6)
    assert not {"norm", "act", "embed", "sample"} & set(latency.missing)
    assert "pointwise" not in str(latency.missing)


def test_rows_of_several_requests_and_uneven_batches_are_left_aside() -> None:
    uneven = [dict(row, shape="bimodal", us_p50=9e9) for row in decode_rows(LLAMA_8B, 1)]
    even = [dict(row, shape="uniform") for row in decode_rows(LLAMA_8B, 1)]
    many = [dict(row, n_req=4, us_p50=9e9) for row in prefill_rows(LLAMA_8B, 1)]
    one = [dict(row, n_req=1) for row in prefill_rows(LLAMA_8B, 1)]
    mixed = model_of({"attn_decode": even + uneven, "attn_prefill": one + many})
    plain = model_of({"attn_decode": even, "attn_prefill": one})
    shape = StepShape(64, 64_000, (PrefillChunk(512, 0),))
    assert mixed.step_s(shape) == plain.step_s(shape)


def test_another_gpu_than_the_profile_s_is_refused() -> None:
    with pytest.raises(InputError, match=r"device\.gpu: got h100-sxm, allowed: h200-sxm"):
        TableModel(roofline_profile("llama-3.1-70b", 4), LLAMA_70B, load_gpu("h200-sxm"), 4)


def test_rows_quicker_than_the_datasheet_are_raised_to_it_with_a_warning() -> None:
    rows = decode_rows(LLAMA_8B, 1)
    latency = model_of({"attn_decode": [dict(row, us_p50=1e-3) for row in rows[:4]] + rows[4:]})
    assert latency.warnings[0].startswith("attn_decode.csv: ")
    assert decode_s(latency, 1, 128) == pytest.approx(128 * 131_072 / 3.35e12)
    assert model_of({"attn_decode": decode_rows(LLAMA_8B, 1)}).warnings == ()
