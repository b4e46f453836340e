"""Schedulers by name, the user's own included."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import cast

from simserve.errors import InputError, unknown_name
from simserve.policy.batching import ContinuousScheduler, StaticScheduler
from simserve.policy.cohort import CohortScheduler
from simserve.policy.limits import SchedulerLimits
from simserve.policy.plain import PlainScheduler
from simserve.policy.scheduler import Scheduler

SCHEDULERS: dict[str, Callable[[SchedulerLimits], Scheduler]] = {
    "chunked-prefill": CohortScheduler,
    "continuous": ContinuousScheduler,
    "static": StaticScheduler,
    "chunked-prefill-plain": PlainScheduler,
}
"""Schedulers by the name that a deployment gives."""


def load_scheduler(name: str) -> Callable[[SchedulerLimits], Scheduler]:
    """Return the scheduler class called ``name``, or found at ``package.module:Class``.

    Raises:
        InputError: if there is none.
    """
    which = "deployment.scheduler"
    if ":" not in name:
        if name not in SCHEDULERS:
            raise unknown_name("scheduler", which, name, [*SCHEDULERS, "package.module:Class"])
        return SCHEDULERS[name]
    module_name, _, class_name = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            "scheduler", which, name, f"package.module:Class that can be imported ({error})"
        ) from None
    missing = [
        method
        for method in ("add", "plan_step", "complete_step", "last_scheduled")
        if not callable(getattr(found, method, None))
    ]
    if missing:
        raise InputError(
            "scheduler", which, name, f"a class with the methods of Scheduler; no {missing[0]}"
        )
    return cast(Callable[[SchedulerLimits], Scheduler], found)
