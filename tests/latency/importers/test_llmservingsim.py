"""Layer profiles become rows of our tables: shapes from the model, times per call."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from simserve.errors import InputError
from simserve.latency.importers.llmservingsim import import_profile
from simserve.latency.tables.csv_file import Row
from simserve.latency.tables.profile import Profile, read_profile

META = """\
profiler_version: 1.0.0
vllm_version: 0.19.0
gpu: NVIDIA GeForce RTX 4090
hardware: RTX4090
model: meta-llama/Llama-3.1-8B
measurement_iterations: 3
engine_effective: {block_size: 16}
"""
FILES = {
    "dense": "layer,tokens,time_us\nqkv_proj,8,60.5\no_proj,8,40\ngate_up_proj,8,280\n"
    "down_proj,8,140\nlayernorm,8,2.5\nact_fn,8,3\n",
    "per_sequence": "layer,sequences,time_us\nlm_head,4,1100\nsampler,4,30\n",
    "attention": "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n"
    "0,0,4,100,20\n256,512,0,0,50\n256,512,4,100,90\n",
    "skew": "regime,n,nb,ratio,skew,pc,kp,kvs,kv_big,kv_mean,t_mean_us,t_max_us,t_skew_us,alpha\n"
    "pure,4,1,0.25,4.0,0,0,100,500,200,90,120,99,0.3\n",
}


def source(folder: Path, meta: str = META, **files: str) -> Path:
    """Write a profile of one table each, changed by ``files``; "" leaves a table out."""
    tables = folder / "tp1"
    tables.mkdir(parents=True)
    (folder / "meta.yaml").write_text(meta)
    for name, text in (FILES | files).items():
        if text and name == "dense":  # one of them as it is published
            (tables / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))
        elif text:
            (tables / f"{name}.csv").write_text(text)
    return folder


def imported(tmp_path: Path) -> Profile:
    import_profile(source(tmp_path / "in"), tmp_path / "out", "2026-11-20")
    return read_profile(tmp_path / "out")


def us(row: Row) -> float:
    return round(row.seconds * 1e6, 3)


def test_matrices_have_the_shapes_of_the_model(tmp_path: Path) -> None:
    rows = imported(tmp_path).tables["gemm"].rows
    assert {(row.number("n"), row.number("k")): (row.number("m"), us(row)) for row in rows} == {
        (6144, 4096): (8, 60.5),
        (4096, 4096): (8, 40.0),
        (28672, 4096): (8, 280.0),
        (4096, 14336): (8, 140.0),
        (128256, 4096): (4, 1100.0),
    }


def test_a_decode_attends_to_its_history_and_its_own_token(tmp_path: Path) -> None:
    uniform = imported(tmp_path).tables["attn_decode"].rows[0]
    assert uniform.keys["shape"] == "uniform"
    assert [uniform.number(key) for key in ("batch", "ctx", "sum_ctx", "max_ctx")] == [
        4, 101, 404, 101
    ]  # fmt: skip


def test_uneven_decodes_are_divided_by_the_repetitions(tmp_path: Path) -> None:
    uneven = imported(tmp_path).tables["attn_decode"].rows[1]
    assert uneven.keys["shape"] == "bimodal"
    assert us(uneven) == 33.0
    assert [uneven.number(key) for key in ("batch", "sum_ctx", "max_ctx")] == [4, 804, 501]
    # contexts 501, 101, 101, 101: variance (300² + 3·100²) / 4 around 201
    assert float(uneven.keys["cv"]) == pytest.approx(30_000**0.5 / 201, abs=1e-4)


def test_chunks_alone_and_with_decodes_are_kept_apart(tmp_path: Path) -> None:
    tables = imported(tmp_path).tables
    (alone,), (mixed,) = tables["attn_prefill"].rows, tables["attn_mixed"].rows
    assert [alone.number(key) for key in ("n_req", "q", "past")] == [1, 256, 512]
    assert [mixed.number(key) for key in ("q", "past", "n_dec", "ctx")] == [256, 512, 4, 101]
    assert (us(alone), us(mixed)) == (50.0, 90.0)


def test_the_head_names_gpu_engine_files_and_licence(tmp_path: Path) -> None:
    profile = imported(tmp_path)
    assert (profile.gpu, profile.model, profile.tp) == ("rtx-4090", "llama-3.1-8b", 1)
    assert profile.provenance.source == "LLMServingSim's layer profiler 1.0.0, vllm 0.19.0"
    kernels = profile.facts["software"]["kernels"]
    assert next(one["name"] for one in kernels) == "dense.csv.gz"
    assert all(len(one["sha256"]) == 64 for one in kernels)
    assert "MIT" in profile.facts["licence_notes"][0]


def test_decodes_have_a_regime_alone_and_none_beside_a_chunk(tmp_path: Path) -> None:
    tables = imported(tmp_path).tables
    assert {row.text("regime") for row in tables["attn_decode"].rows} == {"split"}
    assert {row.text("regime") for row in tables["attn_mixed"].rows} == {""}


def test_what_was_not_measured_is_named(tmp_path: Path) -> None:
    report = import_profile(source(tmp_path / "in", skew=""), tmp_path / "out", "2026-11-20")
    assert any(one.startswith("skew: ") for one in report.missing)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"dense": ""}, r"tp1: dense.csv: got no such file"),
        ({"dense": "layer,time_us\nqkv_proj,1\n"}, r"dense.csv.gz: tokens: got no such column"),
        ({"dense": "layer,tokens,time_us\nmixer,8,2\n"}, r"line 2: layer: got mixer"),
        ({"dense": "layer,tokens,time_us\nqkv_proj,8,-2\n"}, r"line 2: time_us: got -2"),
        ({"dense": "layer,tokens,time_us\nqkv_proj,8.5,2\n"}, r"line 2: tokens: got 8.5"),
        ({"per_sequence": "layer,sequences,time_us\nlm_head,4,nan\n"}, r"time_us: got nan"),
        ({"meta": "model: 3\n"}, r"meta.yaml: model: got 3"),
        ({"meta": META.replace("RTX4090", "RTX9999")}, r"hardware: got rtx9999"),
        ({"meta": META.replace("iterations: 3", "iterations: 0")}, r"iterations: got 0"),
    ],
)
def test_what_is_wrong_is_told_by_file_and_line(
    tmp_path: Path, files: dict[str, str], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        import_profile(source(tmp_path / "in", **files), tmp_path / "out", "2026-11-20")


def test_a_size_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--tp: got 4, allowed: 1"):
        import_profile(source(tmp_path / "in"), tmp_path / "out", "2026-11-20", tp=4)
