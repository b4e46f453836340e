"""A step under way."""

from __future__ import annotations

from simserve.policy.scheduler import StepPlan


class Flight:
    """A planned step and the equal ones that follow it: one row of the log."""

    __slots__ = (
        "context_limit",
        "duration_ps",
        "end_ps",
        "first_step",
        "growth_ps",
        "last_start_ps",
        "plan",
        "row",
        "start_ps",
        "steps",
    )

    row: int  # in the log, once it is written
    context_limit: int  # of a decode-only step: up to which the growth is the same

    def __init__(
        self,
        plan: StepPlan,
        start_ps: int,
        duration_ps: int,
        growth_ps: int,
        first_step: int,
    ) -> None:
        self.plan = plan
        self.start_ps = self.last_start_ps = start_ps
        self.duration_ps = duration_ps  # of the first step
        self.growth_ps = growth_ps  # added with every further step
        self.end_ps = start_ps + duration_ps
        self.first_step = first_step
        self.steps = 1
