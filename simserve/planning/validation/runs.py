"""Whole runs of a real vLLM through the real engine, request by request, nothing fitted.

``llmservingsim_vllm``: 300 requests each on two machines, with the layer tables of the same
machines. Requests enter when the engine queued them, so the engine is judged and not the
client; KV blocks, prefixes and async scheduling are those of the run, where it tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simserve.engine.simulate import simulate
from simserve.errors import InputError
from simserve.inputs.deployment import Deployment, read_deployment
from simserve.planning.validation.decode_buckets import bucket_findings
from simserve.planning.validation.findings import (
    PERCENT,
    Finding,
    FloatArray,
    Section,
    high_percentile,
    signed_pct,
    within_pct,
)
from simserve.planning.validation.measured_files import Row, json_file, json_lines, rows_of
from simserve.planning.validation.models import layer_candidates
from simserve.records.clock import PS_PER_S, to_ps
from simserve.records.requests import RequestTable
from simserve.results.metrics import request_latencies
from simserve.traffic.segments import segments_of_blocks

_SET = "llmservingsim_vllm"
_GPUS = {"RTX4090": "rtx-4090", "RTXPRO6000": "rtx-pro-6000-server"}
_METRICS = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "e2e_ms": "Latency"}
_NAMES = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "e2e_ms": "E2E"}
_BLOCK_TOKENS = 16
_MS = 1000.0
_PUBLISHED = "(the published simulator's error)"


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
    for path in sorted(one for one in folder.iterdir() if one.is_dir()):
        try:
            _compare(path, scratch, section)
        except InputError as error:
            section.skipped.append(f"{path.name}: {error}")
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
        "gpu": _GPUS[run.engine["gpu"]],
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


def _compare(folder: Path, scratch: Path, section: Section) -> None:
    run = read_run(folder)
    deployment, untold = deployment_of(run)
    requests = requests_of(run)
    section.notes += [f"{folder.name}: {one}" for one in untold]
    theirs = {
        (row["metric"], row["statistic"]): float(row["diff_pct"])
        for row in rows_of(folder / "published_simulator.csv")
    }
    published = json_file(folder / "published_simulator_per_request.json")
    source = folder / "profile"
    for candidate in layer_candidates(source, deployment, run.engine, scratch, section):
        record = simulate(requests, deployment, candidate.model)
        got = request_latencies(record)
        what = f"{folder.name} ({candidate.name})"
        for key, predicted_s in zip(_NAMES, (got.ttft_s, got.tpot_s, got.e2el_s), strict=True):
            bars = abs(theirs[_METRICS[key], "Mean"]), published["per_request"][key]["mape_pct"]
            section.findings += _metric(
                f"{what}, {_NAMES[key]}",
                predicted_s * _MS,
                run.column(key),
                bars if candidate.is_judged else (None, None),
            )
        seconds = rows_of(folder / "timeseries.csv")
        section.findings += bucket_findings(what, seconds, record, candidate.model)
        makespan = float(run.column("last_token_s").max())
        section.notes.append(
            f"{what}: makespan {makespan:.1f} s measured, {record.end_ps / PS_PER_S:.1f} s here, "
            f"{published['makespan_s']['published_simulator']:.1f} s by the published simulator; "
            f"{int(record.outcomes.preemptions.sum())} preemptions"
        )


def _metric(
    what: str,
    predicted: FloatArray,
    measured: FloatArray,
    bars: tuple[float | None, float | None],
) -> Iterator[Finding]:
    """Yield the error of the mean and the mean error of requests, each with its bar."""
    has = measured > 0  # one token has no time per output token
    sizes = np.abs(signed_pct(predicted[has], measured[has]))
    mean_pct = float((predicted[has].mean() / measured[has].mean() - 1.0) * PERCENT)
    figures = (
        ("of the mean, signed", mean_pct, None, None),
        ("per request, mean size", float(sizes.mean()), high_percentile(sizes), within_pct(sizes)),
    )
    for (measure, error_pct, p90_pct, within_5_pct), bar in zip(figures, bars, strict=True):
        yield Finding(
            what=what,
            measure=measure,
            error_pct=error_pct,
            p90_pct=p90_pct,
            within_5_pct=within_5_pct,
            points=len(sizes),
            bar_pct=bar,
            bar_source="" if bar is None else _PUBLISHED,
        )
