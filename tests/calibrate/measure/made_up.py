"""A journal of an H200 that nobody measured: times follow a formula, so that tests know them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from calibrate.measure.journal import END, FILE, POINT, REPEAT, SENTINEL, SESSION
from calibrate.plans.choose import make_plan
from calibrate.plans.plan import Plan
from calibrate.plans.point import CEILING, LAUNCH, Point

BLOCKS = ["ceilings", "launch", "gemm-bf16", "decode", "prefill", "pointwise", "uneven-mixed"]
MODELS = ["llama-3.1-8b"]
Change = Callable[[Point, dict[str, Any]], dict[str, Any]]


def h200_plan() -> Plan:
    """Return one model's points: what tests read in a second."""
    return make_plan("h200-10min", models=MODELS, blocks=BLOCKS)


def time_us(plan: Plan, point: Point) -> float:
    """Return twice the roofline at the datasheet's efficiency: allowed, monotone, smooth."""
    return 2e6 * plan.rates.call_s(point.work)


def write_journal(
    out: Path, plan: Plan, change: Change = lambda _, entry: entry, skip: int = 0
) -> Path:
    """Write the journal of all points but the last ``skip``, each changed by ``change``."""
    lines: list[Mapping[str, Any]] = [_session(plan)]
    points = plan.points[: len(plan.points) - skip]
    for seq, point in enumerate(points):
        lines.append({"kind": POINT, **change(point, _entry(plan, point, seq))})
    for point in points[10:50:2]:
        entry = _entry(plan, point, len(lines))
        lines.append({"kind": REPEAT, **entry, "us_p50": entry["us_p50"] * 1.02})
    for point in plan.sentinels:
        for factor in (1.0, 1.0, 1.03):
            entry = _entry(plan, point, len(lines))
            lines.append({"kind": SENTINEL, **entry, "us_p50": entry["us_p50"] * factor})
    lines.append({"kind": END, "reason": "finished", "seconds": 42.0})
    out.mkdir(parents=True, exist_ok=True)
    (out / FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return out


def _entry(plan: Plan, point: Point, seq: int) -> dict[str, Any]:
    us = time_us(plan, point)
    entry = {
        "name": point.name,
        "table": point.table,
        "block": point.block,
        "keys": dict(point.keys),
        "seq": seq,
        "t_unix": 1_800_000_000 + seq,
        "flag": "",
        "bytes": point.work.bytes_moved,
        "flops": point.work.flops,
        "status": "ok",
        "us_p50": us,
        "us_min": us,
        "us_p10": us * 0.99,
        "us_p90": us * 1.01,
        "us_mean": us,
        "n": 20,
        "copies": 1,
        "graph": 1,
        "setup_s": 0.02,
        "sm_mhz": 1980.0,
        "power_w": 500.0,
        "temp_c": 50.0,
    }
    if point.table == LAUNCH:
        entry["us_gpu"] = 2.0 * float(point.keys["nodes"])
    return entry


def _session(plan: Plan) -> dict[str, Any]:
    return {
        "kind": SESSION,
        "session": plan.session,
        "plan": plan.name,
        "gpu": plan.gpu,
        "seed": plan.seed,
        "points": len(plan.points),
        "asked": {"blocks": BLOCKS, "models": MODELS, "attention": "fa3", "mla": "flashmla"},
        "started": "2026-11-20T10:00:00+00:00",
        "protocol": {"min_s": 0.02, "fewest_replays": 5, "cold_caches": 4.0},
        "simserve": "0",
        "git_commit": "0" * 40,
        "tree_dirty": False,
        "facts": {
            "device": {"type": "cuda", "name": "NVIDIA H200", "uuid_hash": "ab", "sms": 132},
            "software": {"python": "3.12", "torch": "2.11"},
            "kernels": {},
        },
    }


__all__ = ["CEILING", "h200_plan", "time_us", "write_journal"]
