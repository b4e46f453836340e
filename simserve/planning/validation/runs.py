"""Whole runs of a real vLLM through the real engine, request by request.

``llmservingsim_vllm``: 300 requests each on two machines, with the layer tables of the same
machines. Requests enter when the engine queued them, so the engine is judged and not the
client; KV blocks, prefixes and async scheduling are those of the run, where it tells. First
with nothing fitted; then with two scalars of the run's first half, reported on the second, and
with those of the other machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simserve.engine.simulate import simulate
from simserve.inputs.deployment import Deployment, read_deployment
from simserve.latency.model import StepLatencyModel
from simserve.latency.roofline import RooflineModel
from simserve.latency.tables.profile import Profile
from simserve.planning.validation.declared_fit import Scalars, fit_scalars
from simserve.planning.validation.decode_buckets import bucket_findings
from simserve.planning.validation.findings import (
    PERCENT,
    Finding,
    FloatArray,
    Section,
    high_percentile,
    signed_pct,
    skipping,
    within_pct,
)
from simserve.planning.validation.measured_files import Row, json_file, json_lines, rows_of
from simserve.planning.validation.models import Scaled, layer_profile, of_roofline, table_model
from simserve.planning.validation.trust import trust_listings
from simserve.records.clock import PS_PER_S, to_ps
from simserve.records.requests import RequestTable
from simserve.records.run_record import RunRecord
from simserve.results.metrics import request_latencies
from simserve.results.token_times import BoolArray
from simserve.traffic.segments import segments_of_blocks

_SET = "llmservingsim_vllm"
_GPUS = {"RTX4090": "rtx-4090", "RTXPRO6000": "rtx-pro-6000-server"}
_METRICS = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "e2e_ms": "Latency"}
_NAMES = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "e2e_ms": "E2E"}
_BLOCK_TOKENS = 16
_MS = 1000.0
_PERCENTILES = (50, 90, 99)
_BUCKET_BAR_PCT = 5.0
# Of this run the composition rules were chosen in view: a pass on it proves nothing.
_RULES_IN_VIEW_OF = ("rtx4090_llama-3.1-8b_tp1",)


class _Bars(NamedTuple):
    """Bounds on the errors of means, and on the mean errors of requests in TPOT and E2E."""

    mean_pct: float | None
    request_pct: float | None


_REPORTED, _UNFITTED, _FITTED = _Bars(None, None), _Bars(2.0, 2.0), _Bars(1.0, 2.0)


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One run: its folder, how the engine was started, and its rows in order of queueing."""

    folder: Path
    engine: dict[str, Any]
    rows: list[Row]

    def column(self, name: str) -> FloatArray:
        """Return a column of numbers: ``float64[requests]``."""
        return np.array([float(row[name]) for row in self.rows], dtype=np.float64)


def request_section(groundtruth: Path, scratch: Path) -> Section:
    """Return the findings on whole runs; profiles are built in the folder ``scratch``."""
    section = Section("request")
    folder = groundtruth / _SET
    if not folder.is_dir():
        section.skipped.append(f"{_SET}: no folder {folder}")
        return section
    prepared: list[_Prepared] = []
    for path in sorted(one for one in folder.iterdir() if one.is_dir()):
        with skipping(section, path.name):
            prepared.append(_prepared(path, scratch, section))
    for one in prepared:
        others = [other for other in prepared if other is not one]
        with skipping(section, one.name):
            section.findings += _compared(one, others, section)
    return section


def read_run(folder: Path) -> MeasuredRun:
    """Return the run in ``folder``."""
    rows = rows_of(folder / "requests.csv.gz")
    rows.sort(key=lambda row: (float(row["queued_s"]), int(row["request"])))
    return MeasuredRun(folder, json_file(folder / "engine.json"), rows)


def requests_of(run: MeasuredRun) -> RequestTable:
    """Return the run's requests as the engine got them: queueing times, lengths, prefixes."""
    prompt = run.column("input_tokens").astype(np.int64)
    blocks = {
        one["request"]: one["hash_ids"]
        for one in json_lines(run.folder / "prefix_blocks16.jsonl.gz")
    }
    unshared = 1 + max((max(ids) for ids in blocks.values() if ids), default=0)
    ids: list[list[int]] = []
    for row, tokens in zip(run.rows, prompt.tolist(), strict=True):
        mine = list(blocks.get(int(row["request"]), ()))[: tokens // _BLOCK_TOKENS]
        if tokens > len(mine) * _BLOCK_TOKENS:  # what no other prompt repeats
            mine.append(unshared + len(ids))
        ids.append(mine)
    counts = np.array([len(one) for one in ids], dtype=np.int64)
    flat = np.array([one for mine in ids for one in mine], dtype=np.int64)
    return RequestTable(
        arrival_ps=np.array([to_ps(one) for one in run.column("queued_s")], dtype=np.int64),
        prompt_tokens=prompt,
        output_tokens=run.column("output_tokens").astype(np.int64),
        segments=segments_of_blocks(prompt, counts, flat, _BLOCK_TOKENS),
    )


def deployment_of(run: MeasuredRun) -> tuple[Deployment, list[str]]:
    """Return what was deployed, and what of it the run does not tell."""
    given, recorded = run.engine["engine_kwargs"], run.engine.get("kv_cache") or {}
    scheduler = run.engine.get("resolved_config_excerpt", {}).get("scheduler", {})
    entry = {
        "model": run.engine["model"],
        "gpu": _GPUS.get(run.engine["gpu"], run.engine["gpu"]),
        "tp": given["tensor_parallel_size"],
        "max_num_seqs": given["max_num_seqs"],
        "max_num_batched_tokens": given["max_num_batched_tokens"],
        "max_model_len": given["max_model_len"],
        "num_gpu_blocks": recorded.get("num_gpu_blocks"),
        "async_scheduling": scheduler.get("async_scheduling", True),
        "block_size": _BLOCK_TOKENS,
        "enable_prefix_caching": True,
    }
    untold = [] if recorded else ["KV blocks are not recorded: those that vLLM 0.33 would have"]
    if not scheduler:
        untold.append("async scheduling is not recorded: vLLM's default, on")
    return read_deployment(
        {key: value for key, value in entry.items() if value is not None}
    ), untold


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A run, what serves it, its profile, and the two scalars of its first half."""

    run: MeasuredRun
    deployment: Deployment
    requests: RequestTable
    profile: Profile
    first_half: BoolArray
    scalars: Scalars

    @property
    def name(self) -> str:
        return self.run.folder.name

    def record(self, model: StepLatencyModel) -> RunRecord:
        """Return the run with this latency model."""
        return simulate(self.requests, self.deployment, model)


def _prepared(folder: Path, scratch: Path, section: Section) -> _Prepared:
    run = read_run(folder)
    deployment, untold = deployment_of(run)
    requests = requests_of(run)
    profile = layer_profile(folder / "profile", deployment, run.engine, scratch, section)
    ends_s = run.column("last_token_s")
    first_half = ends_s < (ends_s.max() + run.column("queued_s").min()) / 2

    tables = table_model(profile, deployment)

    def simulated(scalars: Scalars) -> FloatArray:
        got = request_latencies(simulate(requests, deployment, Scaled(tables, *scalars)))
        return _means(np.stack([got.ttft_s, got.tpot_s, got.e2el_s]) * _MS, first_half)

    measured = np.stack([run.column(key) for key in _NAMES])
    scalars = fit_scalars(simulated, _means(measured, first_half))
    section.notes += [f"{folder.name}: {one}" for one in untold]
    section.notes.append(of_roofline(folder.name, tables))
    section.fitted.append(
        f"{folder.name}: {scalars.told}, on the {int(first_half.sum())} requests that were through "
        "by half of the run; reported on the others"
    )
    return _Prepared(run, deployment, requests, profile, first_half, scalars)


def _compared(one: _Prepared, others: Sequence[_Prepared], section: Section) -> Iterator[Finding]:
    deployment, profile, name = one.deployment, one.profile, one.name
    roofline = RooflineModel(deployment.model, deployment.gpu, deployment.tp)
    even = table_model(profile, deployment, is_even=True)
    tables = table_model(profile, deployment)
    rest = ~one.first_half
    everyone = np.ones(len(rest), dtype=np.bool_)
    judged = _UNFITTED if name not in _RULES_IN_VIEW_OF else _REPORTED
    for label, model, bars in (
        ("roofline", roofline, _REPORTED),
        ("layer tables at mean contexts", even, _REPORTED),
        ("layer tables", tables, judged),
    ):
        record = one.record(model)
        what = f"{name} ({label})"
        yield from _latencies(what, one.run, record, everyone, bars)
        seconds = rows_of(one.run.folder / "timeseries.csv")
        bar_pct = _BUCKET_BAR_PCT if model is tables else None
        yield from bucket_findings(what, seconds, record, model, bar_pct)
        section.notes.append(_makespan(what, one.run, record))
        if model is tables:
            section.listings += trust_listings(name, tables, deployment.gpu, record)
    fits = [("two scalars of its first half", one.scalars, _FITTED)]
    fits += [(f"the scalars of {other.name}", other.scalars, _REPORTED) for other in others]
    for label, scalars, bars in fits:
        record = one.record(Scaled(tables, *scalars))
        yield from _latencies(f"{name} ({label})", one.run, record, rest, bars)


def _means(latencies: FloatArray, counted: BoolArray) -> FloatArray:
    """Return the means over the requests that count, of the values there are."""
    return np.array([np.nanmean(row[(row > 0) & counted]) for row in latencies])


def _makespan(what: str, run: MeasuredRun, record: RunRecord) -> str:
    published = json_file(run.folder / "published_simulator_per_request.json")
    return (
        f"{what}: makespan {float(run.column('last_token_s').max()):.1f} s measured, "
        f"{record.end_ps / PS_PER_S:.1f} s here, "
        f"{published['makespan_s']['published_simulator']:.1f} s by the published simulator; "
        f"{int(record.outcomes.preemptions.sum())} preemptions"
    )


def _latencies(
    what: str, run: MeasuredRun, record: RunRecord, counted: BoolArray, bars: _Bars
) -> Iterator[Finding]:
    theirs = {
        (row["metric"], row["statistic"]): float(row["diff_pct"])
        for row in rows_of(run.folder / "published_simulator.csv")
    }
    published = json_file(run.folder / "published_simulator_per_request.json")["per_request"]
    got = request_latencies(record)
    for key, predicted_s in zip(_NAMES, (got.ttft_s, got.tpot_s, got.e2el_s), strict=True):
        measured = run.column(key)
        has = counted & (measured > 0)  # one token has no time per output token
        yield from _metric(
            f"{what}, {_NAMES[key]}",
            predicted_s[has] * _MS,
            measured[has],
            (bars.mean_pct, bars.request_pct if key != "ttft_ms" else None),
            (theirs[_METRICS[key], "Mean"], published[key]["mape_pct"]),
        )


def _metric(
    what: str,
    predicted: FloatArray,
    measured: FloatArray,
    bars: tuple[float | None, float | None],
    published_pct: tuple[float, float],
) -> Iterator[Finding]:
    """Yield the error of the mean, of percentiles, and the mean error of requests."""
    errors = signed_pct(predicted, measured)
    of_mean = float((predicted.mean() / measured.mean() - 1.0) * PERCENT)
    tails = [
        float((np.percentile(predicted, at) / np.percentile(measured, at) - 1.0) * PERCENT)
        for at in _PERCENTILES
    ]
    told = ", ".join(f"p{at} {pct:+.1f}" for at, pct in zip(_PERCENTILES, tails, strict=True))
    yield Finding(
        what=what,
        measure=f"of the mean, signed ({told})",
        error_pct=of_mean,
        points=len(errors),
        bar_pct=bars[0],
        bar_source="" if bars[0] is None else f"(published {published_pct[0]:+g})",
    )
    sizes = np.abs(errors)
    yield Finding(
        what=what,
        measure="per request, mean size",
        error_pct=float(sizes.mean()),
        p90_pct=high_percentile(sizes),
        within_5_pct=within_pct(sizes),
        points=len(sizes),
        bar_pct=bars[1],
        bar_source="" if bars[1] is None else f"(published {published_pct[1]:.1f})",
    )
