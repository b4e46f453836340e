"""Deployments in a closed loop: ``inferencex``, TTFT and TPOT by concurrency on H200 and B200.

So many requests are always in flight. As the publishers run it: ten prompts per user, all of
them counted, the burst at the start included; lengths are uniform from 0.8 of the nominal to
the nominal; random prompts, so no prefix hits; means. Two settings are told by the rows
themselves: at 64 users H200 holds 46 requests of 7.8k tokens on one GPU (Little's law), which
only KV values of 8 bits allow, and TTFT grows with the users as the burst does.

One factor on every step per (GPU, precision), fitted on TPOT at up to 8 users, and only where
the rows that it is fitted on err by more than the bar without it. Reported on the others. What a
host term from the same rows would do to TTFT is shown, and never judged: it was thought of with
all rows in view.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simserve.engine.simulate import simulate
from simserve.errors import InputError
from simserve.inputs.deployment import Deployment, read_deployment
from simserve.inputs.quantization import WeightFormat
from simserve.planning.validation.findings import (
    Finding,
    FloatArray,
    Listing,
    Section,
    bias_finding,
    median_finding,
    signed_pct,
)
from simserve.planning.validation.measured_files import Row, rows_of
from simserve.planning.validation.models import KernelProfiles
from simserve.records.requests import RequestTable
from simserve.results.metrics import request_latencies

SET = "inferencex"
_ENGINE, _JUDGED_MODEL = "vllm", "meta-llama/Llama-3.1-70B"
_SHOWN_MODELS = ("nvidia/Llama-3.1-8B-Instruct-FP8", "openai/gpt-oss-120b")
_GPUS = {"h200_sxm": "h200-sxm", "b200_sxm": "b200-sxm"}
_MODELS = {_SHOWN_MODELS[0]: "llama-3.1-8b"}
_PROMPTS_PER_USER, _SHORTEST, _MS = 10, 0.8, 1000.0
_FEW_USERS = 8
_HOW_NOTHING = "nothing fitted"
_TPOT_BAR_PCT, _TTFT_BAR_PCT = 6.0, 20.0
# NVFP4: 4 bits, an 8-bit scale per 16 values (NVIDIA, "Introducing NVFP4", 2025-06-24).
_NVFP4 = WeightFormat(method="nvfp4", bits=4, scale_bytes=1.0, group_size=16, gemm_dtype="fp4")
# A format of nearly as many bytes per weight, for the memory that is left to KV blocks.
_AS_LARGE_AS_NVFP4 = "awq"
_ROOM_TOKENS = 200
_SEED = 0


@dataclass(frozen=True, slots=True)
class Compared:
    """One row: the measured and the predicted means, in milliseconds."""

    row: Row
    ttft_ms: float
    tpot_ms: float

    @property
    def users(self) -> int:
        """Requests that are always in flight."""
        return _whole(self.row["concurrency"])

    def fitted(self, one: Fit) -> Compared:
        """Return the row with a fit: in a closed loop all times are sums of steps."""
        ttft_ms = one.step_factor * self.ttft_ms + one.request_ms
        return Compared(self.row, ttft_ms, one.step_factor * self.tpot_ms)


class Fit(NamedTuple):
    """A factor on every step, and milliseconds that a request spends beside the engine."""

    step_factor: float = 1.0
    request_ms: float = 0.0


def add_closed_load(folder: Path, profiles: KernelProfiles, section: Section) -> None:
    """Add the findings on the aggregated rows in ``folder`` to ``section``.

    Raises:
        InputError: if the file is missing or cannot be read.
    """
    rows = [
        row
        for row in rows_of(folder / "aggregated.csv.gz")
        if row["engine"] == _ENGINE and row["gpu"] in _GPUS and _is_plain(row)
    ]
    for gpu, precision in sorted({(row["gpu"], row["precision"]) for row in rows}):
        mine = [row for row in rows if (row["gpu"], row["precision"]) == (gpu, precision)]
        _compare_judged(f"{_GPUS[gpu]}, {precision}", mine, profiles, section)
        _show_others(f"{_GPUS[gpu]}, {precision}", mine, profiles, section)
    section.notes.append(
        f"{SET}: whether a figure is a mean or a median is not stated; TTFT at many users is that "
        "of a mean with the burst. Engine settings are those of vLLM's defaults but max_num_seqs "
        "(the users), max_num_batched_tokens 8192 and KV values of 8 bits. Rows of other models "
        "than Llama-3.1-8B and gpt-oss-120b, of several replicas, and of SGLang and TensorRT-LLM "
        "are not compared."
    )


def _is_plain(row: Row) -> bool:
    """Return whether a row is one replica with tensor parallelism alone."""
    alone = ("pp_size", "attention_dp_size", "moe_ep_size")
    return all(_whole(row[key] or "1") == 1 for key in alone) and row["tp_size"] == row["gpus"]


def _compare_judged(what: str, rows: list[Row], profiles: KernelProfiles, section: Section) -> None:
    rows = [row for row in rows if row["model"] == _JUDGED_MODEL]
    plain = list(_compared(rows, profiles, section))
    few = [one for one in plain if one.users <= _FEW_USERS]
    rest = [one for one in plain if one.users > _FEW_USERS]
    if not rest:
        return
    name = f"Llama-3.1-70B on {what}"
    fit, told = fit_of(few)
    section.fitted.append(f"{SET}, {name}: {told}")
    section.findings += _findings(name, _HOW_NOTHING, rest, is_judged=fit == Fit())
    found = [one.fitted(fit) for one in rest]
    if fit != Fit():
        section.findings += _findings(name, "one factor", found, is_judged=True)
    section.listings.append(_by_tp(name, found))
    if few:
        host = fit._replace(request_ms=_lacking_ms([one.fitted(fit) for one in few]))
        how = f"and {host.request_ms:.0f} ms per request, of the rows with few users"
        later = [one.fitted(host) for one in rest]
        section.findings += [one for one in _findings(name, how, later) if "TTFT" in one.what]


def fit_of(few: Sequence[Compared]) -> tuple[Fit, str]:
    """Return the factor that the rows with few users call for, if any, and it in words."""
    if not few:
        return Fit(), f"nothing; no row with up to {_FEW_USERS} users"
    tpot_pct, ttft_pct = _medians(few)
    shown = (
        f"rows with up to {_FEW_USERS} users err by {tpot_pct:.1f} % in TPOT and "
        f"{ttft_pct:.1f} % in TTFT without"
    )
    if tpot_pct <= _TPOT_BAR_PCT:
        return Fit(), f"nothing; {shown}"
    factor = float(np.median([float(one.row["tpot_ms"]) / one.tpot_ms for one in few]))
    told = f"every step takes {factor:.3f} of what the tables say, the median of measured over "
    return Fit(step_factor=factor), f"{told}predicted TPOT of {len(few)} rows; {shown}"


def _lacking_ms(few: Sequence[Compared]) -> float:
    """Return the median of what TTFT lacks, at least 0."""
    lacking = [float(one.row["ttft_ms"]) - one.ttft_ms for one in few]
    return max(0.0, float(np.median(lacking)))


def _medians(rows: Sequence[Compared]) -> tuple[float, float]:
    """Return the median sizes of the errors of TPOT and TTFT, in percent."""
    tpot, ttft = (float(np.median(np.abs(_errors(rows, one)))) for one in ("tpot_ms", "ttft_ms"))
    return tpot, ttft


def _show_others(what: str, rows: list[Row], profiles: KernelProfiles, section: Section) -> None:
    for model in _SHOWN_MODELS:
        mine = [row for row in rows if row["model"] == model]
        found = list(_compared(mine, profiles, section))
        if found:
            name = f"{model.split('/')[-1]} on {what}"
            section.findings += _findings(name, _HOW_NOTHING, found)


def _compared(
    rows: Sequence[Row], profiles: KernelProfiles, section: Section
) -> Iterator[Compared]:
    refused: dict[str, int] = {}
    for row in rows:
        try:
            deployment = deployment_of(row)
            model = profiles.model(deployment)
        except InputError as error:
            refused[str(error)] = refused.get(str(error), 0) + 1
            continue
        got = request_latencies(simulate(requests_of(row), deployment, model))
        yield Compared(
            row, float(np.nanmean(got.ttft_s)) * _MS, float(np.nanmean(got.tpot_s)) * _MS
        )
    section.skipped += [f"{SET}, {count} rows: {error}" for error, count in refused.items()]


def deployment_of(row: Row) -> Deployment:
    """Return the deployment of a row."""
    users, longest = _whole(row["concurrency"]), _whole(row["isl"]) + _whole(row["osl"])
    model = row["model"]
    is_nvfp4 = row["gemm_quant_mode"] == "nvfp4" and model == _JUDGED_MODEL
    entry: dict[str, Any] = {"quantization": "fp8"} if row["gemm_quant_mode"] == "fp8" else {}
    entry |= {
        "model": _MODELS.get(model, model),
        "gpu": _GPUS[row["gpu"]],
        "tp": _whole(row["tp_size"]),
        "kv_cache_dtype": "fp8",
        "max_num_seqs": users,
        "max_num_batched_tokens": 8192,
        "max_model_len": longest + _ROOM_TOKENS,
        "enable_prefix_caching": False,
    }
    return in_nvfp4(entry) if is_nvfp4 else read_deployment(entry)


def in_nvfp4(entry: Mapping[str, Any]) -> Deployment:
    """Return a deployment with weights in NVFP4; its memory is that of a format as large."""
    deployment = read_deployment({**entry, "quantization": _AS_LARGE_AS_NVFP4})
    spec = dataclasses.replace(deployment.model, weights=_NVFP4)
    return dataclasses.replace(deployment, model=spec)


def requests_of(row: Row) -> RequestTable:
    """Return the prompts of a row, asked by its users one after another."""
    users = _whole(row["concurrency"])
    count = _PROMPTS_PER_USER * users
    rng = np.random.default_rng(_SEED)
    lengths = [
        rng.integers(round(_SHORTEST * longest), longest + 1, count)
        for longest in (_whole(row["isl"]), _whole(row["osl"]))
    ]
    now = np.zeros(count, dtype=np.int64)
    return RequestTable(
        arrival_ps=now,
        prompt_tokens=lengths[0],
        output_tokens=lengths[1],
        users=users,
        think_ps=now.copy(),
    )


def _errors(rows: Sequence[Compared], metric: str) -> FloatArray:
    return signed_pct(
        [getattr(one, metric) for one in rows], [float(one.row[metric]) for one in rows]
    )


def _findings(
    name: str, how: str, rows: Sequence[Compared], *, is_judged: bool = False
) -> Iterator[Finding]:
    for metric, bar_pct in (("tpot_ms", _TPOT_BAR_PCT), ("ttft_ms", _TTFT_BAR_PCT)):
        what = f"{name}, {metric.removesuffix('_ms').upper()} ({how})"
        errors = _errors(rows, metric)
        yield median_finding(what, errors, bar_pct if is_judged else None)
        yield bias_finding(what, errors)


def _by_tp(name: str, rows: Sequence[Compared]) -> Listing:
    """Return the median signed errors by lengths and tensor-parallel size."""
    groups: dict[tuple[int, int, int], list[Compared]] = {}
    for one in rows:
        key = _whole(one.row["isl"]), _whole(one.row["osl"]), _whole(one.row["tp_size"])
        groups.setdefault(key, []).append(one)
    return Listing(
        f"{name}: median signed errors of the reported rows",
        ("input", "output", "tp", "rows", "TPOT %", "TTFT %"),
        tuple(
            (
                *map(str, key),
                str(len(mine)),
                f"{float(np.median(_errors(mine, 'tpot_ms'))):+.1f}",
                f"{float(np.median(_errors(mine, 'ttft_ms'))):+.1f}",
            )
            for key, mine in sorted(groups.items())
        ),
    )


def _whole(text: str) -> int:
    return round(float(text))
