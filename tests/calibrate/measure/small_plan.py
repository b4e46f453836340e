"""A plan for the fake bench: the points of one block, each with its behaviour."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from calibrate.measure.client import Worker
from calibrate.measure.journal import Journal
from calibrate.measure.protocol import Protocol
from calibrate.measure.run import Silence
from calibrate.measure.session import Session
from calibrate.plans.plan import Plan
from calibrate.plans.point import Point, Work
from calibrate.plans.rates import Rates
from tests.calibrate.measure.fakes import FINE, SLOW

BENCH = "tests.calibrate.measure.fakes:open_bench"
RATES = Rates(bytes_per_s=1e9, flops_per_s={"fp32": 1e9}, floor_s=0, setup_s=0, source="none")


def point(
    size: int,
    behaviour: int = FINE,
    block: str = "gemm-fp32",
    seconds: float = 0,
    kernel: str = "",
) -> Point:
    return Point(
        block=block,
        table="gemm",
        keys={"m": size, "n": behaviour},
        work=Work(bytes_moved=0, dtype="fp32"),
        tier=1,
        how={"kernel": kernel or f"kernel-{size}"} | ({"seconds": seconds} if seconds else {}),
    )


def plan_of(points: Sequence[Point], sentinels: Sequence[Point] = (), **protocol: float) -> Plan:
    rules = {"cache_bytes": 0, "point_limit_s": 20.0, "repeat_frac": 0.0, **protocol}
    return Plan(
        name="fake",
        device="cpu",
        gpu=None,
        dtype="fp32",
        block_size=16,
        seed=0,
        protocol=Protocol(**rules),  # type: ignore[arg-type]
        rates=RATES,
        models=(),
        points=tuple(points),
        sentinels=tuple(sentinels),
    )


def session_of(plan: Plan, out: Path, **more: object) -> Session:
    journal = Journal(out, plan.session)
    config = {"device": "none", "notes": str(out / "notes")}
    worker = Worker(BENCH, config, out / "worker.log", start_limit_s=60)
    return Session(plan=plan, worker=worker, journal=journal, telemetry=Silence(), **more)  # type: ignore[arg-type]


def run(plan: Plan, out: Path, **more: object) -> tuple[str, Journal]:
    """Run a plan to its end; return why it ended, and the journal."""
    session = session_of(plan, out, **more)
    try:
        return session.run(), session.journal
    finally:
        session.worker.stop()
        session.journal.close()


def main(out: str, count: str) -> None:
    """Run a plan of slow points: a process to be killed."""
    run(plan_of([point(size, SLOW) for size in range(1, int(count) + 1)]), Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
