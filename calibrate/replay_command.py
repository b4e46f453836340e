"""``calibrate replay``: a workload served for real by the reference engine, without comparison."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from calibrate.engine.replay import Replay, ReplayResult
from calibrate.engine.runner import Runner
from calibrate.engine.warm_up import warm_up
from calibrate.exits import need_cuda
from calibrate.validate.plans import validation_plan
from simserve.errors import InputError
from simserve.inputs.scenario import load_scenario
from simserve.records.clock import PS_PER_S
from simserve.records.requests import RequestTable
from simserve.results.frames import request_columns, write_requests, write_steps
from simserve.results.whole_files import make_directory
from simserve.traffic.generate import generate

_SHOWN = ("ttft_s", "tpot_s", "e2e_s")
_SHARES = (50, 90, 99)
_MS = 1e3


def replay(
    workload: str, plan_name: str, out: Path, attention: str, seed: int, say: Callable[[str], None]
) -> str:
    """Serve a workload on the engine of a validation plan, write its logs; return a summary.

    ``requests.parquet`` and ``steps.parquet`` are those of ``simserve run --out``;
    ``measured.parquet`` has where the time of every step went.

    Raises:
        InputError: if the workload or the plan cannot be used, or a request is too long.
    """
    plan = validation_plan(plan_name)
    requests = generate(load_scenario(None, workload=workload).workload, seed)
    _check_lengths(requests, plan.limits.max_model_len, workload)
    if plan.setup.device.type == "cuda":
        need_cuda(f"--plan {plan_name}")
    else:
        torch.set_num_threads(1)
    setup = replace(plan.setup, attention=attention) if attention else plan.setup
    make_directory(out)
    runner = Runner(setup, plan.limits)
    runner.capture()
    warm_up(runner)
    say(f"{setup.model.name}: {len(requests):,} requests")
    result = Replay(runner, requests, plan.limits).run()
    labels = {"calibrate_plan": plan.name}
    write_requests(result.record, out / "requests.parquet", labels)
    write_steps(result.record, out / "steps.parquet", labels)
    result.steps.save(result.record, out / "measured.parquet")
    return _summary(result)


def _check_lengths(requests: RequestTable, longest: int, workload: str) -> None:
    tokens = int((requests.prompt_tokens + requests.output_tokens).max())
    if tokens > longest:
        allowed = f"requests of at most {longest} tokens: the engine's max_model_len"
        raise InputError(workload, None, f"a request of {tokens} tokens", allowed)


def _summary(result: ReplayResult) -> str:
    record = result.record
    columns = request_columns(record)
    steps = record.steps[0].total_steps
    lines = [
        f"{len(record.requests):,} requests, {steps:,} steps, {record.end_ps / PS_PER_S:.1f} s",
        f"{'':8}" + "".join(f"{f'p{share} ms':>12}" for share in _SHARES) + f"{'mean ms':>12}",
    ]
    for name in _SHOWN:
        values = np.asarray(columns[name], dtype=np.float64) * _MS
        values = values[~np.isnan(values)]
        if len(values):
            numbers = [*np.percentile(values, _SHARES), math.fsum(values) / len(values)]
            label = name.removesuffix("_s").upper()
            lines.append(f"{label:8}" + "".join(f"{number:>12.2f}" for number in numbers))
    return "\n".join(lines)
