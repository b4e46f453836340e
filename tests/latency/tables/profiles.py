"""Writes small profiles for tests: made from the roofline or from noise, never called measured."""

from __future__ import annotations

import csv
import functools
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simserve.inputs.hardware_profile import GpuSpec, load_gpu
from simserve.inputs.model_catalogue import load_model
from simserve.inputs.model_matrices import Matrix, layer_matrices, padded_vocab
from simserve.inputs.model_spec import ModelSpec
from simserve.latency.roofline_attention import attention_costs
from simserve.latency.roofline_gemm import gemm
from simserve.latency.tables.profile import Profile, read_profile
from simserve.latency.tables.table_model import TableModel

H100, LLAMA_8B, LLAMA_70B = (
    load_gpu("h100-sxm"),
    load_model("llama-3.1-8b"),
    load_model("llama-3.1-70b"),
)
GEMM_ROWS = [1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 320, 384, 512, 1024, 2048, 4096, 8192]
BATCHES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
CONTEXTS = [128 << shift for shift in range(11)]
MOST_DECODE_TOKENS = 1 << 20
NEWS = [16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192]
PASTS = [0, 1024, 4096, 16_384, 65_536]
MIXED_BATCHES, MIXED_CONTEXTS = [1, 16, 256], [128, 4096, 131_072]
DATE = "2026-11-20"

Row = Mapping[str, Any]
Noise = Callable[[], float]


def head(gpu: GpuSpec = H100, **more: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "kind": "assumed",
        "source": "made up for a test",
        "date": DATE,
        "device": {"gpu": gpu.name, "sms": 132},
        **more,
    }


def sourced(value: object) -> dict[str, object]:
    return {"value": value, "kind": "assumed", "source": "made up for a test", "date": DATE}


def write_profile(
    folder: Path,
    tables: Mapping[str, Sequence[Row]],
    host: Mapping[str, Any] | None = None,
    **more: Any,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    counts = {name: len(rows) for name, rows in tables.items()}
    document = head(**{"tables": counts, **more})
    (folder / "profile.yaml").write_text(json.dumps(document), encoding="utf-8")
    if host is not None:
        (folder / "host.yaml").write_text(json.dumps(host), encoding="utf-8")
    for name, rows in tables.items():
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return folder


def profile_of(
    tables: Mapping[str, Sequence[Row]], host: Mapping[str, Any] | None = None, **more: Any
) -> Profile:
    with tempfile.TemporaryDirectory() as folder:
        return read_profile(write_profile(Path(folder) / "made-up", tables, host, **more))


def us(seconds: float, noise: Noise | None = None) -> str:
    return repr(seconds * 1e6 * (noise() if noise else 1.0))


def gemm_rows(
    model: ModelSpec, tp: int, noise: Noise | None = None, sizes: Iterable[int] = GEMM_ROWS
) -> list[Row]:
    head_rows = -(-padded_vocab(model) // tp)
    shapes = {(one.outputs, one.inputs) for one in layer_matrices(model, tp)}
    rows: list[Row] = []
    for n, k in sorted({*shapes, (head_rows, model.hidden_size)}):
        seconds = gemm(Matrix("head", "one", n, k, 1), model, H100)
        rows += [
            {"dtype": "bf16", "m": m, "n": n, "k": k, "us_p50": us(seconds(m), noise)}
            for m in sizes
        ]
    return rows


def heads(model: ModelSpec, tp: int) -> dict[str, Any]:
    keys = max(1, model.kv_heads // tp)
    return {"kv_dtype": "bf16", "hq": model.attention_heads // tp, "hkv": keys, "d": 128}


def decode_rows(
    model: ModelSpec, tp: int, noise: Noise | None = None, floor_s: float = 0.0, **more: Any
) -> list[Row]:
    context_s = attention_costs(model, H100, tp)[0].context_s / model.layers
    return [
        {
            **heads(model, tp),
            "batch": batch,
            "ctx": ctx,
            **more,
            "us_p50": us(floor_s + batch * ctx * context_s, noise),
        }
        for batch in BATCHES
        for ctx in CONTEXTS
        if batch * ctx <= MOST_DECODE_TOKENS
    ]


def prefill_rows(model: ModelSpec, tp: int, noise: Noise | None = None) -> list[Row]:
    cost = attention_costs(model, H100, tp)[0]
    return [
        {
            **heads(model, tp),
            "q": q,
            "past": past,
            "us_p50": us(cost.chunk_s(q, past) / model.layers, noise),
        }
        for q in NEWS
        for past in PASTS
    ]


def mixed_rows(model: ModelSpec, tp: int, noise: Noise | None = None, **more: Any) -> list[Row]:
    cost = attention_costs(model, H100, tp)[0]
    return [
        {
            **heads(model, tp),
            "q": q,
            "past": past,
            "n_dec": batch,
            "ctx": ctx,
            **more,
            "us_p50": us(
                (cost.chunk_s(q, past) + batch * ctx * cost.context_s) / model.layers, noise
            ),
        }
        for q in NEWS
        for past in PASTS
        for batch in MIXED_BATCHES
        for ctx in MIXED_CONTEXTS
    ]


def comm_rows(tp: int, noise: Noise | None = None) -> list[Row]:
    share = {name: one.value for name, one in H100.efficiency.items()}
    rate = H100.link_bytes_per_s * share["link_efficiency"]
    rows: list[Row] = []
    for op, passes in (("all_reduce", 2), ("all_gather", 1)):
        for size in [1 << shift for shift in range(10, 29)]:
            seconds = share["collective_latency_s"] + size * passes * (tp - 1) / tp / rate
            rows.append(
                {"op": op, "impl": "ring", "gpus": tp, "bytes": size, "graph": 1}
                | {"us_p50": us(seconds, noise)}
            )
    return rows


def tables_of(model: ModelSpec, tp: int, noise: Noise | None = None) -> dict[str, list[Row]]:
    tables = {
        "gemm": gemm_rows(model, tp, noise),
        "attn_decode": decode_rows(model, tp, noise),
        "attn_prefill": prefill_rows(model, tp, noise),
        "attn_mixed": mixed_rows(model, tp, noise),
    }
    if tp > 1:
        tables["comm"] = comm_rows(tp, noise)
    return tables


HOST = {
    "host_step": sourced("150us"),
    "host_per_seq": sourced("4us"),
    "host_per_prefill_token": sourced("10ns"),
    "launch_graph": sourced("40us"),
    "launch_kernel": sourced("5us"),
    "kernels_per_layer": sourced(10),
    "copy_out": sourced("20us"),
    "bubble": sourced("60us"),
    "decode_graph_sizes": sourced([1, 2, 4, *range(8, 257, 8)]),
}


@functools.cache
def roofline_profile(model_name: str, tp: int) -> Profile:
    return profile_of(tables_of(load_model(model_name), tp))


@functools.cache
def noisy_model(seed: int, tp: int = 1, ahead: bool = True) -> TableModel:
    """Return a model of Llama-3.1-8B from a roofline with 25 % noise, host time included."""
    random = np.random.Generator(np.random.PCG64(seed))
    tables = tables_of(LLAMA_8B, tp, lambda: float(random.lognormal(0.3, 0.25)))
    return TableModel(profile_of(tables, HOST), LLAMA_8B, H100, tp, async_scheduling=ahead)
