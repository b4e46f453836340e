"""When each client gives up: at its time-out, or earlier by its own choice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simserve.inputs.workload import WorkloadSpec
from simserve.records.clock import FAR_PS, NEVER_PS, PS_PER_S, to_ps
from simserve.records.requests import RequestTable
from simserve.traffic.streams import random_stream


def with_patience(requests: RequestTable, workload: WorkloadSpec, seed: int) -> RequestTable:
    """Return the requests with the times after which their clients give up."""
    if workload.timeout_s is None and workload.cancellations is None:
        return requests
    timeout_ps = FAR_PS if workload.timeout_s is None else max(to_ps(workload.timeout_s), 1)
    cancel_ps = np.full(len(requests), FAR_PS, dtype=np.int64)
    if workload.cancellations is not None:
        rng = random_stream(seed, "cancellations")
        cancels = rng.random(len(requests)) < workload.cancellations.frac
        after_s = rng.exponential(workload.cancellations.mean_after_s, len(requests))
        after_ps = np.clip(np.rint(after_s * PS_PER_S), 1, FAR_PS).astype(np.int64)
        cancel_ps[cancels] = after_ps[cancels]
    give_up_ps = np.minimum(cancel_ps, timeout_ps)
    give_up_ps[give_up_ps == FAR_PS] = NEVER_PS
    return replace(requests, give_up_ps=give_up_ps, is_timeout=timeout_ps <= cancel_ps)
