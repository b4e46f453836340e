"""Slices of kernel tables: right shapes, right units, and every gap named."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from simserve.cli import app
from simserve.errors import InputError
from simserve.inputs.hardware_profile import load_gpu
from simserve.inputs.model_catalogue import load_model
from simserve.latency.importers.aiconfigurator import SliceRequest, around, build_profile
from simserve.latency.importers.kernel_package import (
    KernelPackage,
    find_package,
    installed_package,
)
from simserve.latency.importers.latent_modules import CHUNKS, DECODES
from simserve.latency.tables.profile import Profile, read_profile
from simserve.latency.tables.table_model import TableModel
from simserve.records.step import PrefillChunk, StepShape
from tests.latency.importers.kernel_tables import (
    DATA,
    attention_rows,
    gemm_ms,
    latent_rows,
    small_package,
    write,
)

GPU, MODEL = load_gpu("h100-sxm"), load_model("llama-3.1-8b")
DATE = "2026-11-20"


def wanted(tp: int = 1, model: str = "llama-3.1-8b", engine: str = "vllm") -> SliceRequest:
    return SliceRequest(gpu=GPU, model=load_model(model), tp=tp, engine=engine)


@pytest.fixture
def package(tmp_path: Path) -> KernelPackage:
    return small_package(tmp_path / "package")


def built(package: KernelPackage, request: SliceRequest, folder: Path) -> tuple[Profile, list[str]]:
    report = build_profile(package, request, folder, DATE)
    return read_profile(folder), report.missing


def test_milliseconds_become_microseconds(package: KernelPackage, tmp_path: Path) -> None:
    profile, _ = built(package, wanted(), tmp_path / "out")
    for row in profile.tables["gemm"].rows:
        m, n, k = (row.number(key) for key in ("m", "n", "k"))
        assert row.seconds == pytest.approx(gemm_ms(m, n, k) * 1e-3, abs=1e-9)


def test_shapes_on_the_grid_stand_alone_and_others_have_neighbours(
    package: KernelPackage, tmp_path: Path
) -> None:
    profile, missing = built(package, wanted(), tmp_path / "out")
    shapes = {(row.number("n"), row.number("k")) for row in profile.tables["gemm"].rows}
    assert {(6144, 4096), (4096, 4096)} <= shapes  # qkv and o
    assert {n for n, k in shapes if k == 4096} == {4096, 6144, 8192, 16384, 65536}  # ffn_up: 28672
    assert {k for n, k in shapes if n == 4096} == {4096, 6144, 8192, 16384, 65536}  # down: 14336
    assert "gemm bf16 lm_head 128256x4096: beyond the grid, nearest shapes kept" in missing


def test_around_a_size_stand_two_on_either_side_at_most() -> None:
    grid = [1, 2, 4, 8, 16]
    assert around(grid, 4) == [4]
    assert around(grid, 5) == [2, 4, 8, 16]
    assert around(grid, 100) == [8, 16]


def test_rows_that_waste_padding_are_marked(package: KernelPackage, tmp_path: Path) -> None:
    profile, _ = built(package, wanted(), tmp_path / "out")
    marks = {row.number("m"): row.number("aligned") for row in profile.tables["gemm"].rows}
    assert marks == {1: 1, 16: 1, 17: 0, 256: 1}


def test_a_decode_attends_to_its_history_and_its_own_token(
    package: KernelPackage, tmp_path: Path
) -> None:
    profile, _ = built(package, wanted(), tmp_path / "out")
    rows = profile.tables["attn_decode"].rows
    assert {row.number("ctx") for row in rows} == {2, 128, 1024}
    assert all(row.number("sum_ctx") == row.number("batch") * row.number("ctx") for row in rows)
    assert {row.keys["kv_dtype"] for row in rows} == {"bf16", "fp8"}
    assert len(rows) == 2 * 2 * 3  # dtypes, batches, contexts: none with a window


def test_messages_are_counted_in_bytes_and_only_among_the_gpus_asked_for(
    package: KernelPackage, tmp_path: Path
) -> None:
    profile, _ = built(package, wanted(tp=2), tmp_path / "out")
    found = {
        tuple(row.keys[key] for key in ("impl", "gpus", "bytes", "graph"))
        for row in profile.tables["comm"].rows
    }
    assert found == {("custom", 2, 2048, 1), ("custom", 2, 2048, 0), ("nccl", 2, 1024, 0)}


def test_the_newest_version_is_taken_and_never_mixed(
    package: KernelPackage, tmp_path: Path
) -> None:
    profile, _ = built(package, wanted(), tmp_path / "out")
    kernels = profile.facts["software"]["kernels"]
    assert profile.facts["software"]["engine_version"] == "0.24.0"
    assert {one["version"] for one in kernels} == {"0.24.0"}
    assert kernels[0]["name"] == "h100_sxm/gemm/vllm/0.24.0/gemm_perf.parquet"
    assert "Apache-2.0" in profile.facts["licence_notes"][0]

    shutil.rmtree(package.root / DATA / "h100_sxm/attention/vllm/0.24.0")
    old = attention_rows((32, 8), "step", (1, 127))
    write(package.root, "h100_sxm/attention/vllm/0.9.0/generation_attention", old)
    profile, missing = built(package, wanted(), tmp_path / "without")
    assert set(profile.tables) == {"gemm"}
    assert "generation_attention: no table of vllm 0.24.0 on h100-sxm" in missing


def test_heads_that_were_not_measured_get_the_nearest_and_say_so(
    package: KernelPackage, tmp_path: Path
) -> None:
    profile, missing = built(package, wanted(model="qwen2.5-7b"), tmp_path / "out")
    assert {row.number("hq") for row in profile.tables["attn_decode"].rows} == {32}
    assert "attn_decode 28/4x128: not in the table, nearest 32/8x128 kept" in missing


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("deepseek-v3", "mla_context_module: no table of vllm 0.24.0 on h100-sxm"),
        ("deepseek-v3", "gemm fp8-block: timed at the pace of its launches; fp8 stands in"),
        ("deepseek-v3.2", "mla: sparse attention: its modules are not read"),
        ("mixtral-8x7b", "moe: no table of vllm 0.24.0 on h100-sxm"),
        ("gemma-2-9b", "attn_decode: no heads of 256 in the table"),
    ],
)
def test_what_is_not_read_is_named(
    package: KernelPackage, tmp_path: Path, model: str, said: str
) -> None:
    _, missing = built(package, wanted(model=model), tmp_path / "out")
    assert said in missing


def test_latent_attention_and_its_matrices_add_up_to_the_measured_module(
    package: KernelPackage, tmp_path: Path
) -> None:
    chunks = {(1, 16, 0): 5.0, (1, 256, 0): 9.0, (4, 256, 0): 30.0, (1, 1, 0): 1e-4}
    decodes = {(16, 1, past): 5.0 + past / 1000 for past in (127, 1023)}
    where = "h100_sxm/mla/vllm/0.24.0"
    write(package.root, f"{where}/{CHUNKS}", latent_rows(CHUNKS, chunks))
    write(package.root, f"{where}/{DECODES}", latent_rows(DECODES, decodes))
    profile, _ = built(package, wanted(tp=8, model="deepseek-v3"), tmp_path / "out")
    rows = profile.tables["mla"].rows
    assert {row.keys["form"] for row in rows} == {"layer"}
    assert (1, 1) not in {(row.number("batch"), row.number("q")) for row in rows}  # matrices alone
    model = TableModel(profile, load_model("deepseek-v3"), GPU, 8, allow_extrapolation=True)
    for step, module_ms in (
        (StepShape(0, 0, (PrefillChunk(256, 0),)), 9.0),
        (StepShape(16, 16 * 128), 5.127),
    ):
        inside = {"q_b", "kv_a", "kv_b", "o", "rope_store", "attn_decode", "attn_prefill"}
        parts = [part for part in model.parts(step) if part.operator in inside]
        total_s = sum(part.seconds for part in parts)
        assert total_s == pytest.approx(61 * module_ms * 1e-3, rel=1e-3)


def test_a_built_profile_prices_steps_that_grow_with_their_work(
    package: KernelPackage, tmp_path: Path
) -> None:
    profile, _ = built(package, wanted(tp=2), tmp_path / "tp2")
    with pytest.raises(InputError, match="tp"):
        TableModel(profile, MODEL, GPU, 1)
    profile, _ = built(package, wanted(), tmp_path / "tp1")
    model = TableModel(profile, MODEL, GPU, 1)
    steps = [
        StepShape(1, 100),
        StepShape(4, 400),
        StepShape(4, 4000),
        StepShape(4, 4000, (PrefillChunk(256, 0),)),
        StepShape(4, 4000, (PrefillChunk(2048, 0),)),
    ]
    times = [model.step_s(step) for step in steps]
    assert times == sorted(times) and times[0] > 0


def test_the_same_package_gives_the_same_bytes(package: KernelPackage, tmp_path: Path) -> None:
    for name in ("one", "other"):
        build_profile(package, wanted(), tmp_path / name, DATE)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()


def test_unknown_gpus_and_engines_are_told_what_there_is(
    package: KernelPackage, tmp_path: Path
) -> None:
    other = dataclasses.replace(wanted(), gpu=load_gpu("rtx-4090"))
    with pytest.raises(InputError, match=r"gpu: got rtx-4090, allowed: h100-sxm"):
        build_profile(package, other, tmp_path / "out", DATE)
    with pytest.raises(InputError, match="h100-sxm, sglang: got no table"):
        build_profile(package, wanted(engine="sglang"), tmp_path / "out", DATE)


def test_without_the_package_one_line_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert find_package() is None
    with pytest.raises(InputError, match=r"pip install 'simserve\[kernels\]'"):
        installed_package()
    words = "profile build --gpu h100-sxm --model llama-3.1-8b"
    done = CliRunner().invoke(app, words.split())
    assert done.exit_code == 2
    assert done.stdout == "" and done.stderr.count("\n") == 1
    assert "pip install 'simserve[kernels]'" in done.stderr


@pytest.mark.skipif(find_package() is None, reason="aiconfigurator-core is not installed")
def test_the_installed_package_has_the_tables_of_an_8b_model_on_h100(tmp_path: Path) -> None:
    profile, _ = built(installed_package(), wanted(), tmp_path / "out")
    assert {"gemm", "attn_decode", "attn_prefill"} <= set(profile.tables)
    model = TableModel(profile, MODEL, GPU, 1)
    # 16 GB of weights at 3.35 TB/s are 4.8 ms; a step takes that at least, and not twice that.
    assert 4.8e-3 < model.step_s(StepShape(1, 1000)) < 9.6e-3
