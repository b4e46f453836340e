"""Users who wait for their answer before they ask again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simserve.inputs.workload import ArrivalsSpec
from simserve.records.clock import PS_PER_S
from simserve.records.requests import RequestTable


def asked_by_users(
    requests: RequestTable, arrivals: ArrivalsSpec, rng: np.random.Generator
) -> RequestTable:
    """Return the requests as ``arrivals.users`` ask them, with times to think drawn for each.

    Whoever has an answer and has thought takes the next request of the table. Everyone thinks
    before the first one too. Times to think are exponential.
    """
    users = min(arrivals.users or 1, len(requests))
    think_s = rng.exponential(arrivals.think_time_s or 0.0, len(requests))
    think_ps = np.rint(think_s * PS_PER_S).astype(np.int64)
    arrival_ps = np.zeros_like(think_ps)
    arrival_ps[:users] = np.sort(think_ps[:users])
    return replace(requests, arrival_ps=arrival_ps, users=users, think_ps=think_ps)
