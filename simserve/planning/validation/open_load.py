"""Deployments under open load at known rates: ``blis_vllm_h100``, vLLM 0.15 on H100.

A load generator sends prompts at equal distances and cycles through a hundred of them, so that
nearly every prompt is found in the prefix cache: TTFT is waiting for steps, and host time.
Two host terms are fitted on the rows of the set ``train``: the gap between two steps, and what
the client sees beside the engine (HTTP, tokenizing, streaming), per request. The rows of
``eval`` are compared and never fitted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from simserve.engine.simulate import simulate
from simserve.inputs.deployment import Deployment, read_deployment
from simserve.planning.validation.findings import (
    Finding,
    Listing,
    Section,
    high_percentile,
    signed_pct,
    skipping,
    within_pct,
)
from simserve.planning.validation.measured_files import Row, rows_of
from simserve.planning.validation.models import KernelProfiles
from simserve.records.clock import PS_PER_S
from simserve.records.requests import RequestTable, SegmentTable
from simserve.results.metrics import request_latencies
from simserve.traffic.segments import offsets_of

SET = "blis_vllm_h100"
_GPU, _BLOCK_TOKENS, _MS = "h100-sxm", 16, 1000.0
# The load generator's groups of prompts that share a system prompt, and the prompts of each
# (recorded for nine of the runs, taken for all).
_GROUPS, _PROMPTS_PER_GROUP = 10, 10
# The size of the mean error over the rows, per metric: the best published simulator reaches
# 7.7 / 8.7 / 14.7 on the same rows (bars.csv).
_BARS_PCT = {"e2e": 7.0, "itl": 8.0, "ttft": 14.0}
_MEASURED = {"e2e": "e2e_mean_ms", "itl": "itl_mean_ms", "ttft": "ttft_mean_ms"}
_OWN_ITL = "tpot_from_means_ms"


@dataclass(frozen=True, slots=True)
class Means:
    """Mean latencies of one run, in milliseconds, as ``_MEASURED`` names them."""

    e2e: float
    itl: float
    ttft: float

    def beside_client(self, client_ms: float) -> Means:
        """Return the same with what the client sees beside the engine."""
        return replace(self, e2e=self.e2e + client_ms, ttft=self.ttft + client_ms)


def add_open_load(folder: Path, profiles: KernelProfiles, section: Section) -> None:
    """Add the findings on the deployments in ``folder`` to ``section``.

    Raises:
        InputError: if a file is missing or cannot be read.
    """
    loads = list(_loads(folder, section))
    run = _Runs(profiles)
    train = [one for one in loads if one.experiment["set"] == "train"]
    rows = [one for one in loads if one.experiment["set"] == "eval"]
    if not rows:
        return
    gap_s = _lacking([(one.measured_ms(_OWN_ITL), run.means(one).itl) for one in train]) / _MS
    client_ms = _lacking(
        [(one.measured_ms(_MEASURED["ttft"]), run.means(one, gap_s).ttft) for one in train]
    )
    section.fitted += [
        f"{SET}: {gap_s * _MS:.2f} ms more between two steps, {client_ms:.1f} ms per request "
        "beside the engine (HTTP, tokenizing, streaming): the medians of what the "
        f"{len(train)} train rows lack in TPOT, and then in TTFT; no other factor",
    ]
    plain = [_Compared(one, run.means(one)) for one in rows]
    fitted = [
        _Compared(one, run.means(one, gap_s).beside_client(client_ms)) for one in (*rows, *train)
    ]
    section.findings += _findings(plain, "nothing fitted", is_judged=False)
    section.findings += _findings(fitted[: len(rows)], "two host terms of the train rows")
    section.listings.append(_listing(fitted))
    section.notes += [
        f"{SET}: the prompts cycle as recorded for nine runs; where the length that the engine saw "
        "is not recorded, the nominal one times the median ratio of those that are",
        f"{SET}: runs with KV offload to the CPU are simulated without; memory binds in none",
        f"{SET}: ITL is that of the publishers, whose answers are counted by re-tokenizing; "
        "TPOT is (E2E - TTFT) / (tokens - 1) of their means",
    ]


@dataclass(frozen=True, slots=True)
class _Load:
    """One deployment under its load, and what was measured."""

    experiment: Row
    measured: Row
    deployment: Deployment
    lengths: tuple[int, int]

    def measured_ms(self, column: str) -> float:
        return float(self.measured[column])


@dataclass(frozen=True, slots=True)
class _Compared:
    """A load, and the means that are predicted for it."""

    load: _Load
    predicted: Means

    def error_pct(self, metric: str, column: str | None = None) -> float:
        truth = self.load.measured_ms(column or _MEASURED[metric])
        return float(signed_pct([getattr(self.predicted, metric)], [truth])[0])


def _loads(folder: Path, section: Section) -> Iterator[_Load]:
    measured = {
        row["experiment"]: row for row in rows_of(folder / "measured.csv") if row["stage"] == "all"
    }
    lengths = _Lengths(rows_of(folder / "latency_distributions.csv"))
    for row in rows_of(folder / "experiments.csv"):
        with skipping(section, f"{SET}, {row['experiment']}"):
            yield _Load(row, measured[row["experiment"]], deployment_of(row), lengths.of(row))


class _Runs:
    """Simulated means; loads that differ in nothing that is simulated share a run."""

    def __init__(self, profiles: KernelProfiles) -> None:
        self._profiles = profiles
        self._done: dict[tuple[object, ...], Means] = {}

    def means(self, load: _Load, gap_s: float = 0.0) -> Means:
        """Return the means of a load's run, with ``gap_s`` more between two steps."""
        row, deployment = load.experiment, load.deployment
        same = (row["model"], row["tp"], row["workload"], deployment.engine, load.lengths, gap_s)
        if same not in self._done:
            model = self._profiles.model(deployment, gap_s=gap_s)
            record = simulate(requests_of(row, *load.lengths), deployment, model)
            got = request_latencies(record)
            e2e, ttft = (float(np.nanmean(one)) * _MS for one in (got.e2el_s, got.ttft_s))
            self._done[same] = Means(e2e, (e2e - ttft) / (int(row["output_tokens"]) - 1), ttft)
        return self._done[same]


def _lacking(pairs: Sequence[tuple[float, float]]) -> float:
    """Return what predictions lack, the median of measured less predicted; 0 if nothing."""
    return max(0.0, float(np.median([measured - got for measured, got in pairs] or [0.0])))


def deployment_of(row: Row) -> Deployment:
    """Return what ``experiments.csv`` says was deployed; CPU offload is left out."""
    entry = {
        "model": row["model"],
        "gpu": _GPU,
        "tp": int(row["tp"]),
        "max_num_seqs": int(row["max_num_seqs"]),
        "max_num_batched_tokens": int(row["max_num_batched_tokens"]),
        "max_model_len": int(row["max_model_len"]),
        "block_size": _BLOCK_TOKENS,
        "enable_prefix_caching": True,
    }
    if row["gpu_mem_util"]:
        entry["gpu_memory_utilization"] = float(row["gpu_mem_util"])
    if row["gpu_kv_blocks16"]:
        entry["num_gpu_blocks"] = int(row["gpu_kv_blocks16"])
    return read_deployment(entry)


def requests_of(row: Row, shortest: int, longest: int) -> RequestTable:
    """Return the load: stages of equal gaps, a hundred prompts in turn, of equally many lengths."""
    stages = zip(row["stage_rates_rps"].split("/"), row["stage_seconds"].split("/"), strict=True)
    arrivals, start_s = [], 0.0
    for rate, seconds in stages:
        count = round(float(rate) * float(seconds))
        arrivals.append(start_s + np.arange(count) / float(rate))
        start_s += float(seconds)
    arrival_s = np.concatenate(arrivals)
    prompts = _GROUPS * _PROMPTS_PER_GROUP
    of_prompt = np.linspace(shortest, longest, prompts).round().astype(np.int64)
    prompt = np.arange(len(arrival_s)) % prompts
    system = int(row["system_prompt_tokens"])
    counts = np.full(len(prompt), 2, dtype=np.int64)
    return RequestTable(
        arrival_ps=np.rint(arrival_s * PS_PER_S).astype(np.int64),
        prompt_tokens=of_prompt[prompt],
        output_tokens=np.full(len(prompt), int(row["output_tokens"]), dtype=np.int64),
        segments=SegmentTable(
            offsets=offsets_of(counts),
            segment=np.stack([prompt % _GROUPS, _GROUPS + prompt], axis=1).ravel(),
            tokens=np.stack(
                [np.full(len(prompt), system, dtype=np.int64), of_prompt[prompt] - system], axis=1
            ).ravel(),
        ),
    )


class _Lengths:
    """The lengths of prompts that the engine saw, where recorded, by model and workload."""

    def __init__(self, runs: Sequence[Row]) -> None:
        self._runs = [row for row in runs if row["stage"] == "all"]

    def of(self, row: Row) -> tuple[int, int]:
        """Return the shortest and the longest prompt of a deployment."""
        nominal = int(row["system_prompt_tokens"]) + int(row["question_tokens"])
        workload = row["workload"].removesuffix("-lite")
        same = [one for one in self._runs if f"-{workload}" in one["run"]]
        mine = [one for one in same if one["model"] == row["model"]] or same
        if mine:
            return int(float(mine[0]["prompt_tokens_min"])), int(
                float(mine[0]["prompt_tokens_max"])
            )
        ratios = [
            [float(one[f"prompt_tokens_{end}"]) / float(one["prompt_tokens_mean"]) for end in _ENDS]
            for one in self._runs
        ]
        longer = np.median([_longer(one) for one in self._runs])
        low, high = np.median(ratios, axis=0)
        return round(nominal * longer * low), round(nominal * longer * high)


_ENDS = ("min", "max")
# System and question tokens of the workloads whose true lengths are recorded (experiments.csv).
_NOMINAL_TOKENS = {"codegen": 566, "roleplay": 750, "general": 547}


def _longer(run: Row) -> float:
    """Return the recorded mean length over the nominal one."""
    workload = next(name for name in _NOMINAL_TOKENS if f"-{name}" in run["run"])
    return float(run["prompt_tokens_mean"]) / _NOMINAL_TOKENS[workload]


def _findings(rows: Sequence[_Compared], how: str, *, is_judged: bool = True) -> Iterator[Finding]:
    for metric, bar_pct in _BARS_PCT.items():
        errors = [one.error_pct(metric) for one in rows]
        yield Finding(
            what=f"vLLM 0.15 on H100 under open load, {metric.upper()} ({how})",
            measure="mean size of the errors of the means",
            error_pct=float(np.mean(np.abs(errors))),
            p90_pct=high_percentile(errors),
            within_5_pct=within_pct(errors),
            points=len(errors),
            bar_pct=bar_pct if is_judged else None,
        )


def _listing(rows: Sequence[_Compared]) -> Listing:
    columns = ("deployment", "set", "TTFT ms", "TTFT %", "ITL ms", "ITL %", "TPOT %", "E2E %")
    return Listing(
        f"{SET}: measured means, and errors with the fitted host terms",
        columns,
        tuple(
            (
                one.load.experiment["experiment"],
                one.load.experiment["set"],
                f"{one.load.measured_ms('ttft_mean_ms'):.1f}",
                f"{one.error_pct('ttft'):+.1f}",
                f"{one.load.measured_ms('itl_mean_ms'):.2f}",
                f"{one.error_pct('itl'):+.1f}",
                f"{one.error_pct('itl', _OWN_ITL):+.1f}",
                f"{one.error_pct('e2e'):+.1f}",
            )
            for one in rows
        ),
    )
