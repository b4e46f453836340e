"""Structure, exactly: fed the recorded step times, the simulator must decide what was decided.

Times apart, a real run and a simulated one are the same scheduler on the same requests. So
with each step as long as it really was, every admission, batch, preemption and finish must
come out the same, step for step and picosecond for picosecond.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from simserve.engine.cluster import Cluster
from simserve.errors import SimserveError
from simserve.policy.limits import SchedulerLimits
from simserve.policy.registry import load_scheduler
from simserve.policy.router import RoundRobin
from simserve.records.clock import PS_PER_S
from simserve.records.run_record import RequestOutcomes, RunRecord, TokenGaps
from simserve.records.step import StepShape
from simserve.results.law_terms import Limits
from simserve.results.record_laws import broken_laws


class RecordedTimes:
    """A latency model that returns the recorded durations, one after the other.

    Steps that computed nothing are not asked for. Beyond the record a step takes no time:
    the comparison then finds too many steps.
    """

    def __init__(self, record: RunRecord) -> None:
        steps = record.steps[0].expand()
        durations_ps = (steps["end_ps"] - steps["start_ps"])[steps["tokens"] > 0]
        self._next = iter(durations_ps.tolist())

    def step_s(self, shape: StepShape) -> float:
        """Return the duration of the next recorded step, in seconds."""
        return next(self._next, 0) / PS_PER_S


@dataclass(frozen=True, slots=True)
class IdentityReport:
    """What the comparison found; ``differences`` are sentences, none if all is the same."""

    steps: int
    preemptions: int
    differences: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether every step and request came out the same."""
        return not self.differences


def compare_structure(record: RunRecord, limits: SchedulerLimits, scheduler: str) -> IdentityReport:
    """Simulate a record's requests with its own step times, and compare everything.

    The record must obey the laws of finished runs too.
    """
    checked = Limits(
        max_running=limits.max_running,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        max_model_len=limits.max_model_len,
        usable_blocks=limits.usable_blocks,
        scheduled_ahead=limits.async_scheduling,
    )
    differences = [f"law {broken}" for broken in broken_laws(record, checked)]
    cluster = Cluster(
        record.requests, limits, load_scheduler(scheduler), RecordedTimes(record), RoundRobin()
    )
    try:
        simulated = cluster.run()
    except SimserveError as error:
        differences.append(f"the simulator: {error}")
    else:
        differences += _different_steps(record, simulated)
        differences += _different_requests(record.outcomes, simulated.outcomes)
        if _gaps(record.gaps) != _gaps(simulated.gaps):
            differences.append("other tokens are late")
        if record.end_ps != simulated.end_ps:
            differences.append(f"ends at {record.end_ps} ps, simulated {simulated.end_ps}")
    return IdentityReport(
        steps=record.steps[0].total_steps,
        preemptions=int(record.outcomes.preemptions.sum()),
        differences=tuple(differences),
    )


def _different_steps(real: RunRecord, simulated: RunRecord) -> list[str]:
    have, want = real.steps[0].expand(), simulated.steps[0].expand()
    counts = len(have["tokens"]), len(want["tokens"])
    found = [] if counts[0] == counts[1] else [f"{counts[0]} steps, simulated {counts[1]}"]
    common = min(counts)
    for name, column in want.items():
        wrong = np.flatnonzero(have[name][:common] != column[:common])
        if len(wrong):
            at = int(wrong[0])
            found.append(
                f"step {at}: {name} is {have[name][at]}, simulated {column[at]} "
                f"({len(wrong)} steps differ)"
            )
    return found


def _different_requests(real: RequestOutcomes, simulated: RequestOutcomes) -> list[str]:
    found = []
    for column in fields(RequestOutcomes):
        have, want = getattr(real, column.name), getattr(simulated, column.name)
        wrong = np.flatnonzero(have != want)
        if len(wrong):
            at = int(wrong[0])
            found.append(
                f"request {at}: {column.name} is {have[at]}, simulated {want[at]} "
                f"({len(wrong)} requests differ)"
            )
    return found


def _gaps(gaps: TokenGaps) -> list[tuple[int, ...]]:
    columns = (gaps.request, gaps.previous_step, gaps.step, gaps.as_decode.astype(np.int64))
    return sorted(zip(*(column.tolist() for column in columns), strict=True))
