"""Random workloads for conformance checks: small, and hostile on purpose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simserve.policy.limits import SchedulerLimits
from simserve.policy.scheduler import RequestView
from simserve.policy.token_stream import TokenStream
from simserve.records.requests import IntArray

COMMON = 1
"""The segment that prompts share; those of a request's own have larger numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A random workload: limits, requests, the step at which each arrives, and its output.

    The scheduler never sees ``output_tokens``; it is told who finished.
    """

    seed: int
    limits: SchedulerLimits
    requests: tuple[RequestView, ...]
    arrival_step: tuple[int, ...]
    output_tokens: tuple[int, ...]
    shared_tokens: tuple[int, ...]  # leading prompt tokens that others may have too


def random_trial(seed: int, *, whole_prompts: bool = False) -> Trial:
    """Return the workload of one seed; odd seeds have too few blocks for all requests.

    With ``whole_prompts`` one step can compute any prompt, and any preempted request, at once.
    """
    rng = np.random.default_rng(seed)
    count, block_size = int(rng.integers(1, 25)), int(rng.choice([1, 4, 16]))
    prompts = rng.integers(1, 90, count)
    outputs = rng.integers(1, 40, count)
    longest = int((prompts + outputs).max())
    blocks_for_one = -(-longest // block_size) + 1
    scarce = bool(seed % 2)
    budget = int(rng.integers(4, 120))
    limits = SchedulerLimits(
        max_num_seqs=int(rng.integers(1, 12)),
        max_num_batched_tokens=max(budget, longest + 1 if whole_prompts else 16),
        max_model_len=longest + 1,
        num_blocks=1 + (blocks_for_one + 2 if scarce else blocks_for_one * count),
        block_size=block_size,
        enable_prefix_caching=bool(rng.integers(2)),
    )
    shared = np.minimum(rng.choice([0, 7, 32], count), prompts - 1)
    views = tuple(
        RequestView(number, int(prompts[number]), _stream(number, int(shared[number]), prompts))
        for number in range(count)
    )
    return Trial(
        seed=seed,
        limits=limits,
        requests=views,
        arrival_step=tuple(np.sort(rng.integers(0, 60, count)).tolist()),
        output_tokens=tuple(outputs.tolist()),
        shared_tokens=tuple(shared.tolist()),
    )


def _stream(number: int, shared: int, prompts: IntArray) -> TokenStream:
    if not shared:
        return TokenStream.unshared(number)
    own, output = 2 * number + 2, 2 * number + 3
    own_tokens = int(prompts[number]) - shared
    return TokenStream.of_segments([COMMON, own], [shared, own_tokens], output, True)
