"""Whether the device is still as quick as it was: one decode step, timed again and again."""

from __future__ import annotations

from statistics import median

import torch

from calibrate.engine.runner import Runner
from calibrate.engine.timeline import timeline_for
from calibrate.engine.warm_up import tables_of
from simserve.policy.scheduler import Scheduled

_TIMES, _WARM_UPS = 11, 3
_MOST_SEQS = 8
# Half of the longest context: long enough that attention counts.
_CONTEXT_SHARE = 2


def sentinel_s(runner: Runner) -> float:
    """Return the device's median seconds for a decode of a few sequences, always the same."""
    limits = runner.limits
    context = limits.max_model_len // _CONTEXT_SHARE
    blocks_each = -(-context // limits.block_size)
    seqs = max(1, min(limits.max_running, limits.usable_blocks // blocks_each, _MOST_SEQS))
    tables = tables_of(limits, [context] * seqs)
    decodes = [Scheduled(request, 1, context - 1, True) for request in range(seqs)]
    timeline = timeline_for(runner.setup.device)
    seconds = []
    with torch.inference_mode():
        for _ in range(_WARM_UPS + _TIMES):
            prepared = runner.prepare(decodes, tables)
            ticket = timeline.launch(prepared.work, prepared.copy_out)
            timeline.wait(ticket)
            seconds.append(ticket.device_s)
    return median(seconds[_WARM_UPS:])
