"""A deployment serves a workload: the door of this package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING

from simserve.engine.cluster import Cluster
from simserve.engine.invariants import LawChecker
from simserve.latency.model import StepLatencyModel
from simserve.policy.limits import SchedulerLimits
from simserve.policy.registry import load_scheduler
from simserve.policy.router import ROUTERS
from simserve.records.requests import RequestTable
from simserve.records.run_record import RunRecord

if TYPE_CHECKING:
    from simserve.inputs.deployment import Deployment


def simulate(
    requests: RequestTable,
    deployment: Deployment,
    latency: StepLatencyModel,
    *,
    check: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> RunRecord:
    """Serve ``requests`` on ``deployment`` and return the record of the run.

    ``check`` verifies the laws of ``engine.invariants`` on every step. ``on_progress`` is
    called now and then with (finished requests, all requests). Nothing here draws a random
    number: the same inputs give the same record.

    Raises:
        LawBrokenError: if ``check`` finds a law broken.
    """
    engine = deployment.engine
    limits = SchedulerLimits(
        **{field.name: getattr(engine, field.name) for field in fields(SchedulerLimits)}
    )
    cluster = Cluster(
        requests,
        limits,
        load_scheduler(deployment.scheduler),
        latency,
        ROUTERS[deployment.router](),
        deployment.replicas,
        LawChecker(limits) if check else None,
        on_progress,
    )
    return cluster.run()
