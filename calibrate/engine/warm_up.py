"""Steps that nobody asked for: so that nothing is compiled or chosen while a replay runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import torch

from calibrate.engine.blocks import BlockTables
from calibrate.engine.runner import Runner
from calibrate.engine.timeline import timeline_for
from simserve.policy.limits import SchedulerLimits
from simserve.policy.scheduler import Admission, Scheduled

# Sizes that compilers and libraries tell apart: one, multiples of 16, and others.
_CHUNKS = (1, 2, 16, 17, 64, 100, 256, 1000, 2048, 8192)
_DECODES = (0, 1, 2, 16, 17)


def warm_up(runner: Runner) -> None:
    """Run decodes, chunks and mixed steps of many sizes."""
    limits = runner.limits
    longest = min(limits.max_num_batched_tokens, limits.max_model_len)
    decodes = [n for n in _DECODES if n < min(limits.max_running, limits.usable_blocks)]
    room = (limits.usable_blocks - max(decodes)) * limits.block_size
    tables = tables_of(limits, [min(longest, room), *(1 for _ in range(max(decodes)))])
    timeline = timeline_for(runner.setup.device)
    with torch.inference_mode():
        for step in _steps(decodes, min(longest, room), limits):
            prepared = runner.prepare(step, tables)
            timeline.wait(timeline.launch(prepared.work, prepared.copy_out))


def tables_of(limits: SchedulerLimits, contexts: Sequence[int]) -> BlockTables:
    """Return block tables of requests 0, 1 … that have so many tokens each."""
    tables = BlockTables(limits)
    held = sum(-(-context // limits.block_size) for context in contexts)
    tables.apply(
        [Admission(request, 0, False) for request in range(len(contexts))],
        (),
        [Scheduled(request, context, 0, False) for request, context in enumerate(contexts)],
        limits.usable_blocks - held,
    )
    return tables


def _steps(
    decodes: Sequence[int], longest: int, limits: SchedulerLimits
) -> Iterator[list[Scheduled]]:
    """Yield steps of request 0's chunk, or none, beside one token of others."""
    chunks = [0, *(chunk for chunk in _CHUNKS if chunk < longest), longest]
    for count, chunk in product(decodes, chunks):
        if not count + chunk or count + chunk > limits.max_num_batched_tokens:
            continue
        others = [Scheduled(request, 1, 0, True) for request in range(1, count + 1)]
        yield [*others, *([Scheduled(0, chunk, 0, False)] if chunk else [])]
