"""Layer profiles of LLMServingSim (MIT, CASYS Lab at KAIST) as table folders of ours.

A row of the profiler is a row of ours; shapes come from the model that it ran. The times of
``skew`` are sums over the profiler's repetitions and are divided by them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simserve.errors import InputError
from simserve.inputs.model_matrices import layer_matrices, padded_vocab
from simserve.latency.importers.aiconfigurator import ImportReport
from simserve.latency.importers.host_preset import host_terms
from simserve.latency.importers.layer_profile import (
    COLUMNS,
    LayerProfile,
    count_in,
    read_layer_profile,
    repeats_of,
    rows_of,
    us_in,
)
from simserve.latency.importers.regimes import flash_attention_2, multiprocessors
from simserve.latency.importers.table_folder import Row, sha256_of, write_folder
from simserve.latency.tables.attention_rows import SPLIT
from simserve.latency.tables.schema import is_aligned
from simserve.latency.tables.waves_fit import UnevenCall, fit_waves
from simserve.records.step import PrefillChunk

LICENCE = "LLMServingSim: MIT, CASYS Lab at KAIST"
_MATRICES = {"qkv_proj": "qkv", "o_proj": "o", "gate_up_proj": "ffn_up", "down_proj": "ffn_down"}
# The profiler's names of layers that are no matrix, and ours. Storing K and V is a part of its
# attention, so its rotary embedding is all that is left of ``rope_store``.
_POINTWISE = {
    "embedding": "embed",
    "layernorm": "norm",
    "final_layernorm": "final_norm",
    "qk_norm": "qk_norm",
    "rotary_emb": "rope_store",
    "act_fn": "act",
    "sampler": "sample",
}
# Hopper runs FlashAttention-3, datacentre Blackwell FlashInfer or FlashAttention-4.
_NOT_FLASH_ATTENTION_2 = ("h100", "h200", "gh200", "b200", "b300", "gb200", "gb300")
_STATISTIC = "us_p50 holds the publisher's mean over its repetitions; no spread is published"


@dataclass(frozen=True, slots=True)
class Collectives:
    """Rows of ``comm``, and who measured them."""

    rows: Sequence[Row]
    source: str


def import_profile(
    source: Path,
    folder: Path,
    date: str,
    *,
    tp: int | None = None,
    gpu: str | None = None,
    collectives: Collectives | None = None,
) -> ImportReport:
    """Write the profile in ``source`` into ``folder``; ``date`` is when (ISO).

    ``collectives`` are measurements of somebody else, which the profiler does not make.

    Raises:
        InputError: if ``source`` is no such profile, or lacks ``tp`` (its only one if None).
    """
    profile = read_layer_profile(source, tp, gpu)
    report = ImportReport(folder)
    tables: dict[str, list[Row]] = {"gemm": [], "pointwise": []}
    for row in (*_dense_rows(profile), *_per_sequence_rows(profile)):
        tables["gemm" if "m" in row else "pointwise"].append(row)
    tables |= {"attn_decode": [], "attn_prefill": [], "attn_mixed": []}
    for row in (*_attention_rows(profile), *_skew_rows(profile)):
        tables[_attention_table(row)].append(row)
    if profile.table("skew") is None:
        report.missing.append("skew: uneven decodes were not measured")
    if profile.tp > 1 and collectives is None:
        report.missing.append(f"comm: the all-reduce among {profile.tp} GPUs was not measured")
    report.missing.append("step: no whole steps, and no CUDA graphs, were measured")
    report.missing.append("host: published figures stand in, see host.yaml")
    head = _described(profile, report, date)
    waves = _waves(profile, date)
    if waves:
        head["waves"] = waves
    if collectives is not None:
        tables["comm"] = list(collectives.rows)
        head["provenance"] = {
            "comm": {"kind": "imported", "source": collectives.source, "date": date}
        }
    report.rows = write_folder(folder, head, tables, host_terms(profile.gpu, date))
    return report


def _dense_rows(profile: LayerProfile) -> Iterator[Row]:
    model, tp = profile.model, profile.tp
    shapes = {one.name: (one.outputs, one.inputs) for one in layer_matrices(model, tp)}
    for row, where in rows_of(profile, "dense"):
        layer, tokens = row["layer"], count_in(row, "tokens", where)
        if layer in _MATRICES and _MATRICES[layer] in shapes:
            yield _gemm_row(shapes[_MATRICES[layer]], tokens, us_in(row, "time_us", where))
        elif layer in _POINTWISE:
            yield _pointwise_row(profile, layer, tokens, us_in(row, "time_us", where))
        else:
            allowed = ", ".join((*_MATRICES, *_POINTWISE))
            raise InputError(where, "layer", layer, f"{allowed}, of {model.name}")


def _per_sequence_rows(profile: LayerProfile) -> Iterator[Row]:
    model, tp = profile.model, profile.tp
    head = (-(-padded_vocab(model) // tp), model.hidden_size)
    for row, where in rows_of(profile, "per_sequence"):
        layer, sequences = row["layer"], count_in(row, "sequences", where)
        time_us = us_in(row, "time_us", where)
        if layer == "lm_head":
            yield _gemm_row(head, sequences, time_us)
        elif layer in _POINTWISE:
            yield _pointwise_row(profile, layer, sequences, time_us)
        else:
            raise InputError(where, "layer", layer, "lm_head, sampler")


def _attention_rows(profile: LayerProfile) -> Iterator[Row]:
    heads = _heads(profile)
    for row, where in rows_of(profile, "attention"):
        new, past, decodes, history = (
            count_in(row, key, where, 0) for key in COLUMNS["attention"][:-1]
        )
        time = _time(us_in(row, "time_us", where))
        if decodes:
            regime = {"regime": _regime(profile, decodes, new)}
            yield heads | regime | _decodes([history] * decodes, "uniform", new, past) | time
        elif new:
            yield {**heads, "n_req": 1, "q": new, "past": past, **time}


def _skew_rows(profile: LayerProfile) -> Iterator[Row]:
    if profile.table("skew") is None:
        return
    heads, repeats = _heads(profile), repeats_of(profile)
    for row, where in rows_of(profile, "skew"):
        histories, new, past = _histories(row, where)
        time = _time(us_in(row, "t_skew_us", where) / repeats)
        regime = {"regime": _regime(profile, len(histories), new)}
        yield heads | regime | _decodes(histories, "bimodal", new, past) | time


def _waves(profile: LayerProfile, date: str) -> dict[str, Any]:
    """Return what uneven decodes cost over even ones, where each block serves one head.

    The profiler timed every uneven call beside the even one of the same sum.
    """
    sms = multiprocessors(profile.gpu.name)
    if profile.table("skew") is None or sms is None or _is_balanced(profile):
        return {}
    calls: dict[str, list[UnevenCall]] = {"decode": [], "mixed": []}
    for row, where in rows_of(profile, "skew"):
        if "t_mean_us" not in row:
            return {}
        histories, new, past = _histories(row, where)
        regime = _regime(profile, len(histories), new)
        if regime != SPLIT:
            ratio = us_in(row, "t_skew_us", where) / us_in(row, "t_mean_us", where)
            chunks = (PrefillChunk(new, past),) if new else ()
            contexts = np.array(histories, dtype=np.int64) + 1
            calls["mixed" if new else "decode"].append(UnevenCall(contexts, chunks, ratio))
    keys = profile.model.kv_heads_per_gpu(profile.tp)
    heads = {"decode": keys, "mixed": profile.model.attention_heads // profile.tp}
    found = {name: fit_waves(calls[name], heads[name], sms) for name in calls}
    return {
        name: {"value": one.waves.numbers, "kind": "fitted", "source": one.told, "date": date}
        for name, one in found.items()
        if one is not None
    }


def _is_balanced(profile: LayerProfile) -> bool:
    return profile.gpu.name.startswith(_NOT_FLASH_ATTENTION_2)


def _histories(row: dict[str, str], where: str) -> tuple[list[int], int, int]:
    """Return the histories of a skewed call's decodes, and its chunk: new tokens and past."""
    decodes, long = (count_in(row, key, where) for key in ("n", "nb"))
    short_history, long_history = (count_in(row, key, where) for key in ("kvs", "kv_big"))
    new, past = (count_in(row, key, where, 0) for key in ("pc", "kp"))
    if long > decodes:
        raise InputError(where, "nb", long, f"at most n ({decodes})")
    return [long_history] * long + [short_history] * (decodes - long), new, past


def _regime(profile: LayerProfile, decodes: int, new: int) -> str:
    """Return the regime of FlashAttention-2, which vLLM runs on what is no Hopper.

    It splits KV only where every request has one query: beside a chunk decodes have one regime.
    """
    if new or _is_balanced(profile):
        return ""
    return flash_attention_2(profile.gpu.name, decodes, profile.model.kv_heads_per_gpu(profile.tp))


def _decodes(histories: list[int], shape: str, new: int, past: int) -> dict[str, Any]:
    """Return the keys of decodes with these histories; each attends to one token more."""
    count = len(histories)
    total = sum(histories) + count
    mean = total / count
    cv = (sum((one + 1 - mean) ** 2 for one in histories) / count) ** 0.5 / mean
    shared = {"sum_ctx": total, "max_ctx": max(histories) + 1, "ctx": round(mean)}
    if new:
        return {"q": new, "past": past, "n_dec": count, **shared, "mode": "varlen"}
    return {"batch": count, **shared, "shape": shape, "cv": round(cv, 4)}


def _attention_table(row: Row) -> str:
    if "mode" in row:
        return "attn_mixed"
    return "attn_decode" if "batch" in row else "attn_prefill"


def _gemm_row(shape: tuple[int, int], rows: int, time_us: float) -> Row:
    return {
        "dtype": "bf16",
        "backend": "vllm",
        "m": rows,
        "n": shape[0],
        "k": shape[1],
        "aligned": int(is_aligned(rows)),
        "graph": 0,
        **_time(time_us),
    }


def _pointwise_row(profile: LayerProfile, layer: str, tokens: int, time_us: float) -> Row:
    model, tp = profile.model, profile.tp
    heads = model.attention_heads // tp + 2 * model.kv_heads_per_gpu(tp)
    width = {
        "act_fn": model.ffn_size // tp,
        "qk_norm": heads * model.head_size,
        "rotary_emb": heads * model.head_size,
        "sampler": model.vocab_size,
    }.get(layer, model.hidden_size)
    return {
        "op": _POINTWISE[layer],
        "tokens": tokens,
        "width": width,
        "dtype": "bf16",
        "graph": 0,
        **_time(time_us),
    }


def _heads(profile: LayerProfile) -> dict[str, Any]:
    model, tp = profile.model, profile.tp
    return {
        "backend": "vllm",
        "q_dtype": "bf16",
        "kv_dtype": "bf16",
        "hq": model.attention_heads // tp,
        "hkv": model.kv_heads_per_gpu(tp),
        "d": model.head_size,
        "dv": model.head_size,
        "block": profile.meta.get("engine_effective", {}).get("block_size"),
        "graph": 0,
    }


def _described(profile: LayerProfile, report: ImportReport, date: str) -> dict[str, Any]:
    meta = profile.meta
    source = f"LLMServingSim's layer profiler {meta.get('profiler_version', '')}".strip()
    files = [path for name in COLUMNS if (path := profile.table(name)) is not None]
    return {
        "kind": "imported",
        "source": f"{source}, vllm {meta.get('vllm_version')}",
        "date": date,
        "device": {
            "name": meta.get("gpu"),
            "gpu": profile.gpu.name,
            "sms": multiprocessors(profile.gpu.name),
        },
        "model": profile.model.name,
        "tp": profile.tp,
        "software": {
            "engine": "vllm",
            "engine_version": meta.get("vllm_version"),
            "kernels": [
                {"name": path.name, "sha256": sha256_of(path), "source": source} for path in files
            ],
        },
        "run": {
            "date": str(meta.get("profiled_at", "")),
            "statistic": _STATISTIC,
            "graph": "eager, one layer, random weights",
            "l2": "hot",
        },
        "missing": report.missing,
        "licence_notes": [LICENCE],
    }


def _time(time_us: float) -> dict[str, float]:
    return {"us_p50": time_us}
